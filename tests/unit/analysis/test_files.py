"""Files that several targets map: each part once, as hot as its hottest user has it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.files import FileUse, uses
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping

MIB = 1 << 20
AT = (0x7F00_0000_0000, 0x5500_0000_0000)  # where each target maps the file
ACCESSED, IDLE = 20, 0
OLD = 200  # aggregations of 100 ms: 20 s, longer than what is warm


def of_file(start: int, size: int, offset: int = 0, perms: str = "r--s", inode: int = 7, name: str = "/f") -> Mapping:
    return Mapping(start, start + size, perms, offset, inode, name)


def parts(target: int, *rows: tuple[int, int, int, int]) -> Snapshot:
    """Regions from (start and end in MiB of the mapping, accesses, age)."""
    at = AT[target]
    return snapshot(0, [(at + a * MIB, at + b * MIB, nr, age) for a, b, nr, age in rows]).replace(target=target)


def test_what_two_share_counts_once_and_the_hotter_one_decides() -> None:
    one = parts(0, (0, 2, ACCESSED, 0), (2, 8, IDLE, OLD))
    # The second maps the file from 4 MiB on: its first MiB is MiB 4 of the file.
    two = parts(1, (0, 1, ACCESSED, 0), (1, 2, IDLE, 50), (2, 6, IDLE, OLD))
    (use,) = uses(
        [
            (0, one, [of_file(AT[0], 8 * MIB)]),
            (1, two, [of_file(AT[1], 6 * MIB, offset=4 * MIB)]),
        ]
    )
    assert use == FileUse(
        "/f", 7, {0, 1}, mapped=10 * MIB, hot=3 * MIB, warm=1 * MIB, cold=6 * MIB, unknown=0, summed=14 * MIB
    )


def test_what_one_could_not_watch_is_cold_for_nobody_and_hot_if_another_uses_it() -> None:
    one = parts(0, (0, 4, ACCESSED, 0), (4, 8, IDLE, OLD))
    two = parts(1, (0, 8, 0, 0)).replace(unknown=np.array([20], np.uint32))
    (use,) = uses([(0, one, [of_file(AT[0], 8 * MIB)]), (1, two, [of_file(AT[1], 8 * MIB)])])
    assert (use.hot, use.cold, use.unknown, use.summed) == (4 * MIB, 0, 4 * MIB, 8 * MIB)


def test_what_is_resident_of_it_is_that_of_whom_has_most() -> None:
    one = parts(0, (0, 8, IDLE, OLD)).replace(resident=np.array([2 * MIB], np.uint64))
    two = parts(1, (0, 8, IDLE, OLD)).replace(resident=np.array([6 * MIB], np.uint64))
    (use,) = uses([(0, one, [of_file(AT[0], 8 * MIB)]), (1, two, [of_file(AT[1], 8 * MIB)])])
    assert (use.cold, use.summed, use.mapped) == (6 * MIB, 8 * MIB, 8 * MIB)


def test_private_copies_stay_with_their_processes() -> None:
    mappings = [
        of_file(AT[0], 2 * MIB, perms="r-xp"),
        of_file(AT[0] + 2 * MIB, MIB, offset=2 * MIB, perms="rw-p"),
    ]
    (use,) = uses([(0, parts(0, (0, 3, ACCESSED, 0)), mappings)])
    assert (use.hot, use.mapped, use.private) == (2 * MIB, 2 * MIB, MIB)


def test_files_of_one_name_and_other_inodes_are_others_and_anonymous_memory_is_none() -> None:
    mappings = [
        of_file(AT[0], MIB),
        of_file(AT[0] + MIB, 2 * MIB, inode=8),
        Mapping(AT[0] + 3 * MIB, AT[0] + 4 * MIB, "rw-p", 0, 0, "[heap]"),
    ]
    found = uses([(0, parts(0, (0, 4, ACCESSED, 0)), mappings)])
    assert [(use.inode, use.hot) for use in found] == [(8, 2 * MIB), (7, MIB)]
    assert uses([(0, parts(0, (0, 4, 1, 0)), [])]) == []


def test_the_same_is_said_page_by_page() -> None:
    """Against a literal computation: a dictionary of pages."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        looked_at = []
        state: dict[int, list[int]] = {}
        for target in (0, 1):
            bounds = [0, *sorted(rng.choice(np.arange(1, 16), 4, replace=False).tolist()), 16]
            rows = [(a, b, int(rng.integers(2)) * 5, int(rng.choice([10, OLD]))) for a, b in pairwise(bounds)]
            offset = int(rng.integers(8))
            looked_at.append((target, parts(target, *rows), [of_file(AT[target], 16 * MIB, offset * MIB)]))
            for a, b, nr, age in rows:
                for mib in range(a + offset, b + offset):
                    state.setdefault(mib, []).append(-1 if nr else age)
        (use,) = uses(looked_at)
        hottest = [min(users) for users in state.values()]
        assert use.mapped == len(state) * MIB
        assert use.hot == hottest.count(-1) * MIB
        assert use.warm == hottest.count(10) * MIB
        assert use.cold == hottest.count(OLD) * MIB


def test_hostile_offsets_are_only_numbers() -> None:
    with np.errstate(all="raise"):
        (use,) = uses([(0, parts(0, (0, 1, 1, 0)), [of_file(AT[0], MIB, offset=(1 << 64) - 4096)])])
    assert use.summed == MIB


@pytest.mark.parametrize("perms", ["", "r", "????"])
def test_unknown_permissions_are_no_private_copies(perms: str) -> None:
    (use,) = uses([(0, parts(0, (0, 1, 1, 0)), [of_file(AT[0], MIB, perms=perms)])])
    assert (use.hot, use.private) == (MIB, 0)
