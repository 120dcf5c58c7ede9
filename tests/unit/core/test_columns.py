"""Columns of regions: what becomes of them where regions are chosen, cut and joined. Expected values are by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core import columns
from pydamon.core.columns import Column
from pydamon.core.snapshot import Snapshot

U64_MAX = 2**64 - 1
# The rules that no column of today has.
WORST = Column("worst", np.uint32, "", "of which the most counts", "most", "most", optional=True)


@pytest.fixture(autouse=True)
def _one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "PER_REGION", (*columns.PER_REGION, WORST))


def three(passed: list[int], worst: list[int] | None = None) -> Snapshot:
    """Regions of 1, 3 and 4 pages, the first two side by side."""
    return Snapshot(
        0, 0, 100, 5000, 100_000,
        np.array([0, 4096, 32768], np.uint64), np.array([4096, 16384, 49152], np.uint64),
        np.array([4, 8, 0], np.uint32), np.array([1, 5, 9], np.uint32),
        sz_filter_passed=np.array(passed, np.uint64),
        worst=None if worst is None else np.array(worst, np.uint32),
    )  # fmt: skip


def lists(found: dict[str, columns.Array]) -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in found.items()}


def test_a_column_that_is_not_given_is_absent() -> None:
    one = three([1, 2, 3])
    assert one.column("worst") is None
    assert "worst" not in one.columns
    assert one.replace(sz_filter_passed=None).column("sz_filter_passed") is None
    assert one.probe_hits.shape == (0, 3)


def test_a_column_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        three([1, 2, 3]).replace(colour=np.zeros(3))


def test_select_takes_all_columns_along() -> None:
    hits = np.array([[1, 2, 3], [4, 5, 6]], np.uint32)
    one = three([1, 2, 3], [7, 8, 9]).replace(probe_hits=hits, probe_samples=np.full(3, 20, np.uint32))
    found = one.select(np.array([2, 0]))
    assert (found.start.tolist(), found.age.tolist()) == ([32768, 0], [9, 1])
    assert found.columns["sz_filter_passed"].tolist() == [3, 1]
    assert found.columns["worst"].tolist() == [9, 7]
    assert found.probe_hits.tolist() == [[3, 1], [6, 4]]
    assert (found.target, found.end_ns, found.aggr_us) == (0, 100, 100_000)


def test_pieces_of_a_region_share_its_bytes_and_have_its_rates() -> None:
    one = three([4096, 8192, 5])
    bounds = np.array([4096, 8192, 12288, 16384], np.uint64)
    found = lists(columns.cut(one.columns, np.array([1, 1, 1]), bounds[:-1], bounds[1:]))
    assert found["sz_filter_passed"] == [2730, 2731, 2731]  # thirds of 8192, rounded such that nothing is lost
    assert found["nr_accesses"] == [8, 8, 8]
    assert found["age"] == [5, 5, 5]
    assert (found["start"], found["end"]) == ([4096, 8192, 12288], [8192, 12288, 16384])


def test_a_whole_region_keeps_its_bytes_exactly_and_what_is_unknown_stays_so() -> None:
    exact = 2**63 + 1  # beyond what a float can tell
    one = three([exact, U64_MAX, 0])
    low, high = one.start.copy(), one.end.copy()
    high[1] -= np.uint64(4096)
    assert columns.cut(one.columns, slice(None), low, high)["sz_filter_passed"].tolist() == [exact, U64_MAX, 0]


def test_neighbours_are_joined_by_the_rule_of_each_column() -> None:
    found = lists(columns.join(three([100, 200, 5], [7, 3, 1]).columns, np.array([0, 2])))
    assert found == {
        "start": [0, 32768],
        "end": [16384, 49152],
        "nr_accesses": [7, 0],  # (1 × 4 + 3 × 8) / 4
        "age": [4, 9],  # (1 × 1 + 3 × 5) / 4
        "sz_filter_passed": [300, 5],
        "worst": [7, 1],
    }


def test_a_sum_with_an_unknown_part_is_unknown_the_most_is_of_what_is_known() -> None:
    u32_max = 2**32 - 1
    found = lists(columns.join(three([100, U64_MAX, 5], [u32_max, 3, u32_max]).columns, np.array([0, 2])))
    assert found["sz_filter_passed"] == [U64_MAX, 5]
    assert found["worst"] == [3, u32_max]


def test_one_after_the_other_what_a_part_lacks_is_unknown() -> None:
    with_it, without = three([1, 2, 3]), three([1, 2, 3]).replace(sz_filter_passed=None)
    found = lists(columns.concatenate([with_it.columns, without.columns]))
    assert found["sz_filter_passed"] == [1, 2, 3, U64_MAX, U64_MAX, U64_MAX]
    assert "worst" not in found
    assert "sz_filter_passed" not in columns.without_unknown(columns.select(columns.concatenate(
        [with_it.columns, without.columns]), slice(3, 6)))  # fmt: skip
