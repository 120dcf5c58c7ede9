"""The arithmetic of actions over arrays: what of regions is mapped, runs, filters, destinations, ways home."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux import pagemap_scan
from pydamon.linux.process import Mapping
from pydamon.ops.actions.acting import destinations
from pydamon.ops.actions.collapsing import whole_blocks
from pydamon.ops.actions.filters import PageFilters
from pydamon.ops.actions.homes import Homes
from pydamon.ops.actions.pages import MappingArrays, Pages, expand, runs, segments
from pydamon.ops.actions.physical import effective_filters
from pydamon.ops.actions.plan import MAX_RANGES, Plan
from pydamon.spec import Scheme
from pydamon.spec.schemes import Dest, Filter

PAGE = 4096
ANON, FILE, SWAP = pagemap_scan.PRESENT, pagemap_scan.PRESENT | pagemap_scan.FILE, pagemap_scan.SWAPPED


def mapping(start: int, end: int, offset: int = 0, inode: int = 0) -> Mapping:
    return Mapping(start * PAGE, end * PAGE, "rw-p", offset * PAGE, inode, "")


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def some_pages(numbers: list[int], kinds: list[int] | None = None) -> Pages:
    n = len(numbers)
    nothing = np.zeros(n, np.intp)
    kind = np.array(kinds if kinds is not None else [ANON] * n, np.uint8)
    return Pages(u64(*numbers) * np.uint64(PAGE), nothing, nothing.copy(), kind, np.zeros(n, np.uint64))


class Ages:
    """Knows which pages are young, and notes which were made old."""

    def __init__(self, young: list[int]) -> None:
        self.pages = u64(*young) * np.uint64(PAGE)
        self.made_old: list[int] = []

    def young(self, addresses: np.ndarray, heads: np.ndarray) -> np.ndarray:
        return np.isin(addresses, self.pages)

    def make_old(self, addresses: np.ndarray, heads: np.ndarray) -> None:
        self.made_old += (addresses // np.uint64(PAGE)).tolist()


def test_segments_are_regions_less_holes_and_cut_at_mappings() -> None:
    layout = MappingArrays([mapping(10, 20), mapping(20, 30), mapping(40, 50)])
    found = segments(u64(5, 25, 48) * np.uint64(PAGE), u64(25, 45, 60) * np.uint64(PAGE), layout)
    assert (found.ranges // np.uint64(PAGE)).tolist() == [[10, 20], [20, 25], [25, 30], [40, 45], [48, 50]]
    assert found.region.tolist() == [0, 0, 1, 1, 2]
    assert found.mapping.tolist() == [0, 1, 1, 2, 2]


def test_runs_end_at_gaps_and_at_mappings() -> None:
    pages = some_pages([1, 2, 3, 7, 8])
    pages.mapping[2:] = 1
    ranges, of, owner = runs(pages)
    assert (ranges // np.uint64(PAGE)).tolist() == [[1, 3], [3, 4], [7, 9]]
    assert of.tolist() == [0, 1, 1]
    assert owner.tolist() == [0, 0, 1, 2, 2]
    assert (expand(ranges) // np.uint64(PAGE)).tolist() == [1, 2, 3, 7, 8]


@pytest.mark.parametrize(
    ("filters", "passed"),
    [
        # The pages: anon, file, anon in swap, file. Rules: docs/algorithms.md 2.14.
        ([Filter(filter_type="anon")], [False, True, False, True]),
        ([Filter(filter_type="anon", matching=False)], [True, False, True, False]),
        ([Filter(filter_type="anon", allow=True)], [True, False, True, False]),
        ([Filter(filter_type="anon", allow=True), Filter(filter_type="anon", matching=False, allow=True)], [True] * 4),
        ([Filter(filter_type="anon"), Filter(filter_type="anon", allow=True)], [False] * 4),
        ([Filter(filter_type="anon", allow=True), Filter(filter_type="anon")], [True] * 4),
        ([Filter(filter_type="young"), Filter(filter_type="anon", allow=True)], [False, False, True, False]),
    ],
)
def test_the_first_filter_that_matches_decides(filters: list[Filter], passed: list[bool]) -> None:
    pages = some_pages([1, 2, 3, 4], [ANON, FILE, SWAP, FILE])
    assert PageFilters().decide(pages, filters, Ages([1]), table=None).tolist() == passed


def test_a_young_filter_makes_old_what_it_is_asked_about() -> None:
    pages = some_pages([1, 2, 3, 4], [ANON, ANON, FILE, FILE])
    filters = [Filter(filter_type="anon", matching=False), Filter(filter_type="young", allow=True)]
    ages = Ages([1, 3])
    assert PageFilters().decide(pages, filters, ages, table=None).tolist() == [True, False, False, False]
    assert ages.made_old == [1]  # 3 was decided by the filter before
    PageFilters(dry_run=True).decide(pages, filters, ages, table=None)
    assert ages.made_old == [1]


def test_pages_without_frame_are_of_no_type_but_anon() -> None:
    pages = some_pages([1, 2], [SWAP, SWAP])
    for kind in ("active", "young", "unmapped"):
        assert PageFilters().decide(pages, [Filter(filter_type=kind)], Ages([1]), table=None).all()


def test_pageout_of_frames_leaves_young_ones_alone() -> None:
    young = Filter(filter_type="young", allow=True)
    filters, default = effective_filters(Scheme(action="pageout"))
    assert ([item.filter_type for item in filters], default) == (["young"], True)
    assert not filters[0].allow
    # The last of the user's own filters decides about what none matches.
    filters, default = effective_filters(Scheme(action="pageout", filters=(Filter(filter_type="anon", allow=True),)))
    assert ([item.filter_type for item in filters], default) == (["anon", "young"], False)
    assert effective_filters(Scheme(action="pageout", filters=(young,))) == ((young,), False)
    assert effective_filters(Scheme(action="lru_deprio")) == ((), True)


def test_destinations_interleave_by_offset_and_weight() -> None:
    # A file mapped from page 5 on, at page 100: page 100 has the offset 5. Weights 2 and 1: 0 0 1 by offset modulo 3.
    layout = MappingArrays([mapping(100, 110, offset=5, inode=1)])
    dests = (Dest(id=0, weight=2), Dest(id=1, weight=1))
    assert destinations(layout, some_pages([100, 101, 102, 103]), dests).tolist() == [1, 0, 0, 1]
    # Anonymous memory counts by address: 100 % 3 == 1.
    assert destinations(MappingArrays([mapping(100, 110)]), some_pages([100, 101, 102]), dests).tolist() == [0, 1, 0]
    # A destination without weight gets nothing.
    dests = (Dest(id=0, weight=0), Dest(id=3, weight=1))
    assert destinations(layout, some_pages([100, 101]), dests).tolist() == [3, 3]


def test_huge_pages_interleave_as_a_whole() -> None:
    huge = [ANON | pagemap_scan.HUGE] * 4
    layout = MappingArrays([mapping(1024, 4096)])
    dests = (Dest(id=0), Dest(id=1))
    pages = some_pages([1024, 1025, 1536, 2047], huge)
    # In units of 512 pages: 1024 is number 2, 1536 number 3.
    assert destinations(layout, pages, dests).tolist() == [0, 0, 1, 1]


def test_blocks_to_collapse_are_whole() -> None:
    layout = MappingArrays([mapping(0, 1700)])
    pages = some_pages([10, 520, 600, 1030, 1600])
    start, end = u64(256 * PAGE), u64(4096 * PAGE)  # the region begins inside the first block
    none = np.empty(0, np.uint64)
    assert whole_blocks(pages, none, start, end, layout).tolist() == [False, True, True, True, False]
    rejected = u64(900 * PAGE)
    assert whole_blocks(pages, rejected, start, end, layout).tolist() == [False, False, False, True, False]


def test_ways_home_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    homes = Homes(remember=True, max_ranges=2)
    moved = u64(1, 2, 4, 6, 7) * np.uint64(PAGE)
    homes.remember(Scheme(action="migrate_cold", target_nid=1), None, moved, np.zeros(5, np.int32))  # type: ignore[arg-type]
    assert homes.forgotten == 2 * PAGE


def test_a_plan_is_bounded() -> None:
    plan = Plan(Scheme(action="pageout"), 0, [])
    plan.add_pages(some_pages(list(range(0, 4000, 2))), ["somebody"])
    assert len(plan.ranges) == MAX_RANGES
    assert (plan.omitted, plan.bytes) == (1000, 2000 * PAGE)
    assert plan.ranges[1].start == 2 * PAGE
    assert plan.ranges[1].owner == "somebody"


def test_a_filter_that_cannot_be_told_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise MachineError("shows no frame numbers; run as root (CAP_SYS_ADMIN)", where="/proc/PID/pagemap")

    monkeypatch.setattr("pydamon.linux.pagemap.probe", hidden)
    wanted = Scheme(action="stat", filters=(Filter(filter_type="anon"), Filter(filter_type="active")))
    with pytest.raises(MachineError, match=r"^\[1\]: active cannot be told here: .*root"):
        PageFilters().check(wanted.filters, [], virtual=True)
    wanted = Scheme(action="stat", filters=(Filter(filter_type="young"),))
    with pytest.raises(MachineError, match="needs the primitive bpf"):
        PageFilters().check(wanted.filters, [object()], virtual=True)
    PageFilters().check((Filter(filter_type="anon"),), [object()], virtual=True)
