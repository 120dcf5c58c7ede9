"""``zram_writeback`` on a real device of zram with a loop device behind it: pages arrive there, and limits hold."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers import command
from tests.helpers.programs import SLEEPS, program
from tests.helpers.waiting import wait_until

from pydamon.linux import zram
from pydamon.modules.controller import ZramWriteback
from pydamon.run.acts.hands import MachineHands

pytestmark = pytest.mark.guest

PAGE, MIB = 4096, 1 << 20
CONTROL = Path("/sys/class/zram-control")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A device of zram that has held 4 MiB that do not compress, with a loop device of 16 MiB behind it; its name."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(16 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=True)
    loop = made.stdout.strip()
    number = (CONTROL / "hot_add").read_text().strip()
    path = Path(f"/sys/block/zram{number}")
    try:
        (path / "backing_dev").write_text(loop)
        (path / "disksize").write_text(str(16 * MIB))
        with open(f"/dev/zram{number}", "r+b", buffering=0) as block:
            block.write(os.urandom(4 * MIB))
            os.fsync(block)
        yield f"zram{number}"
    finally:
        (path / "reset").write_text("1")
        with contextlib.suppress(OSError):
            (CONTROL / "hot_remove").write_text(number)
        subprocess.run(["losetup", "--detach", loop], check=True)


def written(device: str) -> int:
    """Bytes that it has written to its backing device."""
    return int(Path(f"/sys/block/{device}/bd_stat").read_text().split()[2]) * PAGE


def limit(device: str) -> list[str]:
    """Whether there is a limit, and what is left of it."""
    return [Path(f"/sys/block/{device}/{name}").read_text().strip() for name in zram._LIMIT]


def pydamon(*words: str) -> str:
    done = command.pydamon(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_more_than_the_limit_is_written_at_once_and_what_is_young_stays(device: str) -> None:
    hands = MachineHands(None)
    old = ZramWriteback(device=device, idle_age_s=3600, limit_bytes=MIB)
    assert hands.do(old, 0) == 0  # none of it has been there for an hour: the kernel knows since when
    young = ZramWriteback(device=device, idle_age_s=1, limit_bytes=MIB)
    done: list[int] = []

    def once() -> bool:
        done.append(hands.do(young, 0) or 0)
        return done[-1] == MIB

    wait_until(once, every_s=0.3)  # a second ago not all of it was there
    assert all(amount <= MIB for amount in done)
    assert written(device) == sum(done)
    assert limit(device) == ["1", "0"]
    assert hands.finish() == [f"the limit of writing back of {device} is as before"]
    assert limit(device)[0] == "0"


def test_a_device_in_use_writes_back_as_much_as_it_may_in_all(device: str) -> None:
    (Path(f"/sys/block/{device}/writeback_limit_enable")).write_text("1")
    (Path(f"/sys/block/{device}/writeback_limit")).write_text("77")
    module = f"zram_writeback device={device} idle_age=1s interval=500ms limit=512KiB most=2MiB"
    assert command.pydamon("modules", "check", module).stderr == ""
    with program(SLEEPS) as pid:
        pydamon("start", "--name", "z", str(pid), "--module", module)
        try:
            wait_until(lambda: written(device) == 2 * MIB, seconds=120, every_s=0.2)
            time.sleep(2)  # four intervals in which nothing more may come
            (told,) = json.loads(pydamon("status", "z", "--json"))["kdamonds"]
            (act,) = told["acts"]
            assert act["done_bytes"] == written(device) == 2 * MIB
            assert act["count"] >= 4
        finally:
            pydamon("stop", "z")
    assert limit(device) == ["1", "77"]
    with open(f"/dev/{device}", "rb", buffering=0) as block:  # what was written back is read from there
        assert len(block.read(4 * MIB)) == 4 * MIB


def test_a_killed_daemon_leaves_a_limit_that_is_shown_and_undone(device: str) -> None:
    module = f"zram_writeback device={device} idle_age=1s interval=200ms limit=256KiB"
    with program(SLEEPS) as pid:
        pydamon("start", "--name", "z", str(pid), "--module", module)
        wait_until(lambda: written(device) > 0, seconds=60, every_s=0.1)
        (told,) = json.loads(pydamon("status", "z", "--json"))["kdamonds"]
        os.kill(told["pid"], signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{told['pid']}").exists())
    assert limit(device)[0] == "1"
    assert f"{device} has a limit of writing back that was set for it" in pydamon("status")
    assert pydamon("stop", "--undo") == f"undone: the limit of writing back of {device} is as before\n"
    assert limit(device)[0] == "0"
    assert "left behind" not in pydamon("status")
