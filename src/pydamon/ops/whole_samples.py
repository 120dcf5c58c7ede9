"""A sampler for operations sets on page tables: each sample of all targets is one run of a BPF program.

Regions, counts and windows lie in memory that is shared with the program (`pydamon.primitives.bpf_sampler`); Python
works once per batch. Where the kernel turns out not to let it, `PageSampler` goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from pydamon.ops.base import Addresses, BatchEnd, Spans
from pydamon.ops.counts import Count, Counts
from pydamon.ops.pace import Pace
from pydamon.ops.sampling import PageOps, PageSampler
from pydamon.primitives.base import PrimitiveCost
from pydamon.primitives.bpf import BpfPrimitive
from pydamon.primitives.bpf_sampler import DONE, ENDED, OVER, REFUSED, WOKEN, BpfSampler
from pydamon.primitives.bpf_sampler_loaded import Resident, Watched
from pydamon.spec import Probe
from pydamon.spec.probes import attributes_only, event_of

if TYPE_CHECKING:
    from pydamon.ops.event_hits import EventHits

_ENDS = {
    DONE: BatchEnd.DONE,
    WOKEN: BatchEnd.WOKEN,
    OVER: BatchEnd.INTERRUPTED,
    ENDED: BatchEnd.TARGET_ENDED,
}


class _Loaded(msgspec.Struct, frozen=True, eq=False):
    """A target as it was loaded, and the arrays that were put into its counts."""

    target: int
    primitive: BpfPrimitive
    start: Addresses
    end: Addresses
    counts: Counts
    accessed: Count
    unknown: Count

    def is_now(self, target: int, primitive: BpfPrimitive, spans: Spans, counts: Counts) -> bool:
        """Whether nothing of it was exchanged since. (Arrays are not changed in place.)"""
        return (
            self.target == target
            and self.primitive is primitive
            and self.start is spans.start
            and self.end is spans.end
            and self.accessed is counts.accessed
            and self.unknown is counts.unknown
        )


class WholeSampler:
    """A `Sampler` of targets whose primitives are `bpf`; ``pages`` samples where that turns out to be impossible.

    ``sampler`` is closed with this.
    """

    def __init__(self, ops: PageOps, pages: PageSampler, sampler: BpfSampler) -> None:
        self.probes: Sequence[Probe] = ()
        self._ops = ops
        self._pages = pages
        self._sampler = sampler
        self._loaded: list[_Loaded] = []
        self._stale = False  # something else than the regions is to be loaded anew
        self._sparse: set[int] = set()  # targets of which absent pages were drawn

    @property
    def events(self) -> EventHits | None:
        """What counts for probes of events, of which samples are taken page by page."""
        return self._pages.events

    @events.setter
    def events(self, events: EventHits | None) -> None:
        self._pages.events = events

    def _counts_events(self) -> bool:
        return self.events is not None and any(event_of(probe) is not None for probe in self.probes)

    @property
    def refusal(self) -> str | None:
        """Why samples are taken page by page by now; None if they are not."""
        return self._sampler.refusal

    @property
    def cost(self) -> PrimitiveCost:
        """What sampling has cost so far, without what the primitives were asked for."""
        return self._sampler.cost

    def sample(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        """Take up to ``n`` samples, see `Sampler`."""
        if self.refusal is not None or attributes_only(self.probes) or self._counts_events():
            return self._page_by_page(targets, regions, counts, n, pace)
        self._load(targets, regions, counts)
        done, why = self._sampler.sample(n, self._sleep_and_probe(pace) if self.probes else pace.sleep, pace.over)
        self._finish(targets, counts, done)
        if why == REFUSED:
            more, end = self._page_by_page(targets, regions, counts, n - done, pace)
            return done + more, end
        return done, _ENDS[why]

    def watch_panel(self, pages: Addresses) -> None:
        """Note what is cleared of these pages from now on."""
        self._sampler.watch_panel(pages)

    def note_panel(self) -> None:
        """Tell the panels what was cleared of their pages."""
        self._sampler.note_panel()

    def note_lost(self, primitive: BpfPrimitive, starts: Addresses, lengths: Addresses) -> None:
        """These ranges are about to be cleared for the panel: what an open window has seen is kept."""
        self._sampler.note_lost(primitive, starts, lengths)

    def update(self) -> None:
        """Mappings or memory may have changed."""
        self._sampler.update()
        # What is known of single pages and mappings is loaded with the regions.
        self._stale = bool(self._sparse) or self._sampler.knows_exceptions()

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._sparse.discard(target)
        self._pages.forget(target)

    def close(self) -> None:
        """Unload the program. What was counted stays."""
        self._take_back()
        self._sampler.close()

    def _load(self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts]) -> None:
        """Load the regions and their counts, unless these are what is loaded."""
        wanted = []
        for target, spans, counted in zip(targets, regions, counts, strict=True):
            primitive = self._ops.primitives[target]
            if isinstance(primitive, BpfPrimitive):  # a target that has ended has another one
                wanted.append((target, primitive, spans, counted))
        same = len(wanted) == len(self._loaded) and not self._stale
        if same and all(loaded.is_now(*now) for loaded, now in zip(self._loaded, wanted, strict=True)):
            return
        self._stale = False
        self._take_back()
        self._sampler.load([self._watched(target, primitive, spans) for target, primitive, spans, _ in wanted])
        for place, (target, primitive, spans, counted) in enumerate(wanted):
            accessed, unknown = self._sampler.accessed(place), self._sampler.unknown(place)
            accessed[:], unknown[:] = counted.accessed, counted.unknown
            counted.accessed, counted.unknown = accessed, unknown
            self._loaded.append(_Loaded(target, primitive, spans.start, spans.end, counted, accessed, unknown))

    def _watched(self, target: int, primitive: BpfPrimitive, spans: Spans) -> Watched:
        residency = self._ops.residency(target) if target in self._sparse else None
        found = None if residency is None else residency.of_regions(spans.start, spans.end)
        return Watched(primitive, spans.start, spans.end, None if found is None else Resident(*found))

    def _take_back(self) -> None:
        """Counts that still show the shared memory get arrays of their own: that memory changes its meaning now."""
        for loaded in self._loaded:
            counts = loaded.counts
            if counts.accessed is loaded.accessed:
                counts.accessed = loaded.accessed.copy()
            if counts.unknown is loaded.unknown:
                counts.unknown = loaded.unknown.copy()
        self._loaded.clear()

    def _finish(self, targets: Sequence[int], counts: Sequence[Counts], done: int) -> None:
        """Note where absent pages were drawn, and that targets which have ended did not answer."""
        for place, loaded in enumerate(self._loaded):
            if loaded.target not in self._sparse and self._sampler.saw_absent(place):
                self._sparse.add(loaded.target)
        if len(self._loaded) < len(targets):
            answered = {loaded.target for loaded in self._loaded}
            for target, counted in zip(targets, counts, strict=True):
                if target not in answered:
                    counted.unknown += done

    def _sleep_and_probe(self, pace: Pace) -> Callable[[], bool]:
        """Sleeps, then asks probes about the pages whose windows are open."""

        def sleep() -> bool:
            if not pace.sleep():
                return False
            self._ask_probes()
            return True

        return sleep

    def _ask_probes(self) -> None:
        for place, loaded in enumerate(self._loaded):
            drawn = self._sampler.drawn(place).copy()
            loaded.counts.probed += 1
            loaded.counts.hits += self._ops.apply_probes(loaded.target, drawn, self.probes)

    def _page_by_page(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        self._take_back()
        self._pages.probes = self.probes
        return self._pages.sample(targets, regions, counts, n, pace)
