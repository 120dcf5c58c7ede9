"""`tier` on NUMA nodes of the guest: found by itself, and never anywhere but where it was to go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers import command

from pydamon.linux import move_pages, tiers
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.process import Process

pytestmark = pytest.mark.guest
MIB, PAGE = 1 << 20, 4096
LOCKED = 0x2000  # MAP_LOCKED
HOLDER = """
import mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | int(sys.argv[2]))
if len(sys.argv) < 4:
    area.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, len(area), 4096):
    area[page] = 1
import ctypes
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
while len(sys.argv) > 3:  # what is unmapped each time empties the emulated TLB
    for page in range(0, len(area), 4096):
        area[page]
    with mmap.mmap(-1, 1 << 20) as other:
        for at in range(0, 1 << 20, 4096):
            other[at] = 1
sys.stdin.read()
"""


class Holder:
    """A process with memory of its own, which it sweeps without pause if it is to; as a context manager, too."""

    def __init__(self, size: int, flags: int = 0, *, sweeps: bool = False) -> None:
        command = [sys.executable, "-c", HOLDER, str(size), str(flags), *(["sweep"] if sweeps else [])]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        first = np.uint64(int(self.child.stdout.readline()))
        self.pages: NDArray[np.uint64] = first + np.arange(size // PAGE, dtype=np.uint64) * np.uint64(PAGE)
        self.process = Process(self.child.pid)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def put(self, node: int) -> None:
        move_pages.move(self.process, self.pages, np.full(len(self.pages), node, np.int32))

    def on(self, node: int) -> int:
        return int(np.count_nonzero(move_pages.nodes_of(self.process, self.pages) == node))

    def close(self) -> None:
        self.process.close()
        self.child.kill()
        self.child.communicate()


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder(16 * MIB)
    yield made
    made.close()


def test_nodes_without_processors_are_the_slower_tiers() -> None:
    nodes = tiers.read()
    (chain,) = tiers.chains(nodes)
    assert [nid for nid, _ in chain[0]] == [0]
    assert sorted(nid for level in chain for nid, _ in level) == move_pages.memory_nodes()
    said = command.pydamon("modules", "explain", "tier").stdout
    assert "tier tiers=0>1" in said
    assert "(migrate_hot)" in said


def test_what_finds_no_room_stays_where_it_is(holder: Holder) -> None:
    """Nothing goes to a third node when the one that was asked for is full."""
    if len(move_pages.memory_nodes()) < 3:
        pytest.skip("needs a guest of three nodes (lab/run --nodes 3)")
    free = MachineMetrics().node_mem_bp(1, used=False) * MachineMetrics().node_bytes(1) // 10_000
    filler = Holder(free + 32 * MIB, LOCKED)  # else the kernel would swap some of it out to make room
    try:
        filler.put(1)
        before = [holder.on(node) for node in (0, 1, 2)]
        assert before[0] > len(holder.pages) * 0.9
        holder.put(1)
        after = [holder.on(node) for node in (0, 1, 2)]
        assert after[1] < len(holder.pages) / 2  # it was as good as full
        assert after[2] == before[2]
        assert sum(after) == sum(before)
    finally:
        filler.close()


def test_cold_memory_goes_down_and_it_is_told(holder: Holder) -> None:
    module = "tier way=down free=100% cold_age=1s cpu=off young=ignored quota=off"
    done = command.pydamon(
        "record", str(holder.child.pid), "--sample", "100ms", "--aggr", "500ms", "--duration", "30s",
        "--module", module, "-o", f"/tmp/tier-{holder.child.pid}.damon",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert holder.on(0) < len(holder.pages) * 0.1
    told = command.pydamon("report", "modules", f"/tmp/tier-{holder.child.pid}.damon").stdout
    assert "ping-pong 0 B" in told
