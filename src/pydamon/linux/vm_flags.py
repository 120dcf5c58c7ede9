"""The kernel's flags of each mapping, two letters each, from ``/proc/PID/smaps`` (proc_pid_smaps(5), VmFlags).

Reading that file makes the kernel walk the page tables of each mapping: it is for questions that are asked once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

HUGETLB, PFN_MAPPED, MIXED, IO, LOCKED, SHARED = b"ht", b"pf", b"mm", b"io", b"lo", b"sh"


@dataclass(frozen=True, slots=True)
class FlaggedMapping:
    """Addresses [start, end) in bytes, and the flags of what is mapped there."""

    start: int
    end: int
    flags: frozenset[bytes]


def flagged_mappings(pid: int, *, budget_ns: int) -> Iterator[FlaggedMapping]:
    """The mappings of a process in the order of addresses; no more of them after so much time.

    None if it has ended, or this user may not look at it.
    """
    end_ns = time.monotonic_ns() + budget_ns
    try:
        with open(f"/proc/{pid}/smaps", "rb") as file:
            start = end = -1
            for line in file:
                head, _, rest = line.partition(b" ")
                if head == b"VmFlags:":
                    yield FlaggedMapping(start, end, frozenset(rest.split()))
                    if time.monotonic_ns() >= end_ns:
                        return
                elif b"-" in head and not head.endswith(b":"):
                    low, _, high = head.partition(b"-")
                    start, end = int(low, 16), int(high, 16)
    except (OSError, ValueError):
        return
