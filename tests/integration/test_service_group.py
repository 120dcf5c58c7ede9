"""A group that may look at what somebody else runs in the background, and change nothing."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.integration.service_helpers import SIM, runtime_fixture, start  # noqa: F401 - fixtures

from pydamon.service.client import Client, running
from pydamon.service.server import MAX_PEERS, MAX_READERS

NOBODY = 65534
SHOWN = "users"  # a group that every Debian has

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv, to be another user"
)


@pytest.fixture(name="shared", autouse=True)
def shared_fixture(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where others can look; tmp_path itself they may not enter."""
    base = Path(f"/tmp/pydamon-test-{os.getpid()}")
    base.mkdir(mode=0o755)
    monkeypatch.setenv("PYDAMON_RUN_DIR", str(base))
    yield base
    for name in running():
        with contextlib.suppress(Exception):
            Client(name).stop()
    shutil.rmtree(base)


def others_command(groups: str | None) -> list[str]:
    """``pydamon`` by a user who is not the owner, a member of these groups."""
    further = ["--groups", str(grp.getgrnam(groups).gr_gid)] if groups else ["--clear-groups"]
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), *further, "--inh-caps=-all", *PYDAMON]


def others_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}


def as_other(*args: str, groups: str | None = SHOWN) -> subprocess.CompletedProcess[str]:
    """``pydamon ARGS`` by that user."""
    command, environment = [*others_command(groups), *args], others_environment()
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd="/")


def test_a_member_sees_the_status_and_an_outsider_does_not(shared: Path) -> None:
    start(*SIM, "--name", "shown", "--group", SHOWN)
    assert running() == ["shown"]
    seen = as_other("status", "shown", "--json")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["kdamonds"][0]["name"] == "shown"
    assert "shown" in as_other("status").stdout
    seen = as_other("top", "shown", "-b", "--json")
    assert (seen.returncode, '"targets"' in seen.stdout) == (0, True), seen.stderr
    outside = as_other("status", "shown", groups=None)
    assert outside.returncode == 2
    assert "no kdamond of that name" in only_line(outside)
    folder = shared / f"{SHOWN}.group"
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "shown.sock": 0o660, "shown.pid": 0o600, "shown.log": 0o600,
    }  # fmt: skip


def test_a_member_has_it_in_the_browser_without_reading_its_record(tmp_path: Path) -> None:
    """The record is the owner's alone: what the kdamond keeps in memory is shown."""
    pytest.importorskip("starlette", reason="needs starlette")
    start(*SIM, "--name", "shown", "--group", SHOWN, "-o", str(tmp_path / "own.damon"))
    command = [*others_command(SHOWN), "serve", "shown"]
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "cwd": "/", "env": others_environment()}
    with subprocess.Popen(command, text=True, **options) as server:
        try:
            assert server.stdout is not None
            place, _, token = server.stdout.readline().strip().partition("/?token=")
            request = urllib.request.Request(f"{place}/api/recordings", headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=120) as answer:
                (told,) = json.load(answer)["recordings"]
            assert told["name"] == "shown.damon"
            assert "what this kdamond keeps in memory is shown" in told["warnings"][0]
        finally:
            server.terminate()


@pytest.mark.parametrize("change", [("stop", "shown"), ("tune", "shown", "--max-regions", "50")])
def test_a_member_changes_nothing(change: tuple[str, ...]) -> None:
    start(*SIM, "--name", "shown", "--group", SHOWN)
    refused = as_other(*change)
    assert refused.returncode == 3
    assert "its owner and root may do that; the group may look" in only_line(refused)
    assert Client("shown").status()["nr_regions"]["max"] == 1000


def test_without_a_group_nobody_else_sees_anything() -> None:
    start(*SIM, "--name", "own")
    assert as_other("status").stdout.splitlines()[0] == "nothing runs in the background"


def test_members_leave_room_for_the_owner(shared: Path) -> None:
    start(*SIM, "--name", "shown", "--group", SHOWN)
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([{grp.getgrnam(SHOWN).gr_gid}]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "held = []\n"
        f"for _ in range({MAX_PEERS * 3}):\n"
        "    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); held.append(one)\n"
        "print(flush=True); sys.stdin.readline()\n"
    )
    path = str(shared / f"{SHOWN}.group" / "shown.sock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=-1, stdout=-1) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdin is not None
        crowd.stdout.readline()
        assert Client("shown").status()["name"] == "shown"
        crowd.stdin.close()
    assert MAX_READERS < MAX_PEERS


def test_a_group_that_does_not_exist_is_said_and_nothing_runs() -> None:
    refused = pydamon("start", *SIM, "--group", "no such group")
    assert refused.returncode == 2
    assert "there is no group 'no such group'" in only_line(refused)
    assert running() == []


def test_a_base_directory_that_others_may_write_is_refused(shared: Path) -> None:
    shared.chmod(0o777)
    refused = pydamon("start", *SIM, "--group", SHOWN)
    assert refused.returncode == 3
    assert "others cannot write" in only_line(refused)


def test_what_a_killed_one_has_left_is_not_shown_to_members(shared: Path) -> None:
    folder = shared / f"{SHOWN}.group"
    folder.mkdir(mode=0o750)
    os.chown(folder, -1, grp.getgrnam(SHOWN).gr_gid)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "left.sock"))
    (folder / "left.sock").chmod(0o666)
    assert as_other("status").stdout.splitlines()[0] == "nothing runs in the background"
