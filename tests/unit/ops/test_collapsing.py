"""Which blocks are collapsed under a bound on what that adds: of a process with full, nearly full and sparse ones."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.unit.ops.action_targets import acting_on, apply, scheme, told_where

from pydamon.linux import thp
from pydamon.linux.footprint import read_footprint
from pydamon.ops.actions.collapsing import Collapsed, reason
from pydamon.spec.schemes import Quotas

pytestmark = pytest.mark.usefixtures("processes")
MIB = 1 << 20
BLOCK = 2 * MIB
PAGES = (512, 500, 100, 0)  # in memory, of each of four blocks
_PROGRAM = """
import ctypes, mmap, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # small pages, also where huge ones are always on
area = mmap.mmap(-1, 12 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
first = -at % (2 << 20)
for block, pages in enumerate(map(int, sys.argv[1:])):
    for page in range(pages):
        area[first + (block << 21) + (page << 12)] = 1
ctypes.CDLL(None).prctl(41, 0, 0, 0, 0)
print(at + first, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def blocks() -> Iterator[tuple[int, int]]:
    """A process, and where its blocks begin."""
    with told_where(_PROGRAM, *PAGES) as found:
        yield found


def resident(pid: int) -> int:
    return (read_footprint(pid) or {})["resident_bytes"]


def test_those_that_miss_least_come_first_and_sparse_ones_never(blocks: tuple[int, int]) -> None:
    pid, at = blocks
    with acting_on(pid) as ops:
        before = resident(pid)
        bounded = scheme("collapse", quotas=Quotas(bloat_bp=100))
        done = apply(ops, bounded, (at, 4 * BLOCK))
        assert (int(done.applied[0]), done.added, done.refused) == (2 * BLOCK, 12 * 4096, 0)
        assert 12 * 4096 <= resident(pid) - before <= 28 * 4096  # it has memory of its own
        assert thp.of_process(pid) == 2 * BLOCK
        again = apply(ops, bounded, (at, 4 * BLOCK))
        assert (int(again.applied[0]), again.added) == (0, 0)
        lines = ops.actions.collapsed.remarks()
        assert lines[0] == "collapse: 4.0 MiB were made huge, which has added 48.0 KiB"
        assert "2.0 MiB were left, which would add too much (bloat 1%)" in lines[1]


def test_what_is_full_adds_nothing_and_is_always_taken(blocks: tuple[int, int]) -> None:
    pid, at = blocks
    with acting_on(pid) as ops:
        done = apply(ops, scheme("collapse", quotas=Quotas(bloat_bp=1)), (at, 4 * BLOCK))  # room for no page
        assert (int(done.applied[0]), done.added) == (BLOCK, 0)


def test_without_a_bound_all_that_has_memory_is_taken(blocks: tuple[int, int]) -> None:
    pid, at = blocks
    with acting_on(pid) as ops:
        done = apply(ops, scheme("collapse"), (at, 4 * BLOCK))
        assert done.added == (12 + 412) * 4096
        assert thp.of_process(pid) == 3 * BLOCK


def test_a_dry_run_keeps_to_the_bound_and_counts_nothing(blocks: tuple[int, int]) -> None:
    pid, at = blocks
    with acting_on(pid, dry_run=True) as ops:
        done = apply(ops, scheme("collapse", quotas=Quotas(bloat_bp=100)), (at, 4 * BLOCK))
        assert (int(done.applied[0]), done.added) == (2 * BLOCK, 12 * 4096)
        assert ops.actions.collapsed.made_bytes == 0
        assert thp.of_process(pid) == 0


def test_refusals_are_told_with_what_they_mean() -> None:
    so_far = Collapsed()
    assert so_far.remarks() == []
    so_far.refused[errno.ENOMEM] += 3
    assert so_far.remarks()[1] == (
        "collapse: 6.0 MiB were refused: ENOMEM (no 2 MiB of memory in one piece, or not mapped whole)"
    )
    assert reason(errno.EPERM) == "EPERM (Operation not permitted)"
