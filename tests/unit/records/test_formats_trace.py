"""Text of ``perf script`` and ``trace-cmd report``: every line is taken, and taken right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.records.format_samples import (
    AGGR_NS,
    STYLES,
    expected,
    line,
    put,
    read,
    read_with_warnings,
    some,
    trace_text,
)

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.records import trace_text as trace_text_writer
from pydamon.records.formats import trace_lines
from pydamon.records.formats.trace_lines import LineParser
from pydamon.records.joined import open_record


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("age", [True, False])
def test_every_style_is_read(tmp_path: Path, style: str, age: bool) -> None:
    made = some(4)
    path = put(tmp_path / "t", trace_text(made, style=style, age=age))
    assert read(path) == expected(made, age=age)


def test_the_seeds_of_the_formats_description(tmp_path: Path) -> None:
    # The two example lines of the description of the format, made complete snapshots of one region.
    text = (
        "    kdamond.0  4452 [000] 82820.952659: damon:damon_aggregated: target_id=18446623435582458880 nr_regions=1"
        " 94253027950592-94253031862272: 0\n"
        "    kdamond.0    58 [001]   103.201908: damon:damon_aggregated: target_id=0 nr_regions=1"
        " 4194304-12091392: 1 12\n"
    )
    assert read(put(tmp_path / "t", text)) == [
        (0, 82820852659000, 82820952659000, [(94253027950592, 94253031862272, 0, 0)]),
        (1, 103101908000, 103201908000, [(4194304, 12091392, 1, 12)]),
    ]


def test_the_time_of_a_snapshot_is_that_of_its_first_line(tmp_path: Path) -> None:
    made = some(5)
    assert read(put(tmp_path / "t", trace_text(made, spread=True))) == expected(made)


def test_the_first_snapshot_lasts_as_long_as_the_second(tmp_path: Path) -> None:
    made = [(0, end_ns, [(4096, 8192, 1, 1)]) for end_ns in (10**9, 10**9 + 250_000_000, 10**9 + 400_000_000)]
    found = read(put(tmp_path / "t", trace_text(made)))
    assert [(start, end) for _, start, end, _ in found] == [
        (750_000_000, 1_000_000_000),
        (1_000_000_000, 1_250_000_000),
        (1_250_000_000, 1_400_000_000),
    ]


def test_the_only_snapshot_lasts_until_damos_mark(tmp_path: Path) -> None:
    made = some(1)
    mark = f"kdamond.0 0 [000] {(made[0][1] + 70_000_000) / 1e9:.6f}: damon:damon_aggregated: target_id=0 nr_regions=1"
    found = read(put(tmp_path / "t", trace_text(made) + mark + " 0-0: -1 -1\n"))
    assert [(end - start, regions) for _, start, end, regions in found] == [(70_000_000, made[0][2])]


def test_interleaved_targets_are_told_apart(tmp_path: Path) -> None:
    ones, others = some(3, target=18446623435582458880), some(3, target=7, first_ns=5_140_000_000, seed=2)
    mixed = [made for pair in zip(ones, others, strict=True) for made in pair]
    found = read(put(tmp_path / "t", trace_text(mixed)))
    assert [one for one in found if one[0] == 0] == expected(ones)
    assert [one[3] for one in found if one[0] == 1] == [made[2] for made in others]


def test_targets_are_described_by_their_ids(tmp_path: Path) -> None:
    from pydamon.records.joined import open_record

    path = put(tmp_path / "t", trace_text([*some(1, target=99), *some(1, target=4, first_ns=6 * 10**9)]))
    with open_record(str(path)) as reader:
        assert [(t.target, t.command) for t in reader.info.targets] == [(0, "target_id=99"), (1, "target_id=4")]


def test_other_lines_between_are_passed_over_and_counted(tmp_path: Path) -> None:
    made = some(4)
    lines = trace_text(made).splitlines(keepends=True)
    other = "kdamond.0  4452 [000] 82820.952659: damon:damos_before_apply: ctx_idx=0 nr_regions=8 4096-8192: 0 12\n"
    lines[2:2] = ["# a comment\n", "\n", other]
    lines[7:7] = ["swapper 0 [001] 5.2: sched:sched_switch: prev_comm=swapper/1\n"]
    found, warnings = read_with_warnings(put(tmp_path / "t", "# header of perf\n#\n" + "".join(lines)))
    assert found == expected(made)
    assert warnings[1:] == ["2 lines of other events passed over"]


def test_line_ends_of_windows_and_a_last_line_without_one(tmp_path: Path) -> None:
    made = some(3)
    assert read(put(tmp_path / "t", trace_text(made).replace("\n", "\r\n").removesuffix("\r\n"))) == expected(made)


def test_styles_may_change_in_the_middle(tmp_path: Path) -> None:
    made = some(6)
    text = trace_text(made[:2]) + trace_text(made[2:4], style="trace-cmd") + trace_text(made[4:])
    assert read(put(tmp_path / "t", text)) == expected(made)


def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydamon.records.formats import input_file as source

    made = some(8, regions=5)
    path = put(tmp_path / "t", trace_text(made))
    for size in (150, 333, 1024):
        monkeypatch.setattr(source, "CHUNK_BYTES", size)
        assert read(path, sample_us=5000, aggr_us=100_000) == expected(made)


def test_intervals_are_inferred_and_said(tmp_path: Path) -> None:
    # 104 ms between snapshots is what an interval of 100 ms takes.
    made = [(0, 10**9 + number * 104_000_000, [(4096, 8192, 3, 1)]) for number in range(5)]
    from pydamon.records.joined import open_record

    with open_record(str(put(tmp_path / "t", trace_text(made)))) as reader:
        one = next(reader.snapshots())
        assert (one.sample_us, one.aggr_us) == (5_000, 100_000)
        said = (
            "aggregation interval 100 ms (from the time between snapshots), "
            "sampling interval 5 ms (assumed: 20 in an aggregation)"
        )
        assert reader.warnings() == [f"{reader.path}: read as trace text: {said}"]
        assert reader.info.primitive_reason == f"imported from t (trace text); {said}"
        assert reader.info.spec["imported"] == {"format": "trace text", "file": "t", "intervals": said}


def test_more_accesses_than_20_are_believed(tmp_path: Path) -> None:
    made = [(0, 10**9 + n * AGGR_NS, [(4096, 8192, 3 if n < 9 else 40, 1)]) for n in range(10)]
    from pydamon.records.joined import open_record

    with open_record(str(put(tmp_path / "t", trace_text(made)))) as reader:
        found = list(reader.snapshots())
    assert {(one.sample_us, one.aggr_us) for one in found} == {(2_500, 100_000)}
    assert found[-1].nr_accesses.tolist() == [40]


def test_more_accesses_than_were_foreseen_make_it_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydamon.records.formats import input_file as source
    from pydamon.records.formats import trace_text

    monkeypatch.setattr(source, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(trace_text, "_PROBE_BYTES", 500)
    made = [(0, 10**9 + n * AGGR_NS, [(4096, 8192, 3 if n < 99 else 40, 1)]) for n in range(100)]
    found, warnings = read_with_warnings(put(tmp_path / "t", trace_text_of(made)))
    assert (len(found), found[-1][3]) == (100, [(4096, 8192, 40, 1)])
    assert "sampling interval 2.5 ms (from 40 accesses in a snapshot)" in warnings[0]


trace_text_of = trace_text


def test_intervals_that_the_user_tells_are_taken(tmp_path: Path) -> None:
    from pydamon.records.formats.foreign import Hints
    from pydamon.records.joined import open_record

    path = put(tmp_path / "t", trace_text(some(3)))
    with open_record(str(path), hints=Hints(sample_us=1000, aggr_us=50_000)) as reader:
        one = next(reader.snapshots())
        assert (one.sample_us, one.aggr_us) == (1000, 50_000)
        assert "(as told)" in reader.warnings()[0]


_NUMBER = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(_NUMBER, st.integers(1, 1 << 20), _NUMBER, _NUMBER, st.integers(0, 2**32 - 2), st.integers(0, 2**32)),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.sampled_from(sorted(STYLES)), min_size=1, max_size=2),
)
def test_fast_parsing_agrees_with_the_expression(
    rows: list[tuple[int, int, int, int, int, int]], styles: list[str]
) -> None:
    """Columns that are cut at once are what the regular expression finds in each line."""
    text = "".join(
        STYLES[styles[number % len(styles)]].format(time=f"{number}.{number:06d}")
        + f"target_id={target} nr_regions={count} {start}-{end}: {nr} {age}\n"
        for number, (target, count, start, end, nr, age) in enumerate(rows)
    ).encode()
    parser = LineParser()
    found = parser.parse(text)
    each = [trace_lines._LINE.fullmatch(one) for one in text.splitlines(keepends=True)]
    good = [row for one in each if one is not None and (row := trace_lines._row(one)) is not None]
    assert list(zip(*(column.tolist() for column in found.columns()), strict=True)) == good
    assert parser.counts.damaged == len(rows) - len(good)


def test_one_line_of_each_form_is_enough_for_the_rest() -> None:
    parser = LineParser()
    text = trace_text(some(50)).encode()
    parser.parse(text)
    assert len(parser._templates) == 1
    assert parser.counts.regions == 150


def test_a_line_is_what_the_reader_takes() -> None:
    made = some(1)[0]
    assert line(made, made[2][0]).startswith("kdamond.0  4452 [000]     5.100000: damon:damon_aggregated: target_id=0 ")


def _tuned_text(*, before: bool) -> str:
    """Snapshots of 100, 100, 200, 400 ms; the events that tell of the changes come ``before`` a snapshot's lines or
    behind them, a few microseconds away."""
    lines, now = [], 500_000_000
    changes = {1: 10_000, 2: 20_000}  # at the end of this snapshot the interval becomes that
    for number, step in enumerate((100_000, 100_000, 200_000, 400_000)):
        now += step
        region = f"k 1 [0] {now / 1e6:.6f}: damon:damon_aggregated: target_id=0 nr_regions=1 4096-8192: 20 9"
        if number in changes:
            at = (now - 9 if before else now + 9) / 1e6
            event = f"k 1 [0] {at:.6f}: damon:damon_monitor_intervals_tune: sample_us={changes[number]}"
            lines += [event, region] if before else [region, event]
        else:
            lines.append(region)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("before", [True, False])
def test_what_comes_after_a_change_is_of_the_tuned_interval(tmp_path: Path, before: bool) -> None:
    with open_record(str(put(tmp_path / "t", _tuned_text(before=before)))) as reader:
        found = [(s.sample_us, s.aggr_us) for s in reader.snapshots()]
        assert not any("other events" in warning for warning in reader.warnings())
    assert found == [(5_000, 100_000)] * 2 + [(10_000, 200_000), (20_000, 400_000)]


def test_a_trace_that_begins_with_a_change_has_its_number_of_samples(tmp_path: Path) -> None:
    text = "k 1 [0] 1.000000: damon:damon_monitor_intervals_tune: sample_us=50000\n"
    for second in (2, 3, 4):
        text += f"k 1 [0] {second}.010000: damon:damon_aggregated: target_id=0 nr_regions=1 4096-8192: 20 9\n"
    with open_record(str(put(tmp_path / "t", text))) as reader:
        assert [(s.sample_us, s.aggr_us) for s in reader.snapshots()] == [(50_000, 1_000_000)] * 3


def test_our_own_trace_of_tuned_intervals_comes_back(tmp_path: Path) -> None:
    made = [(0, end_ns, [(4096, 8192, 5, 1)]) for end_ns in (10**9, 11 * 10**8, 13 * 10**8, 15 * 10**8)]
    intervals = [(5_000, 100_000)] * 2 + [(10_000, 200_000)] * 2
    writer = trace_text_writer.Writer()
    text, begun = "", 9 * 10**8
    for (target, end_ns, regions), (sample_us, aggr_us) in zip(made, intervals, strict=True):
        start, end = (np.array(column, np.uint64) for column in list(zip(*regions, strict=True))[:2])
        nr, age = (np.array(column, np.uint32) for column in list(zip(*regions, strict=True))[2:])
        if aggr_us == 200_000 and "tune" not in text:
            text += writer.tuned(begun, sample_us)
        text += writer.aggregated(
            Snapshot(target, begun, end_ns, sample_us, aggr_us, start=start, end=end, nr_accesses=nr, age=age)
        )
        begun = end_ns
    with open_record(str(put(tmp_path / "t", text))) as reader:
        assert [(s.sample_us, s.aggr_us) for s in reader.snapshots()] == intervals


def test_events_of_regions_with_probes_are_read(tmp_path: Path) -> None:
    # The line of the kernel's damon_region_aggregated event (7.2), as in its format file.
    text = "".join(
        f"k 9 [1] 500.{n}00000: damon:damon_region_aggregated: target_id=0 nr_regions=2 {region}\n"
        for n in (1, 2, 3)
        for region in ("4096-8192: 0 14 probe_hits=03 00", "8192-16384: 7 3 probe_hits=12 0f")
    )
    found = read(put(tmp_path / "t", text))
    assert [regions for *_, regions in found] == [[(4096, 8192, 0, 14), (8192, 16384, 7, 3)]] * 3


def test_where_both_events_were_traced_regions_are_taken_once(tmp_path: Path) -> None:
    made = some(3)
    text = trace_text(made)
    probed = text.replace("damon_aggregated", "damon_region_aggregated").replace("\n", " probe_hits=01\n")
    assert read(put(tmp_path / "t", text + probed)) == expected(made)


def test_lines_with_dates_are_read(tmp_path: Path) -> None:
    # perf script -F comm,tid,cpu,tod,event,trace
    text = "".join(
        f"kdamond.0 4 [0] 2026-01-01 0{h}:59:59.{f} damon:damon_aggregated: target_id=0 nr_regions=1 4096-8192: 3 1\n"
        for h, f in ((0, "900000"), (1, "000000"))
    )
    (_, _, first, _), (_, _, second, _) = read(put(tmp_path / "t", text))
    assert second - first == 3599_100_000_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "k 9 [0] 1.5: damon:damos_before_apply: ctx_idx=0 scheme_idx=0 target_idx=0 nr_regions=2 4096-8192: 0 3",
            "what schemes were tried on",
        ),
        ("k 9 [0] 1.5: damon:damos_esz: ctx_idx=0 scheme_idx=0 esz=4096", "quotas of schemes"),
        (
            " 0.000 kdamond.0/58 damon:damon_aggregated(target_id: 0, nr_regions: 1, start: 4096, end: 8192, age: 1)",
            "perf trace",
        ),
    ],
)
def test_text_of_something_else_is_called_what_it_is(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(PydamonError, match=why) as refused:
        read(put(tmp_path / "t", f"{text}\n" * 3))
    assert "record with perf" not in str(refused.value)
