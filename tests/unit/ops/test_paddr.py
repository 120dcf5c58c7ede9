"""Physical memory: which ranges there are, that they follow hot-plug, and what is asked."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.ops.paddr import PaddrOps, describe, intersection, node_spans, system_ram
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, PrimitiveCost

MIB, GIB = 1 << 20, 1 << 30

# /proc/iomem of a virtual machine, shortened; with memory that a CXL driver gave to the system
IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000f0000-000fffff : System ROM
00100000-bffdffff : System RAM
  01000000-01ffffff : Kernel code
  02000000-027fffff : Kernel rodata
bffe0000-bfffffff : Reserved
c0000000-febfffff : PCI Bus 0000:00
100000000-13fffffff : System RAM
140000000-17fffffff : System RAM
240000000-33fffffff : CXL Window 0
  240000000-2bfffffff : dax0.0
    240000000-2bfffffff : System RAM (kmem)
"""
RAM = [[0x1000, 0x9F000], [0x100000, 0xBFFE0000], [0x100000000, 0x180000000], [0x240000000, 0x2C0000000]]

HIDDEN = "00000000-00000000 : System RAM\n00000000-00000000 : System RAM\n"

ZONEINFO = """\
Node 0, zone      DMA
  pages free     3840
        boost    0
        spanned  4095
        present  3998
        managed  3840
  start_pfn:           1
Node 0, zone    DMA32
        spanned  520192
  start_pfn:           4096
Node 1, zone   Normal
        spanned  262144
  start_pfn:           1048576
Node 1, zone  Movable
        spanned  0
  start_pfn:           0
"""


def test_all_system_ram_not_only_the_biggest() -> None:
    assert system_ram(IOMEM).tolist() == RAM


def test_without_root_addresses_are_hidden() -> None:
    with pytest.raises(MachineError, match="run as root"):
        system_ram(HIDDEN)
    with pytest.raises(MachineError, match="no System RAM"):
        system_ram("00000000-00000fff : Reserved\n")


def test_partial_pages_are_cut_off() -> None:
    assert system_ram("00000800-00003bff : System RAM\n").tolist() == [[0x1000, 0x3000]]
    assert system_ram("00000800-00000bff : System RAM\n00010000-0001ffff : System RAM\n").tolist() == [
        [0x10000, 0x20000]
    ]


def test_nodes() -> None:
    assert node_spans(ZONEINFO) == [
        (0x1000, 0x1000000, 0),
        (0x1000000, 0x80000000, 0),
        (4 * GIB, 5 * GIB, 1),
    ]
    assert node_spans("") == []


def test_mappings_name_the_node_if_there_are_several() -> None:
    ranges = np.array([(0x1000, 0x80000000), (4 * GIB, 6 * GIB)], np.uint64)
    nodes = [(0x1000, 16 * MIB, 0), (16 * MIB, 2 * GIB, 0), (4 * GIB, 5 * GIB, 0), (5 * GIB, 6 * GIB, 1)]
    assert [(m.start, m.end, m.name) for m in describe(ranges, nodes)] == [
        (0x1000, 0x80000000, "System RAM (node 0)"),
        (4 * GIB, 5 * GIB, "System RAM (node 0)"),
        (5 * GIB, 6 * GIB, "System RAM (node 1)"),
    ]
    assert [(m.start, m.end, m.name) for m in describe(ranges, nodes[:3])] == [
        (0x1000, 0x80000000, "System RAM"),
        (4 * GIB, 6 * GIB, "System RAM"),
    ]


class Memory:
    def __init__(self, iomem: str = IOMEM) -> None:
        self.iomem = iomem

    def __call__(self, path: str) -> str:
        if not self.iomem:
            raise MachineError("cannot be read", where=path)
        return self.iomem if path == "/proc/iomem" else ZONEINFO


class FakePrimitive:
    """Frames below 4 GiB cannot be watched; of the others those at odd page numbers were accessed."""

    name = "fake"

    def __init__(self) -> None:
        self.cost = PrimitiveCost(checks=3)
        self.asked = np.empty(0, np.uint64)
        self.replaced = self.updates = self.closed = 0

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self.asked = addresses.copy()
        return self.asked >= 4 * GIB

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        self.replaced += len(index)
        self.asked[index] = addresses
        return addresses >= 4 * GIB

    def check(self) -> np.ndarray:
        odd = self.asked // np.uint64(4096) % np.uint64(2) == 1
        return np.where(self.asked < 4 * GIB, UNKNOWN, np.where(odd, ACCESSED, NOT_ACCESSED)).astype(np.uint8)

    def update(self) -> None:
        self.updates += 1

    def close(self) -> None:
        self.closed += 1


