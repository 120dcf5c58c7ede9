"""Trace events as text: the lines of perf script, from snapshots and from records."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pydamon.core.scheme_state import SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.records.hits import hits_table, of_snapshot
from pydamon.records.joined import open_record
from pydamon.records.schema import build_metadata
from pydamon.records.trace_text import EVENTS, Writer, of_record
from pydamon.records.writer import RecordWriter

S = 1_000_000_000


def snapshot(end_ns: int, regions: list[tuple[int, int, int, int]], target: int = 0, sample_us: int = 5000) -> Snapshot:
    start, end, nr, age = (np.array(column) for column in zip(*regions, strict=True))
    return Snapshot(
        target, end_ns - 100_000_000, end_ns, sample_us, 20 * sample_us,
        start.astype(np.uint64), end.astype(np.uint64), nr.astype(np.uint32), age.astype(np.uint32),
    )  # fmt: skip


def test_a_region_is_the_line_of_the_kernels_documents() -> None:
    # Documentation/admin-guide/mm/damon/usage.rst, "Tracepoints for monitoring results", with perf's leading spaces.
    line = "       kdamond.0 46568 [027] 79357.842179: damon:damon_aggregated: target_id=0 nr_regions=11 "
    line += "122509119488-135708762112: 0 864\n"
    regions = [(122509119488, 135708762112, 0, 864)] * 11
    text = Writer(pid=46568, cpu=27).aggregated(snapshot(79357 * S + 842_179_999, regions))
    assert text == line * 11


def test_times_are_cut_to_microseconds_and_right_aligned_as_by_perf() -> None:
    text = Writer(pid=58, cpu=1).aggregated(snapshot(103 * S + 201_908_000, [(4194304, 12091392, 1, 12)]))
    assert text == (
        "       kdamond.0    58 [001]   103.201908: damon:damon_aggregated: "
        "target_id=0 nr_regions=1 4194304-12091392: 1 12\n"
    )


def test_the_other_events_have_the_kernels_texts() -> None:
    writer = Writer(pid=7)
    head = "       kdamond.0     7 [000]     1.000000: damon:"
    one = (np.array([4096], np.uint64), np.array([8192], np.uint64), np.array([3]), np.array([9]))
    assert writer.before_apply(S, 2, 1, 15, *one) == (
        f"{head}damos_before_apply: ctx_idx=0 scheme_idx=2 target_idx=1 nr_regions=15 4096-8192: 3 9\n"
    )
    assert writer.tuned(S, 5000) == f"{head}damon_monitor_intervals_tune: sample_us=5000\n"
    assert writer.esz(S, 1, 4096) == f"{head}damos_esz: ctx_idx=0 scheme_idx=1 esz=4096\n"
    assert writer.esz(S, 1, None).endswith("esz=18446744073709551615\n")  # ULONG_MAX
    # "sz_tried" twice: so does the kernel's own format.
    assert writer.stat(S, 0, SchemeStats(1, 2, 3, 4, 5, 6, 7)) == (
        f"{head}damos_stat_after_apply_interval: ctx_idx=0 scheme_idx=0 nr_tried=1 sz_tried=2 nr_applied=3 sz_tried=4 "
        "sz_ops_filter_passed=5 qt_exceeds=6 nr_snapshots=7\n"
    )


def test_the_hits_of_probes_are_written_as_the_kernel_does() -> None:
    # The fields are those of damo 3.4.3's own test of its reader (test_damo_report_trace.py): a byte per probe, in hex.
    fields = "target_id=0 nr_regions=1 8354394112-8372879360: 0 600 probe_hits=13 00"
    one = snapshot(S, [(8354394112, 8372879360, 0, 600)])
    text = Writer(pid=7).probed(S, 0, one.start, one.end, one.nr_accesses, one.age, np.array([[0x13], [0]]))
    assert text == f"       kdamond.0     7 [000]     1.000000: damon:damon_region_aggregated: {fields}\n"
    many = Writer().probed(S, 0, one.start, one.end, one.nr_accesses, one.age, np.array([[1000]]))
    assert many.endswith("probe_hits=ff\n")


def test_the_hits_of_a_record_are_printed(tmp_path: Path) -> None:
    path = str(tmp_path / "run.damon")
    counted = {"probe_hits": np.array([[20, 1]], np.uint32), "probe_samples": np.array([20, 20], np.uint32)}
    one = snapshot(S, [(4096, 8192, 3, 1), (8192, 65536, 0, 5)]).replace(**counted)
    with RecordWriter(path, metadata=build_metadata(targets=[{"target": 0}])) as writer:
        writer.add_snapshot(one)
        writer.add_table("probe_hits", hits_table([of_snapshot(one, ["anon"])]), time_ns=S)
    with open_record(path) as reader:
        lines = "".join(of_record(reader, ["damon_region_aggregated"])).splitlines()
    assert [line.partition("aggregated: ")[2] for line in lines] == [
        "target_id=0 nr_regions=2 4096-8192: 3 1 probe_hits=14",
        "target_id=0 nr_regions=2 8192-65536: 0 5 probe_hits=01",
    ]


def test_addresses_of_64_bits_are_written_whole() -> None:
    text = Writer().aggregated(snapshot(S, [(2**64 - 8192, 2**64 - 4096, 20, 2**32 - 1)]))
    assert "18446744073709543424-18446744073709547520: 20 4294967295" in text


@pytest.fixture
def record(tmp_path: Path) -> str:
    """Two targets; the intervals change in the third aggregation; one scheme, noted once a second."""
    path = str(tmp_path / "run.damon")
    one, two = [(4096, 8192, 3, 1), (8192, 65536, 0, 5)], [(4096, 12288, 20, 0)]
    with RecordWriter(path, metadata=build_metadata(targets=[{"target": 0}, {"target": 1}])) as writer:
        for tenth in range(1, 4):
            sample_us = 5000 if tenth < 3 else 10_000
            writer.add_snapshot(snapshot(tenth * S // 10, one, sample_us=sample_us))
            writer.add_snapshot(snapshot(tenth * S // 10, two, target=1, sample_us=sample_us))
            if tenth == 2:
                row = {
                    "time_ns": 2 * S // 10, "scheme": 0, "name": "", "action": "stat", "active": True, "nr_tried": 3,
                    "sz_tried": 65536, "nr_applied": 0, "sz_applied": 0, "sz_ops_filter_passed": 65536, "qt_exceeds": 0,
                    "nr_snapshots": 1, "effective_bytes": 4096,
                }  # fmt: skip
                writer.add_rows("schemes", [row], time_ns=2 * S // 10)
                tried = {
                    "time_ns": [2 * S // 10] * 3, "scheme": [0] * 3, "target": [0, 0, 1], "start": [4096, 8192, 4096],
                    "end": [8192, 65536, 12288], "nr_accesses": [3, 0, 20], "age": [1, 5, 0],
                    "sz_applied": [0] * 3, "sz_filter_passed": [1] * 3,
                }  # fmt: skip
                writer.add_table("tried_regions", pa.table(tried), time_ns=2 * S // 10)
    return path


def test_a_record_is_printed_in_the_order_of_time(record: str) -> None:
    with open_record(record) as reader:
        lines = "".join(of_record(reader, EVENTS)).splitlines()
    short = [re.sub(r"^ +kdamond\.0 +0 \[000\] +", "", line).replace("damon:", "", 1) for line in lines]
    assert short == [
        "0.100000: damon_aggregated: target_id=0 nr_regions=2 4096-8192: 3 1",
        "0.100000: damon_aggregated: target_id=0 nr_regions=2 8192-65536: 0 5",
        "0.100000: damon_aggregated: target_id=1 nr_regions=1 4096-12288: 20 0",
        "0.200000: damon_aggregated: target_id=0 nr_regions=2 4096-8192: 3 1",
        "0.200000: damon_aggregated: target_id=0 nr_regions=2 8192-65536: 0 5",
        "0.200000: damon_aggregated: target_id=1 nr_regions=1 4096-12288: 20 0",
        "0.200000: damos_before_apply: ctx_idx=0 scheme_idx=0 target_idx=0 nr_regions=2 4096-8192: 3 1",
        "0.200000: damos_before_apply: ctx_idx=0 scheme_idx=0 target_idx=0 nr_regions=2 8192-65536: 0 5",
        "0.200000: damos_before_apply: ctx_idx=0 scheme_idx=0 target_idx=1 nr_regions=1 4096-12288: 20 0",
        "0.200000: damos_esz: ctx_idx=0 scheme_idx=0 esz=4096",
        "0.200000: damos_stat_after_apply_interval: ctx_idx=0 scheme_idx=0 nr_tried=3 sz_tried=65536 nr_applied=0 "
        "sz_tried=0 sz_ops_filter_passed=65536 qt_exceeds=0 nr_snapshots=1",
        "0.200000: damon_monitor_intervals_tune: sample_us=10000",
        "0.300000: damon_aggregated: target_id=0 nr_regions=2 4096-8192: 3 1",
        "0.300000: damon_aggregated: target_id=0 nr_regions=2 8192-65536: 0 5",
        "0.300000: damon_aggregated: target_id=1 nr_regions=1 4096-12288: 20 0",
    ]


def test_only_the_wanted_events_are_printed(record: str) -> None:
    with open_record(record) as reader:
        assert "".join(of_record(reader)).count("damon_aggregated") == 9
        assert "".join(of_record(reader, ["damos_esz"])).count("\n") == 1
        assert "".join(of_record(reader, ["damon_monitor_intervals_tune"])).count("\n") == 1
