"""The contract of an operations set: everything the core needs of an address space, over arrays.

The names are those of the kernel's ``struct damon_operations``. Targets are known by their index. Ranges are uint64
arrays of shape (n, 2): start and exclusive end in bytes, sorted, disjoint, page-aligned.

Targets may come and go. An index stands for one target for ever: whatever joins at an ``update`` gets the next index
(``nr_targets`` grows), whatever has ended keeps its index, is never valid again and is not asked about any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.linux.process import Mapping
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.spec import Probe, Scheme

PAGE_SIZE = 4096  # DAMON's minimum region; the primitives handle larger pages below this interface

Ranges = NDArray[np.uint64]
Addresses = NDArray[np.uint64]
Hits = NDArray[np.bool_]  # shape (probes, n)


class Spans(Protocol):
    """Regions below the core: start and exclusive end in bytes, shape (n,), sorted and disjoint."""

    @property
    def start(self) -> Addresses: ...

    @property
    def end(self) -> Addresses: ...


class BatchEnd(Enum):
    """Why a sampler came back."""

    DONE = "all samples were taken"
    WOKEN = "a sleep was cut short"
    INTERRUPTED = "the time is over, or there is something else to do"
    TARGET_ENDED = "a target has ended"


class Sampler(Protocol):
    """Counts accesses, in one sample or many: all that happens between two judgements of the core.

    ``probes`` are asked in each sample; `Counts.hits` has a row for each. The core sets them between two calls.
    """

    probes: Sequence[Probe]

    def sample(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        """Take up to ``n`` samples of all ``targets``, one each time that `Pace.sleep` has slept.

        ``regions`` and ``counts`` are parallel to ``targets``. Each sample adds to the counts of each region. Returns
        how many samples were counted, and why no more: a sleep that was cut short is no sample; `Pace.over`, and the
        end of a target that was valid when the call began, end it at the next sample.

        **What changed between two calls** is told by identity: address arrays are never changed in place, so regions
        whose ``start`` or ``end`` `is not` what was loaded are to be loaded again, with their counts: these are what
        has been counted so far in this aggregation (updates, schemes and filters cut regions in the middle of it).
        Likewise counts whose arrays are not those that the sampler has put there. It may put its own arrays (strided
        views of memory that it shares with others, of any integer type) into `Counts`, with the same values; the core
        reads and resets them there until the regions change. What an older `Counts` still shows of that memory has to
        be copied before it is loaded anew.
        """
        ...


class OperationsSet(Protocol):
    """What ``core`` calls, in the order of DAMON's design: init, {check accesses, aggregate, update, ...}, cleanup.

    It counts accesses (``sampler``), and the core judges what was counted.
    One whose ranges follow what is mapped has ``leave_out_gaps(most)`` and ``gaps_left_out``, too, as `VaddrOps` has;
    one that can tell why memory cannot be watched has ``why_unseen``, as that.
    """

    name: str
    nr_targets: int

    @property
    def sampler(self) -> Sampler:
        """What counts the accesses."""
        ...

    def init(self) -> list[Ranges]:
        """Construct the target ranges, one array per target; an empty one if a target has none (yet)."""
        ...

    def update(self) -> list[Ranges | None]:
        """The target ranges as they are now, also of targets that just joined: ``nr_targets`` entries.

        None for a target whose ranges cannot be told (keep the old ones) or that has ended.
        """
        ...

    def reset_aggregated(self) -> None:
        """An aggregation interval ended."""
        ...

    def target_valid(self, target: int) -> bool:
        """Whether the target can still be monitored (its process lives). Once False it stays so."""
        ...

    def may_grow(self) -> bool:
        """Whether targets may come although none is valid at the moment: then the monitoring goes on."""
        ...

    def mappings(self, target: int) -> list[Mapping]:
        """What the last init or update saw mapped; the same list object as long as nothing changed."""
        ...

    def resident_bytes(self, target: int, start: Addresses, end: Addresses) -> NDArray[np.uint64] | None:
        """How many bytes of each region [start, end) are in memory, shape (n,): measured, as of a moment ago.

        The largest number there is for a region of which not all was looked at yet; None if this set cannot tell.
        """
        ...

    def cleanup(self) -> None:
        """Give everything back; called once, also after errors."""
        ...


class Applied(msgspec.Struct, eq=False):
    """What applying an action to ranges did: bytes, uint64, parallel to the ranges.

    ``applied`` is what was measured to have been brought about (never more than ``passed``), ``passed`` what the
    filters of the operations set let pass. ``spent_ns`` is the time that it took where the operations set knows better
    than a clock: without waiting for a CPU that others had, or in a simulator's own time. ``acted``: in a dry run, the
    pages that would be acted on, as ranges (sorted, disjoint); None where only their number is known. ``added``: by how
    much more memory is there since then, ``refused``: what the kernel would not act on; bytes in all.
    """

    applied: NDArray[np.uint64]
    passed: NDArray[np.uint64]
    spent_ns: int | None = None
    acted: Ranges | None = None
    added: int = 0
    refused: int = 0


@runtime_checkable
class ActingOperationsSet(OperationsSet, Protocol):
    """An operations set that can apply the actions of schemes."""

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise RequestError (it has no such action or filter) or MachineError (the machine cannot, or may not).

        The error names the field within the scheme.
        """
        ...

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Apply the scheme's action to the regions [start, end) of a target, less what its page filters reject.

        The page filters (``scheme.ops_filters``) are not asked where ``allowed`` is True: a filter of the core has let
        that region pass for good. Never raises for a target that dies meanwhile, or memory that refuses: that is not
        applied. Raises MachineError if no further application can succeed (a permission was lost).
        """
        ...

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Resident bytes of the ranges that are on the NUMA node ``nid``."""
        ...


