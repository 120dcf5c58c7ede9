"""Whole samples of all regions of all targets, by one run of a BPF program each: for page tables that `bpf` can walk.

Between two samples there are: one run of the program (`bpf_sampler_program`), at most one process_madvise per target
that has something to clear, and the caller's sleep. What is rarer (mappings that refuse, pages that only clear_refs
clears, folios of a kind that the program does not know) goes through each target's `Clearer`, page by page.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.word_files import Addresses
from pydamon.primitives import bpf_facts, kept_facts
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives import bpf_sampler_panel as panel
from pydamon.primitives.base import PrimitiveCost, Shared
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_sampler_loaded import Loaded, Watched
from pydamon.primitives.bpf_sampler_map import BAD, SamplerMap
from pydamon.primitives.bpf_sampler_stuck import StuckRegions
from pydamon.primitives.vmemmap import find_vmemmap

# Why `BpfSampler.sample` came back.
DONE = "done"
WOKEN = "woken"  # the sleep was cut short
OVER = "over"  # no further sample was to begin
ENDED = "ended"  # a target has ended
REFUSED = "refused"  # the kernel does not let pages be cleared this way: `BpfSampler.refusal` tells

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

_PAGE = 4096
_HUGE = 2 << 20
_SYS_PROCESS_MADVISE = 440
_MADV_COLD = 20
_IOV_MAX = 1024
_MAX_BYTES = 0x7FFF_F000  # MAX_RW_COUNT: the kernel silently cuts off what is beyond
_DISTURBS = 0.5  # see `clearing`
_NOBODY = 2**64 - 1  # an identity that no task has

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_uint)


@dataclass(slots=True, eq=False)
class BpfSampler:
    """Takes samples of what was loaded. Raises MachineError where it cannot work, with the reason.

    ``walk`` stays open. ``seed`` (64 bits, not 0) decides which pages are drawn. Set up in about 5 ms.
    """

    walk: PageTableWalk
    seed: int
    cost: PrimitiveCost = field(default_factory=PrimitiveCost)
    refusal: str | None = None
    vmemmap: int = 0  # 0: every page that is to be cleared goes the slow way
    _facts: bpf_facts.SamplerFacts = field(init=False)
    _map: SamplerMap = field(init=False)
    _loaded: list[Loaded] = field(default_factory=list, init=False)
    _runs: list[tuple[int, int]] = field(default_factory=list, init=False)  # target records of each run
    _nr_regions: int = field(default=0, init=False)
    _pieces: NDArray[np.int32] = field(init=False)  # of each record: pid, first region, regions, target's place
    _owners: list[int] = field(default_factory=list, init=False)  # the last of these, as Python's numbers
    _identities: dict[int, tuple[BpfPrimitive, int]] = field(default_factory=dict, init=False)
    _resident_loaded: list[Addresses] = field(default_factory=list, init=False)
    _saw_failures: bool = field(default=False, init=False)
    _stuck: StuckRegions = field(default_factory=StuckRegions, init=False)
    _lost: panel.LostHits = field(default_factory=panel.LostHits, init=False)

    def __post_init__(self) -> None:
        facts = kept_facts.of_this_kernel()[1]
        if isinstance(facts, MachineError):
            raise facts
        self._facts = facts
        self.vmemmap = find_vmemmap(facts)
        self._map = SamplerMap(facts, self.walk.tables, lay.SamplerLayout())
        self._map.header["random"] = self.seed
        self._set_memory_facts()

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(self, targets: Sequence[Watched]) -> None:
        """Sample these regions from now on. All windows are closed and all counts are 0."""
        self.note_panel()
        careful = self._careful_ranges()
        self._lay_out(targets)
        words = self._map.region_words[: self._nr_regions]
        if targets:
            start = np.concatenate([watched.start for watched in targets])
            end = np.concatenate([watched.end for watched in targets])
            words[:, 0], words[:, 1] = start, (end - start) // np.uint64(_PAGE)
            words[:, 2:] = 0
        for loaded in self._loaded if careful else ():
            if (known := careful.get(id(loaded.watched.primitive))) is not None:
                overlap = _overlap(loaded.watched.start, loaded.watched.end, *known)
                self._map.regions["flags"][loaded.first : loaded.end] = overlap
        self._load_resident()
        self._load_records()
        self._load_refused()

    def _careful_ranges(self) -> dict[int, tuple[Addresses, Addresses]]:
        """The regions of each target in which a page was met that cannot be cleared alone."""
        met = (self._map.regions["flags"][: self._nr_regions] & np.uint32(lay.MET)) != 0
        if not met.any():
            return {}
        found = {}
        for loaded in self._loaded:
            of_target = met[loaded.first : loaded.end]
            found[id(loaded.watched.primitive)] = loaded.watched.start[of_target], loaded.watched.end[of_target]
        return found

    def _lay_out(self, targets: Sequence[Watched]) -> None:
        """Give each target its regions and records in the map, and the records to runs."""
        self._loaded, self._runs = [], []
        pieces: list[tuple[int, int, int, int]] = []
        region = run_first = run_regions = 0
        for place, watched in enumerate(targets):
            loaded = Loaded(watched, region, region + len(watched.start), len(pieces))
            for first in range(loaded.first, max(loaded.end, loaded.first + 1), lay.RUN_REGIONS):
                count = min(loaded.end - first, lay.RUN_REGIONS)
                record = len(pieces)
                if record > run_first and (
                    run_regions + count > lay.RUN_REGIONS or record - run_first == lay.RUN_TARGETS
                ):
                    self._runs.append((run_first, record))
                    run_first, run_regions = record, 0
                run_regions += count
                pieces.append((watched.primitive.process.pid, first, count, place))
            region, loaded.end_record = loaded.end, len(pieces)
            self._loaded.append(loaded)
        self._runs.append((run_first, len(pieces)))
        self._nr_regions = region
        self._pieces = np.array(pieces, np.int32).reshape(-1, 4)
        self._owners = [place for *_, place in pieces]
        runs = sum(len(w.resident.starts) for w in targets if w.resident is not None)
        if not self._map.layout.has_room(len(pieces), region, runs):
            self._grow(lay.SamplerLayout.for_size(len(pieces), region, runs))

    def _grow(self, layout: lay.SamplerLayout) -> None:
        """A map with more room, and the program for it."""
        old = self._map
        self._map = SamplerMap(self._facts, self.walk.tables, layout)
        self._map.header["random"] = old.header["random"]
        self._map.header["panel"] = old.header["panel"]
        self._map.header["noted"] = old.header["noted"]
        self._map.filter[:] = old.filter
        self._map.noted[:] = old.noted
        self._resident_loaded = []
        old.close()
        self._set_memory_facts()

    def _load_records(self) -> None:
        records = self._map.targets[: len(self._pieces)]
        records["space"] = records["refusals"] = records["absent"] = 0
        for name, column in zip(("pid", "first", "count", "owner"), self._pieces.T, strict=True):
            records[name] = column
        primitives = [loaded.watched.primitive for loaded in self._loaded]
        if any(id(primitive) not in self._identities for primitive in primitives):
            self._learn_identities(primitives)
        identities = np.array([self._identities[id(primitive)][1] for primitive in primitives], np.uint64)
        records["identity"] = identities[self._pieces[:, 3]]

    def _learn_identities(self, primitives: Sequence[BpfPrimitive]) -> None:
        """Let the program read the start time of each task that is new; it is the target's if that lives after it."""
        records = self._map.targets[: len(self._pieces)]
        records["identity"] = 0
        for first, end in self._runs:
            self._map.run(lay.BEGIN, first, end)
        known, self._identities = self._identities, {}
        for primitive, loaded in zip(primitives, self._loaded, strict=True):
            if id(primitive) in known:
                self._identities[id(primitive)] = known[id(primitive)]
                continue
            record = records[loaded.first_record]
            is_it = record["status"] != lay.GONE and primitive.process.alive()
            self._identities[id(primitive)] = primitive, int(record["identity"]) if is_it else _NOBODY

    def _load_resident(self) -> None:
        """Give each region the rank of its first resident page among those of all targets."""
        regions = self._map.regions
        known = [loaded for loaded in self._loaded if loaded.watched.resident is not None]
        if not known:
            return
        lists = [loaded.watched.resident.starts for loaded in known if loaded.watched.resident is not None]
        same = len(lists) == len(self._resident_loaded) and all(
            one is other for one, other in zip(lists, self._resident_loaded, strict=True)
        )
        run = pages = 0
        for loaded in known:
            resident = loaded.watched.resident
            assert resident is not None
            runs = len(resident.starts)
            if not same:
                self._map.run_starts[run : run + runs] = resident.starts
                self._map.before[run : run + runs] = resident.before[:-1] + np.uint64(pages)
            regions["rank"][loaded.first : loaded.end] = resident.low + np.uint64(pages)
            regions["resident"][loaded.first : loaded.end] = resident.count
            run, pages = run + runs, pages + int(resident.before[-1])
        if not same:
            self._map.before[run:] = lay.BEHIND_ALL
            self._resident_loaded = lists

    def _load_refused(self) -> None:
        """Tell the program which mappings refuse advice: the last few of each target."""
        for loaded in self._loaded:
            refused = loaded.watched.primitive.clearer.refused
            loaded.refusals = len(refused)
            if len(refused):
                refused = refused[-lay.REFUSED_RANGES :]
                of_target = self._map.targets[loaded.first_record : loaded.end_record]
                of_target["refusals"], of_target["refused"] = len(refused), 0
                of_target["refused"][:, : len(refused), 0] = refused[:, 0]
                of_target["refused"][:, : len(refused), 1] = refused[:, 1] - refused[:, 0]

    def update(self) -> None:
        """Mappings or memory may have changed (called at the update interval)."""
        if self._saw_failures:
            self._saw_failures = False
            self.walk.refresh()
            self._set_memory_facts()

    def knows_exceptions(self) -> bool:
        """Whether there are mappings that refuse advice, or pages that cannot be cleared alone: `load` tells these."""
        if any(loaded.refusals for loaded in self._loaded):
            return True
        return bool((self._map.regions["flags"][: self._nr_regions] & np.uint32(lay.MET)).any())

    def _set_memory_facts(self) -> None:
        header = self._map.header
        header["base"], header["mask"], header["limit"] = self.walk.memory_facts()
        header["vmemmap"] = self.vmemmap

    # -- what was found -----------------------------------------------------------------------------------------------

    def accessed(self, place: int) -> I64:
        """Samples in which the regions of a target were accessed: a view of the shared memory, which may be set."""
        return self._view(place, "accessed")

    def unknown(self, place: int) -> I64:
        """Likewise: samples without an answer."""
        return self._view(place, "unknown")

    def drawn(self, place: int) -> Addresses:
        """The pages that were drawn for the window that is open: a view, shape (n,), bytes."""
        return self._view(place, "drawn")

    def watched(self, place: int) -> Addresses:
        """The pages whose window is open, 0 where none is: a view, shape (n,), bytes."""
        return self._view(place, "watched")

    def saw_absent(self, place: int) -> bool:
        """Whether, since the load, a page of the target was drawn that is absent, and no resident one was known."""
        loaded = self._loaded[place]
        return bool(self._map.targets["absent"][loaded.first_record : loaded.end_record].any())

    def _view(self, place: int, name: str) -> NDArray[Any]:
        loaded = self._loaded[place]
        view: NDArray[Any] = self._map.regions[name][loaded.first : loaded.end]
        return view

    # -- sampling -----------------------------------------------------------------------------------------------------

    def sample(self, most: int, sleep: Callable[[], bool], over: Callable[[], bool] = lambda: False) -> tuple[int, str]:
        """Take up to ``most`` samples, at least 1. Returns how many were taken, and why no more: a word from above.

        ``sleep`` sleeps until the next look is due; False means that it came back early: that sample says nothing.
        ``over`` says whether no further sample is to begin; it is asked before each one but the first.
        """
        self._lost.drop()
        run, lost = self._run, self._lost.held
        sums = run(lay.DRAW)
        done, bad = 0, sums[BAD]
        while True:
            if any(sums):
                self._clear(sums)
                if self.refusal is not None:
                    return done, REFUSED
            if done and over():
                return done, OVER
            if not sleep():
                return done, WOKEN
            done += 1
            sums = run(lay.CHECK if done == most else lay.CHECK | lay.DRAW)
            if lost:
                self._lost.count(self._map)
            if sums[BAD] > bad:
                return done, ENDED
            if done == most:
                return done, DONE

    def _run(self, flags: int) -> list[int]:
        """Look at the windows that are open, draw pages, or both. Returns the sums (`SamplerMap.sums`)."""
        began = time.perf_counter_ns()
        memory, cost = self._map, self.cost
        for first, end in self._runs:
            memory.run(flags if first else flags | lay.BEGIN, first, end)
        cost.check_ns += time.perf_counter_ns() - began
        if flags & lay.CHECK:
            cost.checks += self._nr_regions
        return memory.sums()

    def _clear(self, sums: list[int]) -> None:
        """Clear what the last run listed."""
        memory = self._map
        ranges, parts, slow, unwatched, _, failed, noted = sums
        if panel.is_due(noted, parts):
            self.note_panel()
        if ranges:
            began = time.perf_counter_ns()
            if parts:
                self._leave_out_split_folios()
            elsewhere = 0
            for record, count in self._with(memory.ranges):
                elsewhere += self._advise(record, count)
            spent = time.perf_counter_ns() - began - elsewhere
            cost = self.cost
            cost.clears += ranges
            cost.clear_ns += spent
            cost.disturb_ns += int(spent * _DISTURBS)
        if slow:
            self._open_slowly(memory.slow[:slow].astype(np.intp))
        if unwatched and self.vmemmap:  # without it the slow way has done so
            self._stuck.clear(memory, self._loaded)
        if failed:
            self._saw_failures = True

    def _with(self, counts: memoryview) -> list[tuple[int, int]]:
        """The records of which these counts, one per record, are not 0: their numbers, and how much it is."""
        return [(record, count) for record, count in enumerate(counts[: len(self._pieces)].tolist()) if count]

    def _of_record(self, record: int) -> Loaded:
        return self._loaded[self._owners[record]]

    def _advise(self, record: int, count: int) -> int:
        """Clear the ``count`` ranges of a record. Returns the nanoseconds that are in its primitive's own account."""
        memory, primitive = self._map, self._of_record(record).watched.primitive
        first, size = memory.ranges_of(record)
        if count <= _IOV_MAX and size <= _MAX_BYTES:
            at = memory.iovecs_address + first * lay.IOVEC.itemsize
            if _syscall(_SYS_PROCESS_MADVISE, primitive.process.pidfd, at, count, _MADV_COLD, 0) == size:
                return 0
        before = primitive.cost.clear_ns
        self._advise_one_by_one(self._of_record(record), memory.iovecs[first : first + count])
        return primitive.cost.clear_ns - before

    def _advise_one_by_one(self, loaded: Loaded, ranges: NDArray[np.void]) -> None:
        """Clear what can be cleared: leave out ranges that are refused, and remember their mappings."""
        clearer = loaded.watched.primitive.clearer
        accepted = clearer.advise(ranges["base"].copy(), ranges["length"].copy())
        if accepted.all():
            return
        self._close_windows(loaded, ranges[~accepted])
        if len(clearer.refused) != loaded.refusals:
            self._load_refused()
        if not clearer.may_advise:
            self.refusal = "the kernel does not let accessed bits be cleared by process_madvise"

    def _close_windows(self, loaded: Loaded, ranges: NDArray[np.void]) -> None:
        """The pages in these ranges were not cleared: their windows will say nothing."""
        watched = self._map.regions["watched"][loaded.first : loaded.end]
        for base, length in ranges.tolist():
            watched[(watched >= base) & (watched < base + length)] = 0

    def _leave_out_split_folios(self) -> None:
        """Drop the ranges of folios that reach out of their mapping: clearing them would split them."""
        memory = self._map
        for record, count in self._with(memory.ranges):
            loaded, (first, _) = self._of_record(record), memory.ranges_of(record)
            listed = memory.iovecs[first : first + count]
            lengths = listed["length"]
            parts = np.flatnonzero((lengths != _PAGE) & (lengths != _HUGE))
            if not len(parts):
                continue
            keep = np.ones(count, np.bool_)
            keep[parts] = loaded.watched.primitive.clearer.within_mappings(listed["base"][parts], lengths[parts])
            if keep.all():
                continue
            self._close_windows(loaded, listed[~keep])
            kept = listed[keep]
            memory.iovecs[first : first + len(kept)] = kept
            memory.targets["ranges"][record] = len(kept)
            memory.targets["bytes"][record] = kept["length"].sum(dtype=np.uint64)

    def _open_slowly(self, slow: NDArray[np.intp]) -> None:
        """Clear pages about which the program knows nothing, each target's together, as `BpfPrimitive` does."""
        regions = self._map.regions
        for loaded in self._loaded:
            index = slow[(slow >= loaded.first) & (slow < loaded.end)]
            if len(index):
                levels, usable = loaded.watched.primitive.open_windows(
                    regions["watched"][index], loaded.end - loaded.first
                )
                regions["level"][index] = levels
                regions["watched"][index[~usable]] = 0

    # -- the page panel -----------------------------------------------------------------------------------------------

    def watch_panel(self, pages: Addresses) -> None:
        """Note what is cleared of these pages (addresses, of any target) from now on; none ends it."""
        panel.watch(self._map, pages)

    def note_panel(self) -> None:
        """Tell the panels of the processes what was cleared of theirs."""
        panel.tell(self._map, [loaded.watched.primitive for loaded in self._loaded])

    def note_lost(self, primitive: BpfPrimitive, starts: Addresses, lengths: Addresses) -> None:
        """These ranges of a process are about to be cleared for the panel: what an open window has seen is kept."""
        for loaded in self._loaded:
            if loaded.watched.primitive is primitive:
                self._lost.note(self._map, primitive, slice(loaded.first, loaded.end), starts, lengths)

    def close(self) -> None:
        """Unload the program; no sampling is possible any more."""
        self._map.close()


def sampler(shared: Shared, seed: int) -> BpfSampler:
    """For the processes whose primitives were opened with ``shared``. Raises MachineError where it cannot work."""
    return BpfSampler(shared.tables, seed)


def shortcoming() -> str | None:
    """What keeps samples from being taken as a whole on a machine where `bpf` works; None if nothing does."""
    walk = PageTableWalk()
    try:
        sampler = BpfSampler(walk, seed=1)
    except MachineError as error:
        return f"samples are taken page by page: {error.message}"
    finally:
        walk.close()
    sampler.close()
    if sampler.vmemmap:
        return None
    return "pages are cleared the slow way: struct pages are not found (they are through CONFIG_VMAP_STACK)"


def _overlap(start: Addresses, end: Addresses, known_start: Addresses, known_end: Addresses) -> Flags:
    """Which of the ranges [start, end) overlap any of the known ones; all are sorted and disjoint."""
    overlap: Flags = np.searchsorted(known_end, start, "right") < np.searchsorted(known_start, end, "left")
    return overlap
