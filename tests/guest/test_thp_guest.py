"""``thp`` on real memory: hot memory becomes huge, cold huge pages go to swap, and the kernel's own DAMON does both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.helpers import command
from tests.helpers.memory import swap_bytes
from tests.helpers.neighbour import neighbour
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.linux import thp

pytestmark = pytest.mark.guest

MIB = 1 << 20
# Two areas of 32 MiB, each of whole blocks: one in huge pages, which is not used again; one in small pages, of which
# 16 MiB are swept without pause.
PROGRAM = """
import ctypes, mmap
def blocks(advice):
    area = mmap.mmap(-1, 34 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(area)) % (2 << 20)
    if advice is not None:
        area.madvise(advice, first, 32 << 20)
    for at in range(first, first + (32 << 20), 4096):
        area[at] = 1
    return area, first
cold, _ = blocks(mmap.MADV_HUGEPAGE)
hot, first = blocks(None)
print("ready", flush=True)
while True:
    for at in range(first, first + (16 << 20), 4096):
        hot[at] = 1
"""
KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
COARSE = ("--sample", "20ms", "--aggr", "400ms")


def flags(pid: int) -> list[set[str]]:
    """The flags of each of its mappings."""
    found = re.findall(r"^VmFlags: (.*)$", Path(f"/proc/{pid}/smaps").read_text(), re.MULTILINE)
    return [set(line.split()) for line in found]


@contextmanager
def under(pid: int, module: str, *options: str) -> Iterator[None]:
    """The module runs on the process, which shares its CPU with a neighbour."""
    with neighbour(pid):
        started = command.pydamon("start", "--name", "thp", *COARSE, *options, "--module", module, str(pid))
        assert started.returncode == 0, started.stderr
        try:
            yield
        finally:
            stopped = command.pydamon("stop", "thp")
        assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def pid() -> Iterator[int]:
    with program(PROGRAM) as made:
        assert thp.of_process(made) == 32 * MIB
        yield made


def test_cold_huge_pages_go_to_swap(pid: int) -> None:
    with under(pid, "thp max_bloat=off hot_freq=100% cold_min_age=3s quota=500ms/1s watermarks=off"):
        wait_until(lambda: swap_bytes(pid) >= 28 * MIB, seconds=150, every_s=0.5)
    assert (thp.of_process(pid) or 0) <= 20 * MIB  # what is left of the cold, and what may be huge of the hot


def test_hot_memory_becomes_huge_and_nothing_is_added(pid: int) -> None:
    resident = Path(f"/proc/{pid}/statm").read_text().split()[1]
    with under(pid, "thp cold_min_age=off interval=1s quota=500ms/1s"):
        wait_until(lambda: (thp.of_process(pid) or 0) >= 44 * MIB, seconds=150, every_s=0.5)
    after = Path(f"/proc/{pid}/statm").read_text().split()[1]
    assert int(after) <= int(resident) * 1.05


def test_the_kernels_damon_makes_hot_memory_huge(pid: int) -> None:
    """By collapse from 7.2 on; before that by advice, after which khugepaged does it."""
    with under(pid, "thp cold_min_age=off interval=1s quota=500ms/1s", "--engine", "kernel"):
        if KERNEL < (7, 2):
            wait_until(lambda: sum("hg" in of for of in flags(pid)) >= 2, seconds=150, every_s=0.5)
        wait_until(lambda: (thp.of_process(pid) or 0) >= 40 * MIB, seconds=150, every_s=0.5)


def test_the_kernels_damon_gives_cold_huge_pages_back(pid: int) -> None:
    """By pageout where it collapses; before that none are made anew."""
    with under(pid, "thp hot_freq=100% cold_min_age=3s quota=500ms/1s watermarks=off", "--engine", "kernel"):
        if KERNEL < (7, 2):
            wait_until(lambda: any("nh" in of for of in flags(pid)), seconds=150, every_s=0.5)
        else:
            wait_until(lambda: swap_bytes(pid) >= 24 * MIB, seconds=150, every_s=0.5)
