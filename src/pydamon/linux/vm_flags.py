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
    """Addresses [start, end) in bytes, and the flags of what is mapped there; whether that is ``of_file``."""

    start: int
    end: int
    flags: frozenset[bytes]
    of_file: bool = False


def flagged_mappings(pid: int, *, budget_ns: int) -> Iterator[FlaggedMapping]:
    """The mappings of a process in the order of addresses; no more of them after so much time.

    None if it has ended, or this user may not look at it.
    """
    end_ns = time.monotonic_ns() + budget_ns
    try:
        with open(f"/proc/{pid}/smaps", "rb") as file:
            start = end = inode = -1
            for line in file:
                head, _, rest = line.partition(b" ")
                if head == b"VmFlags:":
                    yield FlaggedMapping(start, end, frozenset(rest.split()), of_file=inode > 0)
                    if time.monotonic_ns() >= end_ns:
                        return
                elif b"-" in head and not head.endswith(b":"):
                    low, _, high = head.partition(b"-")
                    start, end, inode = int(low, 16), int(high, 16), int(rest.split(maxsplit=4)[3])
    except (OSError, ValueError, IndexError):
        return
