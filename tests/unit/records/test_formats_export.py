"""Exports that other tools read: damo's record, text of perf script, counters for Perfetto."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import pytest
from tests.unit.cli.rich_record import rich
from tests.unit.records.format_samples import damo_object, damo_record, put, read, some, trace_text
from tests.unit.records.record_samples import START_NS, snapshot, write

from pydamon.errors import PydamonError, RequestError
from pydamon.records.formats.export import FORMATS, export
from pydamon.records.joined import open_record

REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2), (0x9000, 0xA000, 9, 1)]


def written(path: Path, kind: str) -> bytes:
    sink = io.BytesIO()
    with open_record(str(path)) as reader:
        export(reader, sink, kind)
    return sink.getvalue()


def test_damo_gets_the_layout_that_it_writes(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS[:1]), snapshot(1, REGIONS)])
    (found,) = json.loads(zlib.decompress(written(tmp_path / "r", "damo")))
    made = [(0, START_NS + (n + 1) * 10**8, rows) for n, rows in enumerate([REGIONS[:1], REGIONS])]
    for one in found["snapshots"]:
        assert one.pop("sample_interval_us") is None
    assert found == damo_object(made) | {"data_source": "pydamon"}


def test_damo_gets_one_object_per_target(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS), snapshot(0, REGIONS, target=1), snapshot(1, REGIONS)], pids=(7, 8))
    found = json.loads(zlib.decompress(written(tmp_path / "r", "damo")))
    assert [(one["target_id"], len(one["snapshots"])) for one in found] == [(0, 2), (1, 1)]


def test_damo_is_told_intervals_that_were_tuned(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS), snapshot(1, REGIONS, aggr_ns=200_000_000)])
    (found,) = json.loads(zlib.decompress(written(tmp_path / "r", "damo")))
    assert [one["sample_interval_us"] for one in found["snapshots"]] == ["5000", "10000"]
    goal = found["intervals"]["intervals_goal"]  # without one damo takes no notice of the snapshots' own intervals
    assert (goal["min_sample_us"], goal["max_sample_us"]) == ("5000", "10000")
    ages = [region["age"] for region in found["snapshots"][1]["regions"]]
    assert [age["usec"] for age in ages] == [str(age["aggr_intervals"] * 200_000) for age in ages]


def test_a_snapshot_that_was_cut_short_is_scaled_for_damo_and_back(tmp_path: Path) -> None:
    cut = snapshot(1, REGIONS)
    cut = cut.replace(aggr_us=35_000, end_ns=cut.start_ns + 35_000_000, nr_accesses=cut.nr_accesses * 7 // 20)
    write(tmp_path / "r", [snapshot(0, REGIONS), cut])
    (found,) = json.loads(zlib.decompress(written(tmp_path / "r", "damo")))
    (tmp_path / "d").write_bytes(written(tmp_path / "r", "damo"))
    # In damo all snapshots have the record's 20 samples: 7 of 7 are 20 of 20.
    assert [region["nr_accesses"]["samples"] for region in found["snapshots"][1]["regions"]][:2] == [20, 0]
    with open_record(str(tmp_path / "d")) as reader:
        again = list(reader.snapshots())[1]
    assert (again.sample_us, again.aggr_us) == (5_000, 35_000)
    assert again.nr_accesses.tolist() == cut.nr_accesses.tolist()


def test_what_the_end_cut_short_keeps_its_rates_where_its_samples_cannot_be_said(tmp_path: Path) -> None:
    short = snapshot(1, [(0x1000, 0x3000, 5, 28), (0x3000, 0x9000, 0, 9)]).replace(aggr_us=25_000)
    write(tmp_path / "r", [snapshot(0, REGIONS[:2]), short])
    (tmp_path / "text").write_bytes(written(tmp_path / "r", "perf-script"))
    first, last = read(tmp_path / "text")
    assert first[3] == REGIONS[:2]
    assert last[3] == [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]
    ((_, told),) = [one["snapshots"] for one in json.loads(zlib.decompress(written(tmp_path / "r", "damo")))]
    found = [(region["nr_accesses"]["samples"], region["age"]["usec"]) for region in told["regions"]]
    assert found == [(20, "700000"), (0, "225000")]


def test_text_is_what_perf_script_prints(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS[:1]), snapshot(1, REGIONS[:2])])
    head = "kdamond.0     0 [000]     5"
    event = "damon:damon_aggregated: target_id=0"
    assert written(tmp_path / "r", "perf-script").decode() == (
        f"{head}.100000: {event} nr_regions=1 4096-12288: 20 7\n"
        f"{head}.200000: {event} nr_regions=2 4096-12288: 20 7\n"
        f"{head}.200000: {event} nr_regions=2 12288-36864: 0 2\n"
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_text_is_read_again_as_it_was(tmp_path: Path, count: int) -> None:
    write(tmp_path / "r", [snapshot(number, REGIONS) for number in range(count)])
    assert read(put(tmp_path / "t", written(tmp_path / "r", "perf-script"))) == read(tmp_path / "r")


def test_times_between_microseconds_survive(tmp_path: Path) -> None:
    made = [(0, end_ns + 7, rows) for _, end_ns, rows in some(3)]
    path = put(tmp_path / "t", trace_text(made))
    assert written(path, "perf-script").count(b"100000007: damon:") == 3
    assert read(put(tmp_path / "u", written(path, "perf-script"))) == read(path)


@pytest.mark.parametrize("kind", ["damo", "perf-script"])
def test_ids_of_imported_targets_are_kept(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path / "t", trace_text(some(3, target=18446623435582458880)))
    data = written(path, kind)
    assert b"18446623435582458880" in (zlib.decompress(data) if kind == "damo" else data)


def test_damo_is_read_again_as_it_was(tmp_path: Path) -> None:
    path = put(tmp_path / "t", damo_record(damo_object(some(5)), damo_object(some(4, target=3, seed=2))))
    assert sorted(read(put(tmp_path / "u", written(path, "damo")))) == sorted(read(path))


def test_counters_for_perfetto(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS), snapshot(1, REGIONS[1:])])
    found = json.loads(written(tmp_path / "r", "trace-events"))
    assert found["displayTimeUnit"] == "ms"
    assert found["traceEvents"] == [
        {"name": "process_name", "ph": "M", "pid": 1234, "args": {"name": "program0 --flag"}},
        # 8 KiB with 20 of 20 and 4 KiB with 9 of 20: both accessed, the first in at least half of the samples.
        {"name": "working set", "ph": "C", "pid": 1234, "ts": 5_100_000.0, "args": {"bytes": 12288}},
        {"name": "hot", "ph": "C", "pid": 1234, "ts": 5_100_000.0, "args": {"bytes": 8192}},
        {"name": "working set", "ph": "C", "pid": 1234, "ts": 5_200_000.0, "args": {"bytes": 4096}},
        {"name": "hot", "ph": "C", "pid": 1234, "ts": 5_200_000.0, "args": {"bytes": 0}},
    ]


def test_counters_of_the_footprint(tmp_path: Path) -> None:
    from tests.unit.records.record_samples import metadata

    from pydamon.records.writer import RecordWriter

    with RecordWriter(tmp_path / "r", metadata=metadata(1234)) as writer:
        writer.add_snapshot(snapshot(0, REGIONS))
        row = {"time_ns": START_NS, "target": 0, "virtual_bytes": 9, "resident_bytes": 5, "swap_bytes": 2}
        writer.add_rows("footprint", [row])
    last = json.loads(written(tmp_path / "r", "trace-events"))["traceEvents"][-1]
    assert last == {"name": "memory", "ph": "C", "pid": 1234, "ts": 5_000_000.0, "args": {"resident": 5, "swap": 2}}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_record_without_snapshots_is_an_error(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "r", [])
    with pytest.raises(PydamonError, match="holds no snapshot"):
        written(tmp_path / "r", kind)


def test_a_format_that_is_none(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, REGIONS)])
    with pytest.raises(RequestError, match="format: 'doc' is none of damo, perf-script, parquet"):
        written(tmp_path / "r", "doc")


@pytest.mark.parametrize("kind", ["damo", "jsonl"])
def test_regions_tell_the_hits_of_their_probes(tmp_path: Path, kind: str) -> None:
    # Two probes over three regions: 20 and 0, 10 and 20, 0 and 20 hits in each snapshot.
    path = rich(tmp_path / "r", seconds=1)
    data = written(path, kind)
    if kind == "damo":
        (record,) = json.loads(zlib.decompress(data))
        regions = [region for snapshot in record["snapshots"] for region in snapshot["regions"]]
    else:
        regions = [json.loads(line) for line in data.splitlines()]
    assert [region["probe_hits"] for region in regions] == [[20, 0], [10, 20], [0, 20]] * 10
    again = tmp_path / "again"
    again.write_bytes(data)
    with open_record(str(path)) as before, open_record(str(again)) as after:
        assert [snapshot.nr_accesses.tolist() for snapshot in after.snapshots()] == [
            snapshot.nr_accesses.tolist() for snapshot in before.snapshots()
        ]


def test_csv_and_trace_text_tell_what_probes_hit_and_are_read_again(tmp_path: Path) -> None:
    rich(tmp_path / "r", seconds=1)
    with_hits = [[20, 0], [10, 20], [0, 20]]
    lines = written(tmp_path / "r", "csv").decode().splitlines()
    assert lines[0].endswith(",probe_hits")
    assert [line.rpartition(",")[2] for line in lines[1:]] == [" ".join(map(str, hits)) for hits in with_hits] * 10
    with open_record(str(tmp_path / "r")) as reader:
        regions = [snapshot.start.tolist() for snapshot in reader.snapshots()]
    for kind in ("csv", "perf-script"):
        (tmp_path / kind).write_bytes(written(tmp_path / "r", kind))
        with open_record(str(tmp_path / kind)) as reader:
            assert [snapshot.start.tolist() for snapshot in reader.snapshots()] == regions
    text = (tmp_path / "perf-script").read_text().splitlines()
    assert sum("damon:damon_aggregated:" in line for line in text) == 30
    probed = [line for line in text if "damon:damon_region_aggregated:" in line]
    assert [line.partition(" probe_hits=")[2] for line in probed] == ["14 00", "0a 14", "00 14"] * 10
