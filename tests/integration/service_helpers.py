"""What the tests of the background service share: daemons in a runtime directory of the test's own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.command import pydamon
from tests.helpers.waiting import GENEROUS_S

from pydamon.errors import RequestError
from pydamon.service.client import Client, ServiceClient, running

SMAPS = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms"]
SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
AN_HOUR = str(Path(__file__).with_name("an_hour.masim"))  # none of the tests comes to its end, however slow it is
SIM = ["--ops", "sim", "--workload", AN_HOUR]


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], GENEROUS_S)[0], "did not end in time"
    finally:
        os.close(pidfd)


@pytest.fixture(name="runtime", autouse=True)
def runtime_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; what still runs in the end is ended. Who asks waits long for an answer."""
    base = tmp_path / "run"
    base.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    for client in (Client, ServiceClient):
        monkeypatch.setitem(client.__init__.__kwdefaults__, "timeout_s", GENEROUS_S)  # type: ignore[arg-type]
    yield base / "pydamon"
    (base / "pydamon").mkdir(exist_ok=True)
    (base / "pydamon").chmod(0o700)
    for name in running():
        with contextlib.suppress(RequestError):  # its target was ended a moment ago, and so did it
            Client(name).stop()


@pytest.fixture(name="sleeper")
def sleeper_fixture() -> Iterator[int]:
    with subprocess.Popen(SLEEPER, stdout=-1) as child:
        assert child.stdout
        child.stdout.readline()
        yield child.pid
        child.kill()


def start(*args: str, **options: Any) -> int:
    """The pid of a kdamond that was started."""
    done = pydamon("start", *args, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = re.match(r"kdamond [\w.-]+ \(pid (\d+)\): ", done.stdout)
    assert found
    return int(found[1])
