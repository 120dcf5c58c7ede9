"""``reclaim`` where swap is nearly full, becomes full, and is switched off meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers import command
from tests.helpers.memory import swap_bytes
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.guest

MIB = 1 << 20
CONTROL = Path("/sys/class/zram-control")
MODULE = "reclaim min_age=1s watermarks=off quota=1s+128MiB/1s"
# 64 MiB that are never used again, and do not compress.
IDLE = """
import mmap, os, time
memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 1 << 20):
    memory[at : at + (1 << 20)] = os.urandom(1 << 20)
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""


@pytest.fixture
def small_swap() -> Iterator[str]:
    """All swap that there is: 16 MiB; its device."""
    number = (CONTROL / "hot_add").read_text().strip()
    device = f"/dev/zram{number}"
    Path(f"/sys/block/zram{number}/disksize").write_text(str(16 * MIB))
    subprocess.run(["mkswap", "-q", device], check=False, stdout=subprocess.DEVNULL)
    subprocess.run(["swapoff", "/dev/zram0"], check=True)
    subprocess.run(["swapon", device], check=True)
    try:
        yield device
    finally:
        subprocess.run(["swapoff", device], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["swapon", "/dev/zram0"], check=True)
        Path(f"/sys/block/zram{number}/reset").write_text("1")
        with contextlib.suppress(OSError):
            (CONTROL / "hot_remove").write_text(number)


def test_what_finds_no_room_in_swap_stays_in_memory_and_the_run_goes_on(small_swap: str) -> None:
    with program(IDLE) as pid:
        assert command.pydamon("start", "--name", "s", str(pid), "--module", MODULE).returncode == 0
        try:
            wait_until(lambda: swap_bytes(pid) > 14 * MIB, seconds=120, every_s=0.5)
            said = command.pydamon("modules", "check", "reclaim").stderr
            assert "of swap is free: anonymous memory will soon find no room; files=only needs none" in said
            subprocess.run(["swapoff", small_swap], check=True)  # all of it comes back
            told = command.pydamon("status", "s")
            assert told.returncode == 0
            assert "running" in told.stdout
        finally:
            stopped = command.pydamon("stop", "s")
        assert stopped.returncode == 0, stopped.stderr
        assert swap_bytes(pid) == 0
        assert Path(f"/proc/{pid}").exists()
