"""What a simulated machine tells of itself: where memory is, and what has happened so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """The machine, or one target on it, at ``time_ns``. Bytes unless said; counters are since the start.

    ``swapped_bytes`` is anonymous memory in swap, ``dropped_bytes`` memory of files that would have to be read again.
    ``faults`` are pages that an access brought back, ``first_touches`` pages that were in memory (after ``willneed``)
    when they were accessed again. ``stall_ns`` is what the workloads waited for memory in all.
    ``reclaimed_bytes`` were moved out by the machine itself to make room, not by a scheme.
    """

    time_ns: int
    resident_bytes: int
    swapped_bytes: int
    dropped_bytes: int
    node_resident_bytes: tuple[int, ...]
    huge_bytes: int
    active_bytes: int
    faults: int
    fault_bytes: int
    first_touches: int
    reclaimed_bytes: int
    stall_ns: int


@dataclass(slots=True)
class Counters:
    """What the kernel counts in /proc/vmstat, in pages (``thp_collapse_alloc``: huge ones), by the kernel's names."""

    pgscan_kswapd: int = 0
    pgsteal_kswapd: int = 0
    pgscan_direct: int = 0
    pgsteal_direct: int = 0
    pswpin: int = 0
    pswpout: int = 0
    pgmajfault: int = 0
    workingset_refault_anon: int = 0
    workingset_refault_file: int = 0
    pgmigrate_success: int = 0
    thp_collapse_alloc: int = 0


@dataclass(slots=True)
class Times:
    """CPU time of background reclaim and of schemes, in ns."""

    reclaim_ns: int = 0
    scheme_ns: int = 0


@dataclass(slots=True)
class Counts:
    """What has happened to one target, in pages and ns.

    ``slow_ns`` it took longer than if all were on the first node, ``bandwidth_ns`` for want of bandwidth, ``tlb_ns``
    less for huge pages.
    """

    faults: int = 0
    first_touches: int = 0
    reclaimed: int = 0
    stall_ns: int = 0
    io_stall_ns: int = 0  # of that, until files were read, or swap that is not in memory
    slow_ns: int = 0
    bandwidth_ns: int = 0
    tlb_ns: int = 0
