"""Why memory of a process cannot be watched, by what is mapped there; found out once it is known that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pydamon.linux import vm_flags
from pydamon.linux.vm_flags import FlaggedMapping
from pydamon.ops.base import Addresses, Ranges
from pydamon.spans import clipped

Count = Callable[[Addresses, Addresses], Addresses]
_BUDGET_NS = 100_000_000
UNCLEAR = "reason unknown"
_OF_FILE = "of files that other processes may map, too"  # such pages are seldom cleared
# By the flags of a mapping, the first that fits.
_REASONS = (
    ({vm_flags.HUGETLB}, "huge pages of hugetlbfs"),
    ({vm_flags.PFN_MAPPED, vm_flags.MIXED, vm_flags.IO}, "of a device or the kernel itself"),
    ({vm_flags.LOCKED}, "locked"),
    ({vm_flags.SHARED}, "shared with other processes"),
)


def reasons(pid: int, start: Addresses, end: Addresses, count: Count) -> dict[str, int]:
    """How many bytes of the ranges [start, end) of a process cannot be watched for which reason, most first.

    ``count`` gives the bytes that count of each of some ranges: what is resident, or their size.
    """
    return by_reason(np.stack([start, end], axis=1), vm_flags.flagged_mappings(pid, budget_ns=_BUDGET_NS), count)


def by_reason(ranges: Ranges, mappings: Iterable[FlaggedMapping], count: Count) -> dict[str, int]:
    """As `reasons`, of these mappings (sorted)."""
    mapped = list(mappings)
    spans = np.array([(mapping.start, mapping.end) for mapping in mapped], np.uint64).reshape(-1, 2)
    pieces = clipped(ranges, spans)
    amounts = count(pieces[:, 0], pieces[:, 1])
    found: dict[str, int] = {}
    for number, amount in zip(np.searchsorted(spans[:, 1], pieces[:, 0], "right"), amounts.tolist(), strict=True):
        unflagged = _OF_FILE if mapped[number].of_file else UNCLEAR
        reason = next((text for flags, text in _REASONS if flags & mapped[number].flags), unflagged)
        found[reason] = found.get(reason, 0) + amount
    left = int(count(ranges[:, 0], ranges[:, 1]).sum(dtype=np.uint64)) - sum(found.values())
    found[UNCLEAR] = found.get(UNCLEAR, 0) + max(left, 0)
    return dict(sorted(((text, amount) for text, amount in found.items() if amount), key=lambda item: -item[1]))
