"""What the actions of schemes do to the simulated machine, page by page as the rules say, computed for ranges. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import located
from pydamon.ops.base import Addresses, Applied, Hits
from pydamon.ops.sim.extents import (
    ACTIVE,
    ADVISED,
    ANON,
    HUGE,
    HUGE_SIZE,
    KEPT,
    MAPPED,
    PAGE_SIZE,
    REFUSED,
    YOUNG,
    Extents,
    Index,
    Mask,
    node_of,
    on_node,
)
from pydamon.ops.sim.machine import Machine
from pydamon.ops.sim.target import SimTarget
from pydamon.spans import bytes_below
from pydamon.spec import Probe, Scheme
from pydamon.spec.schemes import FILTERS_OF_PROBES_ONLY, MAX_NODE, Filter
from pydamon.workload import intervals
from pydamon.workload.intervals import Spans

_MOST = np.uint64(1 << 62)


def check_scheme(machine: Machine, scheme: Scheme) -> None:
    """Raise MachineError if ``scheme`` names a NUMA node or a cgroup that the machine does not have."""
    if scheme.does.migrates:
        for index, dest in enumerate(scheme.destinations):
            with located(f"dests[{index}].id" if scheme.dests else "target_nid"):
                machine.check_node(dest.id)
    check_filters(machine, scheme.filters)


def check_filters(machine: Machine, filters: Sequence[Filter]) -> None:
    """Raise MachineError if one of ``filters`` names a cgroup or a NUMA node that the machine lacks."""
    for index, item in enumerate(filters):
        if item.nid is not None:
            with located(f"filters[{index}].nid"):
                machine.check_node(item.nid)
        if item.memcg_path is not None:
            with located(f"filters[{index}].memcg_path"):
                machine.check_memcg(item.memcg_path)


def apply_scheme(
    machine: Machine, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
) -> Applied:
    """Apply the scheme's action to the regions [start, end) of a target, now; the contract is that of `ops.base`.

    ``passed`` are the bytes that the target has there, in memory or not, and that the filters let pass.
    """
    return _Application(machine, machine.targets[target], scheme, _spans(start, end), allowed).run()


def node_bytes(machine: Machine, target: int, start: Addresses, end: Addresses, nid: int) -> int:
    """Resident bytes of the ranges that are on the NUMA node ``nid``."""
    extents = machine.targets[target].extents
    there = extents.spans(node_of(extents.state) == nid + 1)
    found = intervals.intersection(_spans(start, end), there)
    return int((found[:, 1] - found[:, 0]).sum())


def resident_bytes(machine: Machine, target: int, start: Addresses, end: Addresses) -> NDArray[np.uint64]:
    """Resident bytes of each range [start, end), of whole pages; of a process that has ended, what they were then."""
    process = machine.targets[target]
    extents = process.extents
    spans = extents.spans(extents.resident) if process.left is None else process.left
    there = spans.astype(np.uint64).reshape(-1, 2)
    return bytes_below(there, end) - bytes_below(there, start)


def matches(extents: Extents, target: SimTarget, item: Filter) -> Mask:
    """Which extents of a target are what a filter is about."""
    if item.filter_type == "anon":
        return extents.has(ANON)
    if item.filter_type == "active":
        return extents.has(ACTIVE)
    if item.filter_type == "young":
        return extents.has(YOUNG)
    if item.filter_type == "memcg":
        mine = target.memcg == (item.memcg_path or "").rstrip("/")
        return np.full(len(extents), mine)
    if item.filter_type == "unmapped":
        return extents.resident & ~extents.has(MAPPED)
    if item.nid is not None:
        there: Mask = node_of(extents.state) == item.nid + 1
        return there
    wanted = item.hugepage_size
    if wanted is None:
        return np.zeros(len(extents), np.bool_)
    size = np.where(extents.has(HUGE), HUGE_SIZE, PAGE_SIZE)
    mask: Mask = extents.resident & (size >= min(wanted.min, HUGE_SIZE + 1)) & (size <= min(wanted.max, HUGE_SIZE))
    return mask


def opposite_of_last(filters: Sequence[Filter]) -> bool:
    """Whether what no filter matches is rejected: if the last one allows."""
    return bool(filters) and filters[-1].allow


def decide(extents: Extents, target: SimTarget, filters: Sequence[Filter], asked: Mask) -> tuple[Mask, Mask]:
    """Which of the ``asked`` extents the filters let pass, and which of them were found young on the way.

    The first filter that matches decides; what none matches does the opposite of the last one.
    """
    passed = asked & (not opposite_of_last(filters))
    undecided, looked_young = asked.copy(), np.zeros(len(asked), np.bool_)
    for item in filters:
        is_so = matches(extents, target, item)
        if item.filter_type == "young":
            looked_young |= undecided & is_so
        decided = undecided & (is_so == item.matching)
        passed[decided] = item.allow
        undecided &= ~decided
    return passed, looked_young


def attributes(machine: Machine, target: int, addresses: Addresses, probes: Sequence[Probe], accessed: Mask) -> Hits:
    """Which pages have which attribute; what is not in memory has none.

    ``accessed``: which pages were since they were marked as idle.
    """
    extents = machine.targets[target].extents
    asked = addresses.astype(np.int64)
    place = np.minimum(np.searchsorted(extents.end, asked, "right"), max(len(extents) - 1, 0))
    hits = np.zeros((len(probes), len(addresses)), np.bool_)
    if not len(extents):
        return hits
    there = (extents.start[place] <= asked) & (asked < extents.end[place]) & extents.resident[place]
    for number, probe in enumerate(probes):
        hits[number] = there & ~opposite_of_last(probe.filters)
        undecided = there.copy()
        for item in probe.filters:
            if item.filter_type in FILTERS_OF_PROBES_ONLY:
                is_so = accessed == (item.filter_type == "pgidle_unset")
            else:
                is_so = matches(extents, machine.targets[target], item)[place]
            decided = undecided & (is_so == item.matching)
            hits[number, decided] = item.allow
            undecided &= ~decided
    return hits


def _spans(start: Addresses, end: Addresses) -> Spans:
    """Whole pages within each region; one that has none is empty."""
    low = (-(-np.minimum(start, _MOST).astype(np.int64) // PAGE_SIZE)) * PAGE_SIZE
    high = np.minimum(end, _MOST).astype(np.int64) // PAGE_SIZE * PAGE_SIZE
    return np.stack([low, np.maximum(low, high)], axis=1)


class _Application:
    """One application: ``owner`` is the region of each extent or -1, ``passed`` what the filters let pass."""

    def __init__(self, machine: Machine, target: SimTarget, scheme: Scheme, spans: Spans, allowed: Mask) -> None:
        self.machine = machine
        self.target = target
        self.extents: Extents = target.extents
        self.scheme = scheme
        self.spans = spans
        self.allowed = allowed
        self.extents.cut(spans.ravel())
        self.owner = self.extents.within(spans)
        self.passed: Mask = self.owner >= 0
        self.more_ns = 0

    def run(self) -> Applied:
        """Filter, act, and say what that was."""
        costs = self.machine.spec.costs
        looked = self.extents.bytes_of((self.owner >= 0) & self.extents.resident) // PAGE_SIZE
        self._filter()
        passed = self._per_region(self.passed)
        applied, cost = self._nothing(), 0
        if self.scheme.does.acts:
            act, name = DOINGS[self.scheme.action]
            applied, cost = act(self), getattr(costs, name)  # what goes to swap costs more: `_pageout`
        self.extents.settle()
        spent_ns = len(self.spans) * costs.region_ns + looked * costs.look_ns + self.more_ns
        spent_ns += int(applied.sum()) // PAGE_SIZE * cost
        self.machine.times.scheme_ns += spent_ns
        return Applied(applied.astype(np.uint64), passed.astype(np.uint64), spent_ns)

    def _per_region(self, mask: Mask) -> NDArray[np.int64]:
        """Bytes of the extents of ``mask`` in each region."""
        result = np.zeros(len(self.spans), np.int64)
        mask = mask & (self.owner >= 0)
        np.add.at(result, self.owner[mask], self.extents.size[mask])
        return result

    def _recut(self, origin: Index) -> None:
        """The extents were cut."""
        self.owner, self.passed = self.owner[origin], self.passed[origin]

    # -- filters ------------------------------------------------------------------------------------------------

    def _filter(self) -> None:
        """Take what the filters stop out of what passes; regions that are allowed already are not asked about."""
        filters = self.scheme.ops_filters
        if not filters:
            return
        asked = self.passed & ~np.append(self.allowed, False)[self.owner]
        passed, looked_young = decide(self.extents, self.target, filters, asked)
        self.passed[asked] = passed[asked]
        if looked_young.any():
            # As in the kernel, looking at a young page makes it old, whatever the filter then decides.
            self._recut(self._clear_young(looked_young))

    def _clear_young(self, mask: Mask) -> Index:
        spans = self.extents.widen(self.extents.spans(mask))
        origin = self.extents.cut(spans.ravel())
        self.extents.state[self.extents.within(spans) >= 0] &= ~np.uint32(YOUNG)
        return origin

    # -- actions: each returns the bytes per region that it brought about ------------------------------------------

    def _nothing(self) -> NDArray[np.int64]:
        return np.zeros(len(self.spans), np.int64)

    def _first_bytes(self, mask: Mask, limit: int) -> Mask:
        origin, mask = self.extents.first_bytes(mask, limit)
        self._recut(origin)
        return mask

    def _pageout(self) -> NDArray[np.int64]:
        """To swap as far as it has room; memory of files is dropped."""
        there = self.passed & self.extents.resident
        swapped = self._first_bytes(there & self.extents.has(ANON), self.machine.swap_free())
        away = swapped | (self.passed & self.extents.resident & ~self.extents.has(ANON))
        applied = self._per_region(away)
        pages, costs = self.extents.bytes_of(swapped) // PAGE_SIZE, self.machine.spec.costs
        self.more_ns += pages * (costs.out_ns(self.machine.spec.backing) - costs.file_out_ns)
        self.machine.counters.pswpout += pages
        self.extents.state[away] &= KEPT
        return applied

    def _willneed(self) -> NDArray[np.int64]:
        """Back into memory as far as there is room; mapped by the next access."""
        away = self.passed & ~self.extents.resident
        away = self._first_bytes(away, max(self.machine.free_bytes(), 0))
        applied = self._per_region(away)
        self.machine.counters.pswpin += self.extents.bytes_of(away & self.extents.has(ANON)) // PAGE_SIZE
        self.machine.place(self.target, away)
        self.owner = self.extents.within(self.spans)
        return applied

    def _deactivate(self) -> NDArray[np.int64]:
        there = self.passed & self.extents.resident
        gone = ACTIVE | YOUNG if self.scheme.action == "cold" else ACTIVE
        self.extents.state[there] &= np.uint32(~gone & 0xFFFFFFFF)
        return self._per_region(there)

    def _activate(self) -> NDArray[np.int64]:
        there = self.passed & self.extents.resident
        self.extents.state[there] |= np.uint32(ACTIVE)
        return self._per_region(there)

    def _collapse(self) -> NDArray[np.int64]:
        return self._bytes_in(self._make_huge())

    def _make_huge(self) -> Spans:
        """Aligned 2 MiB of small pages in one region, all in memory on one node, become a huge page; which."""
        extents = self.extents
        fit = self.passed & extents.resident & extents.has(ANON) & ~extents.has(HUGE) & ~extents.has(REFUSED)
        node = node_of(extents.state)
        spans = extents.blocks(fit, self.owner.astype(np.int64) * (MAX_NODE + 2) + node)
        extents.make_huge(spans)
        self.machine.counters.thp_collapse_alloc += int((spans[:, 1] - spans[:, 0]).sum()) // HUGE_SIZE
        return spans

    def _bytes_in(self, spans: Spans) -> NDArray[np.int64]:
        """Bytes of ``spans`` per region; the extents may have been cut meanwhile."""
        result = self._nothing()
        found = intervals.intersection(self.spans, spans)
        np.add.at(result, np.searchsorted(self.spans[:, 0], found[:, 0], "right") - 1, found[:, 1] - found[:, 0])
        return result

    def _advise(self, wanted: int, against: int) -> Spans:
        """Set the advice for the aligned parts; returns what did not have it before."""
        extents = self.extents
        spans = extents.blocks(self.passed & extents.has(ANON), self.owner.astype(np.int64))
        self._recut(extents.cut(spans.ravel()))
        inside = extents.within(spans) >= 0
        changed = extents.spans(inside & ~extents.has(wanted))
        extents.state[inside] = extents.state[inside] & np.uint32(~against & 0xFFFFFFFF) | np.uint32(wanted)
        return changed

    def _hugepage(self) -> NDArray[np.int64]:
        """Advise, and collapse at once what is in memory: the simulated khugepaged has all the time it wants."""
        changed = self._advise(ADVISED, REFUSED)
        return self._bytes_in(intervals.union(np.concatenate([changed, self._make_huge()])))

    def _nohugepage(self) -> NDArray[np.int64]:
        """Advise; huge pages that there are stay, as in the kernel."""
        return self._bytes_in(self._advise(REFUSED, ADVISED))

    def _migrate(self) -> NDArray[np.int64]:
        """To the destinations, interleaved by weight, each as far as it has room; in the order of destinations."""
        dests = self.scheme.destinations
        choice = np.zeros(len(self.extents), np.int64)
        if len(dests) > 1:
            self._recut(self._interleave())
            choice = self._choice(np.cumsum([dest.weight for dest in dests]))
        applied = self._nothing()
        for number, dest in enumerate(dests):
            extents = self.extents
            moving = self.passed & extents.resident & (node_of(extents.state) != dest.id + 1) & (choice == number)
            room = int(self.machine.node_bytes[dest.id] - self.machine.node_used()[dest.id])
            origin, moving = extents.first_bytes(moving, room)
            self._recut(origin)
            choice = choice[origin]
            applied += self._per_region(moving)
            self._note_moved(moving, dest.id)
            self.machine.counters.pgmigrate_success += extents.bytes_of(moving) // PAGE_SIZE
            extents.state[moving] = on_node(extents.state[moving], dest.id)
        return applied

    def _note_moved(self, moving: Mask, dest: int) -> None:
        """What goes to the node ``dest`` from others now."""
        node = node_of(self.extents.state) - 1
        for source in np.unique(node[moving]).tolist():
            spans = self.extents.spans(moving & (node == source)).astype(np.uint64)
            self.machine.round_trips.note(self.machine.now_ns, id(self.target), spans, source, dest)

    def _units(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Per mapping: its start, where its interleaved units are counted from, and their size.

        A unit is a page, or as many as it takes that a mapping has no more than ``max_pieces`` of them.
        """
        places = self.target.layout.mappings
        start = np.array([place.start for place in places], np.int64)
        size = [
            intervals.power_of_two(-(-(place.end - place.start) // PAGE_SIZE // self.machine.spec.max_pieces))
            * PAGE_SIZE
            for place in places
        ]
        unit = np.array(size, np.int64)
        return start, np.where(unit >= HUGE_SIZE, start // HUGE_SIZE * HUGE_SIZE, start), unit

    def _unit_of(self, address: NDArray[np.int64], huge: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each address: from where its unit is counted, and the unit's size; huge pages stay whole."""
        start, origin, unit = self._units()
        mapping = np.searchsorted(start, address, "right") - 1
        base = np.where(huge, start[mapping] // HUGE_SIZE * HUGE_SIZE, origin[mapping])
        return base, np.where(huge, np.maximum(unit[mapping], HUGE_SIZE), unit[mapping])

    def _choice(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """The destination of each extent: its unit's number modulo all (cumulated) weights, as in the kernel."""
        base, unit = self._unit_of(self.extents.start, self.extents.has(HUGE))
        number = (self.extents.start - base) // unit
        return np.searchsorted(weights, number % int(weights[-1]), "right").astype(np.int64)

    def _interleave(self) -> Index:
        """Cut what may move between its units."""
        extents = self.extents
        moving = np.flatnonzero(self.passed & extents.resident)
        start, end = extents.start[moving], extents.end[moving]
        base, unit = self._unit_of(start, extents.has(HUGE)[moving])
        first = (start - base) // unit
        owner, number = intervals.pieces((end - 1 - base) // unit - first)
        return extents.cut(base[owner] + (first[owner] + 1 + number) * unit[owner])


# How each action is done, by its name in `pydamon.spec.actions`, and which of `Costs` a page of it has.
DOINGS: dict[str, tuple[Callable[[_Application], NDArray[np.int64]], str]] = {
    "pageout": (_Application._pageout, "file_out_ns"),
    "willneed": (_Application._willneed, "willneed_ns"),
    "cold": (_Application._deactivate, "mark_ns"),
    "lru_deprio": (_Application._deactivate, "mark_ns"),
    "lru_prio": (_Application._activate, "mark_ns"),
    "collapse": (_Application._collapse, "collapse_ns"),
    "hugepage": (_Application._hugepage, "mark_ns"),
    "nohugepage": (_Application._nohugepage, "mark_ns"),
    "migrate_hot": (_Application._migrate, "migrate_ns"),
    "migrate_cold": (_Application._migrate, "migrate_ns"),
}