def made(memory: Memory, **options: object) -> tuple[PaddrOps, FakePrimitive]:
    primitive = FakePrimitive()
    ops = PaddrOps(open_primitive=lambda: primitive, read=memory, **options)  # type: ignore[arg-type]
    return ops, primitive


def test_hot_plug_is_seen_at_the_update() -> None:
    memory = Memory()
    ops, _ = made(memory)
    assert ops.init()[0].tolist() == RAM
    before = ops.mappings(0)
    (same,) = ops.update()
    assert same is not None
    assert same.tolist() == RAM
    assert ops.mappings(0) is before
    memory.iomem = IOMEM.replace("140000000-17fffffff : System RAM\n", "")  # unplugged
    (less,) = ops.update()
    assert less is not None
    assert less.tolist()[2] == [0x100000000, 0x140000000]
    memory.iomem = IOMEM.replace("140000000-17fffffff", "140000000-1bfffffff")
    (more,) = ops.update()
    assert more is not None
    assert more.tolist()[2] == [0x100000000, 0x1C0000000]
    assert ops.mappings(0)[-2].end == 0x1C0000000
    memory.iomem = ""  # it cannot be told: what was known stays
    assert ops.update() == [None]
    assert ops.update() == [None]
    assert ops.mappings(0)[-2].end == 0x1C0000000
    assert ops.take_notices() == [
        "1.0 GiB of memory was removed",
        "2.0 GiB of memory was added",
        "memory can no longer be looked up: /proc/iomem: cannot be read",
    ]
    assert ops.take_notices() == []


def test_samples_lie_in_the_regions_and_others_are_tried() -> None:
    ops, primitive = made(Memory(), rng=np.random.default_rng(3))
    (ranges,) = ops.init()
    ops.sampler.prepare_access_checks(0, ranges[:, 0], ranges[:, 1])
    assert ((primitive.asked >= ranges[:, 0]) & (primitive.asked < ranges[:, 1])).all()
    assert primitive.replaced == 4  # two regions, twice
    answers = ops.sampler.check_accesses(0)
    assert answers.tolist()[:2] == [UNKNOWN, UNKNOWN]
    assert UNKNOWN not in answers.tolist()[2:]
    assert ops.target_valid(0)
    assert ops.cost().checks == 3
    ops.cleanup()
    assert primitive.closed == 1


def test_ranges_limit_it() -> None:
    ops, _ = made(Memory(), ranges=np.array([(0, 2 * MIB), (4 * GIB + 5, 4 * GIB + 3 * MIB)], np.uint64))
    assert ops.init()[0].tolist() == [
        [0x1000, 0x9F000],
        [MIB, 2 * MIB],
        [4 * GIB + 4096, 4 * GIB + 3 * MIB],
    ]
    with pytest.raises(MachineError, match="no System RAM in the given ranges"):
        made(Memory(), ranges=np.array([(0xC0000000, 0xD0000000)], np.uint64))


def test_overlapping_ranges_count_once() -> None:
    ranges = np.array([(0, 10 * 4096)], np.uint64)
    wanted = np.array([(4 * 4096, 8 * 4096), (0, 5 * 4096), (6 * 4096, 7 * 4096)], np.uint64)
    found = intersection(ranges, wanted)
    assert found[0, 0] == 0
    assert found[-1, 1] == 8 * 4096
    assert (found[1:, 0] >= found[:-1, 1]).all()
    assert int((found[:, 1] - found[:, 0]).sum()) == 8 * 4096


class FakeReverseMap:
    refreshed = due = closed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def refresh_if_due(self) -> bool:
        self.due += 1
        return False

    def close(self) -> None:
        self.closed += 1


def test_the_reverse_map_follows_updates() -> None:
    reverse = FakeReverseMap()
    ops, _ = made(Memory(), reverse_map=reverse)
    ops.init()
    ops.update()
    ops.update()
    ops.cleanup()
    assert (reverse.refreshed, reverse.due, reverse.closed) == (1, 2, 1)
