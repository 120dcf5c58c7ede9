"""Samplers that take one sample after another, in Python: of pages through primitives, for every address space.

`PageSampler` is the reference for every other one: for the same draws any sampler has to count the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import Addresses, BatchEnd, Hits, Spans, sample_addresses
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.ops.residency import Residency
from pydamon.primitives.base import ACCESSED, UNKNOWN, Answers, Primitive
from pydamon.spec import Probe
from pydamon.spec.probes import attributes_only, event_of

if TYPE_CHECKING:
    from pydamon.ops.event_hits import EventHits

# How often another page of the same region is offered in place of one that cannot be watched.
_REPLACEMENTS = 2


class StepSampler(ABC):
    """A `Sampler` whose subclass says how the windows of one target are opened and looked at."""

    probes: Sequence[Probe] = ()

    @abstractmethod
    def prepare_access_checks(self, target: int, start: Addresses, end: Addresses) -> None:
        """Pick what to watch in each region [start, end) and open its window of observation."""

    @abstractmethod
    def check_accesses(self, target: int) -> Answers:
        """For each region of the last ``prepare_access_checks`` of this target: was it accessed?"""

    @abstractmethod
    def target_valid(self, target: int) -> bool:
        """Whether the target can still be monitored."""

    def prepare_probes(self, target: int, start: Addresses, end: Addresses, probes: Sequence[Probe]) -> None:
        """In place of ``prepare_access_checks``, where probes are let pass at all: pick the pages that probes are asked
        about, and do to them what the probes want done before (`Probe.preps`)."""
        raise NotImplementedError

    def apply_probes(self, target: int, probes: Sequence[Probe]) -> Hits:
        """Which pages of the last preparation have which attribute, where probes are let pass at all."""
        raise NotImplementedError

    def sample(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        """Open all windows, sleep, look at all; up to ``n`` times, see `Sampler`."""
        lived = self._living(targets) if n > 1 else []
        accesses = not attributes_only(self.probes)
        for done in range(n):
            if done:
                if pace.over():
                    return done, BatchEnd.INTERRUPTED
                if self._living(targets) != lived:
                    return done, BatchEnd.TARGET_ENDED
            for target, spans in zip(targets, regions, strict=True):
                if accesses:  # which does to a page all that a probe can want done to it
                    self.prepare_access_checks(target, spans.start, spans.end)
                else:
                    self.prepare_probes(target, spans.start, spans.end, self.probes)
            if not pace.sleep():
                return done, BatchEnd.WOKEN
            for target, counted in zip(targets, counts, strict=True):
                if accesses:
                    self._count(target, counted)
                if self.probes:
                    counted.probed += 1
                    counted.hits += self.apply_probes(target, self.probes)
        return n, BatchEnd.DONE

    def _living(self, targets: Sequence[int]) -> list[bool]:
        return list(map(self.target_valid, targets))

    def _count(self, target: int, counts: Counts) -> None:
        answers = self.check_accesses(target)
        counts.accessed += answers == ACCESSED
        unknown = answers == UNKNOWN
        if np.count_nonzero(unknown):  # in a fifth of the time that ``any`` takes
            counts.unknown += unknown


class PageOps(Protocol):
    """What `PageSampler` needs of an operations set. ``primitives`` has one for each target."""

    @property
    def primitives(self) -> Sequence[Primitive]: ...

    def target_valid(self, target: int) -> bool:
        """Whether the target can still be monitored."""
        ...

    def residency(self, target: int) -> Residency | None:
        """Tells which pages of the target are there, so that these are preferred; None: all count the same."""
        ...

    def prepare_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> None:
        """Do to the pages at ``addresses`` of the target what the probes want done before they are asked."""
        ...

    def apply_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        """Which of the pages at ``addresses`` of the target have which attribute."""
        ...


class PageSampler(StepSampler):
    """Samples one random page per region through the primitives of ``ops``; ``rng`` gives the dice of a target."""

    def __init__(self, ops: PageOps, rng: Callable[[int], np.random.Generator]) -> None:
        self._ops = ops
        self._rng = rng
        self._drawn: dict[int, Addresses] = {}
        self._regions: dict[int, tuple[Addresses, Addresses]] = {}
        self.events: EventHits | None = None  # counts for probes of events, if there are any

    def prepare_access_checks(self, target: int, start: Addresses, end: Addresses) -> None:
        """Watch one random page per region; where that is not possible, try another one."""
        primitive, rng = self._ops.primitives[target], self._rng(target)
        self._begin(target, start, end)
        # Probes are asked about the pages that were drawn first: their replacements are chosen by a property.
        self._drawn[target] = drawn = sample_addresses(start, end, rng)
        usable = primitive.prepare(drawn.copy())
        for _ in range(_REPLACEMENTS):
            if np.count_nonzero(usable) == len(usable):
                break
            index = np.flatnonzero(~usable)
            usable[index] = primitive.replace(index, sample_addresses(start[index], end[index], rng))
        tells_absent = getattr(primitive, "absent", None)  # (isinstance of a protocol takes longer than all the rest)
        if tells_absent is not None:
            self._prefer_resident(target, np.flatnonzero(tells_absent()), start, end)

    def _begin(self, target: int, start: Addresses, end: Addresses) -> None:
        """What is reported from now on is about these regions."""
        self._regions[target] = start, end
        if self.events is not None:
            self.events.follow(self.probes)

    def _prefer_resident(self, target: int, absent: NDArray[np.intp], start: Addresses, end: Addresses) -> None:
        """Watch a resident page instead of each one that is absent, where the region has any."""
        residency = self._ops.residency(target) if len(absent) else None
        if residency is None:
            return
        index, addresses = residency.sample(start[absent], end[absent], self._rng(target))
        if len(index):
            self._ops.primitives[target].replace(absent[index], addresses)

    def check_accesses(self, target: int) -> Answers:
        """Answers for the pages of the last prepare."""
        return self._ops.primitives[target].check()

    def target_valid(self, target: int) -> bool:
        """Whether the target can still be monitored."""
        return self._ops.target_valid(target)

    def prepare_probes(self, target: int, start: Addresses, end: Addresses, probes: Sequence[Probe]) -> None:
        """Draw one random page per region, and prepare it."""
        self._begin(target, start, end)
        self._drawn[target] = drawn = sample_addresses(start, end, self._rng(target))
        if any(probe.preps for probe in probes):
            self._ops.prepare_probes(target, drawn, probes)

    def apply_probes(self, target: int, probes: Sequence[Probe]) -> Hits:
        """Which of the pages that were drawn have which attribute, and in which regions events were sampled."""
        if self.events is None:
            return self._ops.apply_probes(target, self._drawn[target], probes)
        start, end = self._regions[target]
        hits = np.zeros((len(probes), len(start)), np.bool_)
        of_pages = [row for row, probe in enumerate(probes) if event_of(probe) is None]
        if of_pages:
            hits[of_pages] = self._ops.apply_probes(target, self._drawn[target], [probes[row] for row in of_pages])
        self.events.put(hits, target, start, end, probes)
        return hits

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._drawn.pop(target, None)
        self._regions.pop(target, None)
