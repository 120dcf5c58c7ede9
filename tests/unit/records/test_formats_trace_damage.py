"""Traces that are cut, damaged or absurd: an error in one line, or what is valid with a count of what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.records.format_samples import expected, put, read, read_with_warnings, some, trace_text

from pydamon.errors import PydamonError


@pytest.mark.slow
def test_cut_at_every_byte_leaves_the_whole_snapshots(tmp_path: Path) -> None:
    made = some(2, regions=2)
    text = trace_text(made, style="perf, time only")
    ends = [len(trace_text(made[: n + 1], style="perf, time only")) for n in range(2)]
    # The last digits of a snapshot may be gone without anybody noticing: its end is where its newline or more is cut.
    for size in range(len(text)):
        path = put(tmp_path / "t", text[:size])
        whole = sum(size >= end - 1 for end in ends)
        try:
            found = read(path, sample_us=5000, aggr_us=100_000)
        except PydamonError as error:
            assert "\n" not in str(error)
            assert whole == 0
        else:
            assert found[:whole] == expected(made)[:whole]
            assert len(found) - whole in (0, 1)


def test_flipped_bits_are_left_out_or_change_one_snapshot(tmp_path: Path) -> None:
    made = some(6, regions=2)
    good = expected(made)
    data = trace_text(made).encode()
    rng = np.random.default_rng(3)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        try:
            found = read(put(tmp_path / "t", bytes(damaged)), sample_us=5000, aggr_us=100_000)
        except PydamonError as error:
            assert "\n" not in str(error)
        else:
            # A flip changes one snapshot and the beginning of the next; a flipped target id gives a target of its own.
            assert sum(one in found for one in good) >= 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; it is not a pydamon record"),
        (b"\0\1\2\3" * 5000, "is not a pydamon record"),
        (np.random.default_rng(0).bytes(100_000), "is not a pydamon record"),
        (b"hello\n" * 1000, "is not a pydamon record"),
        (b"x 1 [000] 5.1: sched:sched_switch: prev_comm=x\n", "holds no damon_aggregated event"),
        (b"x 1 [000] 5.1: damon:damon_aggregated: target_id=x\n", "its damon_aggregated lines cannot be understood"),
        (b"x 1 [000] nan: damon:damon_aggregated: target_id=0 nr_regions=1 1-2: 3\n", "cannot be understood"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=9 1-2: 3\n", "holds no whole snapshot, only 1 region lines"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=0 1-2: 3\n", "cannot be understood"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=1 5-2: 3\n", "1 impossible region left out"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=1 -5-2: 3\n", "cannot be understood"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=1 1-18446744073709551616: 3\n", "cannot be understood"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=1 1-2: 99999999999\n", "cannot be understood"),
        (b"1.1: damon_aggregated: target_id=0 nr_regions=1 1-2: " + b" " * 100_000 + b"\n", "cannot be understood"),
    ],
)
def test_what_holds_nothing_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(PydamonError) as caught:
        read(put(tmp_path / "t", content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_damaged_lines_are_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    made = some(3)
    lines = trace_text(made).splitlines(keepends=True)
    lines[4] = lines[4].replace("nr_regions=3", "nr_regions=x")
    found, warnings = read_with_warnings(put(tmp_path / "t", "".join(lines)))
    assert [one[3] for one in found] == [made[0][2], made[2][2]]
    assert warnings[1].startswith("1 damaged line left out, the first: 'kdamond.0  4452 [000]")
    assert warnings[2] == "1 incomplete snapshot (2 lines) left out"


def test_lost_lines_cost_their_snapshot_only(tmp_path: Path) -> None:
    made = some(6, regions=4)
    lines = trace_text(made, spread=True).splitlines(keepends=True)
    del lines[9:11]
    found, warnings = read_with_warnings(put(tmp_path / "t", "".join(lines)))
    good = expected(made)
    assert found == good[:2] + good[3:]
    assert warnings[1] == "1 incomplete snapshot (2 lines) left out"


def test_an_overlapping_region_costs_itself_only(tmp_path: Path) -> None:
    regions = [(0x1000, 0x5000, 1, 1), (0x4000, 0x6000, 2, 2), (0x7000, 0x8000, 3, 3)]
    back = [(0x1000, 0x5000, 1, 1), (0x1000, 0x2000, 2, 2), (0x7000, 0x8000, 3, 3)]
    made = [(0, 10**9, regions), (0, 11 * 10**8, back), (0, 12 * 10**8, regions)]
    found, warnings = read_with_warnings(put(tmp_path / "t", trace_text(made)))
    assert [one[3] for one in found] == [[regions[0], regions[2]], [back[0], back[2]], [regions[0], regions[2]]]
    assert warnings[1].startswith("3 impossible regions left out")


def test_a_snapshot_out_of_order_is_left_out(tmp_path: Path) -> None:
    made = some(6)
    good = expected(made)
    late = (0, made[1][1] + 1_000_000, made[1][2])
    found, warnings = read_with_warnings(put(tmp_path / "t", trace_text([*made[:4], late, *made[4:]])))
    assert found == good
    assert warnings[1].startswith("1 snapshot ")


def test_a_time_that_leaps_ahead_does_not_cost_what_follows(tmp_path: Path) -> None:
    made = some(6)
    leap = (0, made[3][1] + 900 * 10**9, made[3][2])
    found, warnings = read_with_warnings(put(tmp_path / "t", trace_text([*made[:3], leap, *made[4:]])))
    assert [one[3] for one in found] == [one[2] for one in (*made[:3], *made[4:])]
    assert warnings[1] == "1 snapshot of a time far from its neighbours left out"


def test_more_targets_than_there_can_be(tmp_path: Path) -> None:
    text = "".join(f"1.1: damon_aggregated: target_id={n} nr_regions=1 1-2: 3\n" for n in range(5000))
    with pytest.raises(PydamonError, match="has more than 4096 targets"):
        read(put(tmp_path / "t", text))


def test_a_line_without_end_is_passed_over(tmp_path: Path) -> None:
    made = some(4)
    text = trace_text(made[:2]).encode() + b"x" * 3_000_000 + b"\n" + trace_text(made[2:]).encode()
    assert read(put(tmp_path / "t", text)) == expected(made)
