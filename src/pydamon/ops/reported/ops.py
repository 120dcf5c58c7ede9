"""Operations set over reported accesses: nothing is asked of the machine, what was reported is all that is known.

**What counts as accessed** in a sampling interval (``scope``):

``page``     one page per region is sampled, as in the other sets, and the region counts as accessed if an access to
             that page was reported. Default for sources that tell all accesses: nr_accesses is comparable with that of
             the other sets and right for most bytes of the region.
``region``   any access to the region counts (what the kernel's patches for reports do). A large region that holds one
             hot page looks as hot as one that is hot throughout.
``density``  for samples of accesses: so few fall into one interval that a single page is almost never hit, and if any
             sample counted for its whole region, large regions would look hot because they are large. Instead the
             region's samples per page, d, are compared with the typical density t (where the median sample of an
             interval lies, averaged over about 64 intervals), and the region counts as accessed with the probability
             1 - exp(-2.3 d/t): 90 % where it is as dense as that, 10 % where it is 20 times less. The expectation does
             not depend on the region's size. Default for sampling sources.

**What silence means**, for a page (or region) of which nothing was reported in a sampling interval:

``not-accessed``  the source tells all accesses (``complete``): silence is an answer. Default for complete sources.
``statistic``     the source tells a sample of the accesses, which says nothing about any single page. An interval in
                  which it told nothing at all (of this target) is UNKNOWN for all regions. In any other interval
                  silence counts as "not accessed": answering UNKNOWN just where nothing was found would leave only
                  the "accessed" answers, and every region ever hit would look fully hot. So nr_accesses is a measure
                  of how regions compare, not of all accesses. Default for other sources.
``unknown``       only what ``report_not_accessed`` was told is NOT_ACCESSED, everything else is UNKNOWN.

Where reports were dropped during the interval, silence is UNKNOWN in any case.

**Target ranges** are the three ranges around the two largest gaps (as ``vaddr``) between the pages that were reported
so far; they grow at updates and never shrink, because nobody reports an munmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Mapping
from pydamon.ops.base import PAGE_SIZE, Addresses, Applied, Ranges, Sampler, sample_addresses
from pydamon.ops.pace import Clock
from pydamon.ops.reported.reports import NOT_ACCESSED_RANGE, AccessFilter, AccessReports, Reports, covered_below, union
from pydamon.ops.sampling import StepSampler
from pydamon.ops.touched import TouchedPages, page_of
from pydamon.ops.vaddr import three_ranges
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers
from pydamon.spec import Scheme

Scope = Literal["page", "region", "density"]
Silence = Literal["not-accessed", "statistic", "unknown"]

_FILTER_SLOTS = 1 << 16  # 64 KiB stay in the cache of a CPU; with 1000 sampled pages 1.5 % of the others pass
_SLOT_MASK = np.uint64(_FILTER_SLOTS - 1)
_MAX_MAPPINGS = 256
_TYPICAL = 2.3  # 1 - exp(-2.3) = 90 %
_MEMORY = 64  # intervals
_NO_SPANS: Ranges = np.empty((0, 2), np.uint64)


class _Window:
    """One target's sampling interval: which pages or regions are asked about, and what is known of them so far."""

    def __init__(self) -> None:
        self.open = False
        self.since_ns = 0
        self.start: Addresses = np.empty(0, np.uint64)  # sorted, disjoint ranges that are asked about, in bytes
        self.end: Addresses = self.start
        self.hit: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.count: NDArray[np.float64] = np.empty(0)  # accesses; kept only if asked for
        self.typical_density = 0.0
        self.nr_reports = 0
        self.lossy = False
        self.not_accessed: list[Ranges] = []
        self._slots: NDArray[np.bool_] = np.zeros(_FILTER_SLOTS, np.bool_)
        self._scope: Scope = "region"

    def begin(self, now_ns: int, start: Addresses, end: Addresses, scope: Scope) -> None:
        self.open, self.since_ns = True, now_ns
        if self._scope == "page":
            self._slots[self._slot(self.start)] = False
        self.start, self.end, self._scope = start, end, scope
        self.hit, self.count = np.zeros(len(start), np.bool_), np.zeros(len(start))
        self.nr_reports, self.lossy, self.not_accessed = 0, False, []
        if scope == "page":
            self._slots[self._slot(start)] = True

    @staticmethod
    def _slot(addresses: Addresses) -> NDArray[np.intp]:
        return (page_of(addresses) & _SLOT_MASK).astype(np.intp)

    def note(self, first: Addresses, last: Addresses, times: NDArray[np.uint32]) -> None:
        """Bytes ``first`` to ``last`` (inclusive, shape (n,)) were accessed so often within the window."""
        self.nr_reports += len(first)
        if self._scope == "page" and len(first) > 64:
            # Most accesses go to pages that nobody asks about; a table of one byte per slot sorts them out.
            maybe = self._slots[self._slot(first)] | (page_of(first) != page_of(last))
            first, last = first[maybe], last[maybe]
        # Those of the ranges that end after `first` and start at or before `last`.
        begin = np.searchsorted(self.end, first, side="right")
        beyond = np.searchsorted(self.start, last, side="right")
        some = begin < beyond
        begin, beyond = begin[some], beyond[some]
        self.hit[begin] = True
        if self._scope == "density":  # what reaches over several regions counts for the first
            self.count += np.bincount(begin, weights=times[some], minlength=len(self.count))
        several = beyond - begin > 1
        if several.any():
            steps = np.zeros(len(self.hit) + 1, np.int64)
            np.add.at(steps, begin[several], 1)
            np.add.at(steps, beyond[several], -1)
            self.hit |= np.cumsum(steps[:-1]) > 0

    def dense(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which of the regions count as accessed by the density of their samples."""
        total = float(self.count.sum())
        if not total:
            return self.hit
        density = self.count / (self.end - self.start).astype(np.float64)
        order = np.argsort(density)
        median = float(density[order[np.searchsorted(np.cumsum(self.count[order]), total / 2)]])
        self.typical_density += (median - self.typical_density) / (_MEMORY if self.typical_density else 1)
        result: NDArray[np.bool_] = rng.random(len(density)) < -np.expm1(-_TYPICAL * density / self.typical_density)
        return result

    def known_not_accessed(self) -> NDArray[np.bool_]:
        """Which of the ranges asked about lie within what was reported as not accessed."""
        spans = union(np.concatenate(self.not_accessed)) if self.not_accessed else _NO_SPANS
        covered = covered_below(spans, self.end) - covered_below(spans, self.start)
        result: NDArray[np.bool_] = covered == self.end - self.start
        return result


class ReportedOps(StepSampler):
    """Monitors the targets of ``reports``.

    It is its own sampler, and no `PageSampler`: nobody can be asked about a page. Accesses come by themselves, of pages
    or of whole regions (``scope``), and are sorted into the windows that are open.

    ``complete``: the reports are all accesses (of those that ``accept`` lets pass); ``scope`` and ``silence``
    follow from it unless given, see above. ``initial`` gives, per target, ranges to begin with. ``late`` counts reports
    that arrived after the sampling interval that they belong to, ``dropped`` those that were lost. ``mapped`` tells
    what a target maps, where somebody knows.
    """

    name = "reported"

    @property
    def sampler(self) -> Sampler:
        """This set itself."""
        return self

    def __init__(
        self,
        reports: AccessReports,
        clock: Clock,
        *,
        complete: bool = False,
        scope: Scope | None = None,
        silence: Silence | None = None,
        accept: AccessFilter | None = None,
        initial: Sequence[Ranges] = (),
        rng: np.random.Generator | None = None,
        mapped: Callable[[int], list[Mapping]] | None = None,
    ) -> None:
        self.nr_targets = reports.nr_targets
        self.silence: Silence = silence or ("not-accessed" if complete else "statistic")
        self.scope: Scope = scope or ("page" if complete else "density")
        self.late = 0
        self.dropped = 0
        self._reports = reports
        self._clock = clock
        self._mapped = mapped
        self._accept = accept if accept is not None else AccessFilter()
        self._initial = list(initial)
        self._rng = rng if rng is not None else np.random.default_rng()
        self._touched = [TouchedPages() for _ in range(self.nr_targets)]
        self._windows = [_Window() for _ in range(self.nr_targets)]
        self._mappings: list[tuple[Ranges, list[Mapping]]] = [(_NO_SPANS, []) for _ in range(self.nr_targets)]
        self._waiting = Reports.empty()  # reports of a time that is yet to come
        self._collected_ns = clock.now_ns()

    # -- the contract of an operations set ----------------------------------------------------------------------

    def init(self) -> list[Ranges]:
        """What was given to begin with, else around what was reported so far: possibly nothing yet."""
        self.collect()
        given = self._initial + [_NO_SPANS] * (self.nr_targets - len(self._initial))
        return [r if len(r) else self._ranges(target) for target, r in enumerate(given)]

    def update(self) -> list[Ranges | None]:
        """The ranges around all that was reported; None for a target without reports."""
        self.collect()
        found = [self._ranges(target) for target in range(self.nr_targets)]
        return [ranges if len(ranges) else None for ranges in found]

    def prepare_access_checks(self, target: int, start: Addresses, end: Addresses) -> None:
        """Open the window of one page per region, or of the whole regions."""
        self.collect()
        if self.scope == "page":
            start = sample_addresses(start, end, self._rng)
            end = start + np.uint64(PAGE_SIZE)
        self._windows[target].begin(self._clock.now_ns(), start, end, self.scope)

    def check_accesses(self, target: int) -> Answers:
        """What the reports since the last prepare say."""
        self.collect()
        window = self._windows[target]
        window.open = False
        heard = self.silence == "not-accessed" or (self.silence == "statistic" and window.nr_reports > 0)
        answers = np.full(len(window.hit), NOT_ACCESSED if heard and not window.lossy else UNKNOWN, np.uint8)
        if window.not_accessed:
            answers[window.known_not_accessed()] = NOT_ACCESSED
        if self.scope == "density":
            answers[window.hit] = NOT_ACCESSED
            answers[window.dense(self._rng)] = ACCESSED
        else:
            answers[window.hit] = ACCESSED
        return answers

    def reset_aggregated(self) -> None:
        """Nothing is kept between aggregations."""

    def target_valid(self, target: int) -> bool:
        """Whether something may still be reported of it."""
        return not self._reports.ended(target)

    def may_grow(self) -> bool:
        """All targets are there from the beginning."""
        return False

    def resident_bytes(self, target: int, start: Addresses, end: Addresses) -> None:
        """Nobody reports it."""

    def mappings(self, target: int) -> list[Mapping]:
        """What is mapped, else what was touched so far, small gaps closed; the same list as long as nothing changed."""
        if self._mapped is not None and (found := self._mapped(target)):
            return found
        touched = self._touched[target].intervals
        seen, mappings = self._mappings[target]
        if touched is not seen:
            spans = self._touched[target].coarse(_MAX_MAPPINGS).tolist()
            found = [Mapping(start, end, "????", 0, 0, "[reported]") for start, end in spans]
            mappings = mappings if found == mappings else found
            self._mappings[target] = (touched, mappings)
        return mappings

    # There is no memory to act on: schemes only count (``stat``).

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise RequestError unless the scheme only counts what no filter of pages is needed for."""
        if scheme.does.acts:
            raise RequestError(
                f"{scheme.action!r} cannot be done: reported accesses are of no running process; use stat",
                where="action",
            )
        if scheme.ops_filters:
            raise RequestError(
                f"has {scheme.ops_filters[0].filter_type!r}, which is about pages; reported accesses tell of none",
                where="filters",
            )

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Count: nothing is changed."""
        return Applied(applied=np.zeros(len(start), np.uint64), passed=end - start)

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Raise MachineError: nothing is known of nodes."""
        raise MachineError("reported accesses do not tell which NUMA node holds the memory")

    def cleanup(self) -> None:
        """Nothing to give back."""

    # -- reports ------------------------------------------------------------------------------------------------

    def foresee(self, target: int, addresses: Addresses) -> None:
        """Pages of ``target`` that are known to be touched soon, so that the first target ranges hold them."""
        self._touched[target].add(page_of(addresses))

    def collect(self, until_ns: int | None = None) -> None:
        """Take the reports of the time before ``until_ns`` (default: now); later ones wait.

        All checks do; calling it more often keeps the ring from running full.
        """
        new, dropped = self._reports.take()
        self.dropped += dropped
        if dropped:
            for window in self._windows:
                window.lossy = True
        if not len(new) and not len(self._waiting):
            return
        now_ns = self._clock.now_ns() if until_ns is None else until_ns
        # As many may wait as the ring holds.
        rows = Reports.joined([self._waiting, new]) if len(self._waiting) else new
        future = rows.when_ns >= now_ns
        if future.any():
            waiting = np.flatnonzero(future)
            self.dropped += max(len(waiting) - self._reports.capacity, 0)
            self._waiting = rows.select(waiting[: self._reports.capacity])
            rows = rows.select(~future)
        else:
            self._waiting = Reports.empty()
        for target in range(self.nr_targets):
            mine = rows if self.nr_targets == 1 else rows.select(rows.target == target)
            if len(mine):
                self._sort_in(target, mine)
        self._collected_ns = now_ns

    def _sort_in(self, target: int, rows: Reports) -> None:
        window = self._windows[target]
        statement = (rows.flags & NOT_ACCESSED_RANGE) != 0
        if statement.any():
            current = rows.select(statement & (rows.when_ns >= window.since_ns))
            if window.open and len(current):
                window.not_accessed.append(union(np.stack([current.address, current.address + current.size], axis=1)))
            rows = rows.select(~statement)
        last = rows.address + (rows.size - np.uint64(1))
        self._touch(target, rows.address, last)
        counts = self._accept.passes(rows)
        if window.open:
            old = rows.when_ns < window.since_ns
            if old.any():
                self.late += int((rows.when_ns < min(window.since_ns, self._collected_ns)).sum())
                counts = ~old if counts is None else counts & ~old
            if counts is None:
                window.note(rows.address, last, rows.nr_accesses)
            elif counts.any():
                window.note(rows.address[counts], last[counts], rows.nr_accesses[counts])

    def _touch(self, target: int, first: Addresses, last: Addresses) -> None:
        first, last = page_of(first), page_of(last)
        several = first != last
        touched = self._touched[target]
        if several.any():
            touched.add(first[several], last[several])
            first = first[~several]
        touched.add(first)

    def _ranges(self, target: int) -> Ranges:
        # Closing all but many of the largest gaps changes none of the two largest.
        spans = self._touched[target].coarse(_MAX_MAPPINGS)
        return three_ranges([Mapping(start, end, "", 0, 0, "") for start, end in spans.tolist()])
