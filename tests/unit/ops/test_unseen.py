"""Why memory cannot be watched, by what is mapped there."""

from __future__ import annotations

from typing import Any

import numpy as np

from pydamon.linux.vm_flags import FlaggedMapping
from pydamon.ops.unseen import UNCLEAR, by_reason

MIB = 1 << 20


def mapping(start: int, end: int, flags: str) -> FlaggedMapping:
    return FlaggedMapping(start * MIB, end * MIB, frozenset(flags.encode().split()))


MAPPINGS = [
    mapping(0, 10, "rd wr mr ht"),
    mapping(10, 12, "rd pf io"),
    mapping(12, 20, "rd wr sh lo"),
    mapping(20, 24, "rd wr sh"),
    mapping(30, 40, "rd wr"),
]


def spans(*pairs: tuple[int, int]) -> Any:
    return np.array(pairs, np.uint64).reshape(-1, 2) * np.uint64(MIB)


def size(start: Any, end: Any) -> Any:
    return end - start


def test_bytes_by_the_first_reason_that_fits_most_first() -> None:
    found = by_reason(spans((1, 11), (11, 18), (21, 22), (35, 36)), MAPPINGS, size)
    assert list(found.items()) == [
        ("huge pages of hugetlbfs", 9 * MIB),
        ("locked", 6 * MIB),
        ("of a device or the kernel itself", 2 * MIB),
        ("shared with other processes", MIB),
        (UNCLEAR, MIB),
    ]


def test_what_was_not_looked_at_has_no_reason() -> None:
    assert by_reason(spans((35, 50)), MAPPINGS[:2], size) == {UNCLEAR: 15 * MIB}
    assert by_reason(spans((0, 2)), [], size) == {UNCLEAR: 2 * MIB}
    assert by_reason(spans(), MAPPINGS, size) == {}


def test_what_counts_is_counted() -> None:
    """Half of each MiB is resident."""
    found = by_reason(spans((8, 12)), MAPPINGS, lambda start, end: (end - start) // np.uint64(2))
    assert found == {"huge pages of hugetlbfs": MIB, "of a device or the kernel itself": MIB}


def test_private_mappings_of_files_are_of_files_that_others_map() -> None:
    library = FlaggedMapping(0, 4 * MIB, frozenset([b"rd", b"ex"]), of_file=True)
    assert by_reason(spans((1, 3)), [library], size) == {"of files that other processes may map, too": 2 * MIB}