@runtime_checkable
class ProbingOperationsSet(OperationsSet, Protocol):
    """An operations set whose sampler asks probes about the pages that it samples."""

    def check_probes(self, probes: Sequence[Probe]) -> None:
        """Raise MachineError, naming the filter (``[0].filters[1]``), if the machine cannot tell this user."""
        ...


class PanelPages(Protocol):
    """What a page panel needs: targets whose single pages can be asked at any time."""

    def target_valid(self, target: int) -> bool:
        """See `OperationsSet.target_valid`."""
        ...

    def resident(self, target: int) -> tuple[Ranges, Ranges] | None:
        """What of the target is in memory, as of a moment ago, and the spans that were looked at for that.

        What lies outside of these spans is unknown. None if it cannot be told at all.
        """
        ...

    def look_at_panel(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of these pages were accessed since the last call for this target, and of which that is not known.

        Shape (n,) each. Of pages that were not asked about then, the window begins now: neither is True. It may be
        called while windows of the sampler are open, and changes nothing in what those will say.
        """
        ...

    def also_mapped(self, owner: NDArray[np.intp], addresses: Addresses, target: int) -> Addresses | None:
        """Where ``target`` maps the pages at ``addresses`` of the targets ``owner`` (parallel, shape (n,)), if it does.

        Shape (n,): 0 stands for pages that it does not map, or that are not in memory. Of a page that it maps more than
        once any place is right. The same array of addresses again means the same pages. None if that cannot be told.
        """
        ...

    def panel_cpu_ns(self) -> int:
        """CPU time so far of the thread that looks; always 0 where looking costs nothing."""
        ...


@runtime_checkable
class PanelOps(PanelPages, OperationsSet, Protocol):
    """An operations set that can be asked about single pages at any time, beside its sampler: for a page panel."""


def sample_addresses(start: Addresses, end: Addresses, rng: np.random.Generator, rounds: int = 1) -> Addresses:
    """One page-aligned address per region, uniform over its pages, for each of ``rounds``.

    Inputs: uint64, shape (n,); result: shape (n,), of several rounds (rounds, n), as if drawn one after another.
    """
    pages = (end - start) // np.uint64(PAGE_SIZE)
    shape = (len(start),) if rounds == 1 else (rounds, len(start))
    picked = (rng.random(shape) * pages.astype(np.float64)).astype(np.uint64)
    # A float64 product can round up to `pages` itself for regions of more than 2**53 pages only; stay inside anyway.
    np.minimum(picked, np.maximum(pages, np.uint64(1)) - np.uint64(1), out=picked)
    result: Addresses = start + picked * np.uint64(PAGE_SIZE)
    return result
