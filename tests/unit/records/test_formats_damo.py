"""Records of damo: every variant of its JSON, in the order of time, and never more memory than one snapshot takes."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.records.format_samples import (
    AGGR_NS,
    Made,
    damo_object,
    damo_record,
    expected,
    put,
    read,
    read_with_warnings,
    some,
)

from pydamon.errors import PydamonError
from pydamon.records.formats.json_pieces import Head, Item, Tail, pieces
from pydamon.records.joined import open_record


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("indent", [4, None])
def test_packed_and_plain_pretty_and_compact(tmp_path: Path, packed: bool, indent: int | None) -> None:
    made = some(5)
    path = put(tmp_path / "r", damo_record(damo_object(made), indent=indent, packed=packed))
    assert read_with_warnings(path) == (expected(made), [])


def test_intervals_are_those_of_the_record(tmp_path: Path) -> None:
    intervals = {"sample_us": "2 ms", "aggr_us": "40,000", "ops_update_us": "1 s", "intervals_goal": {"aggrs": "3"}}
    with open_record(str(put(tmp_path / "r", damo_record(damo_object(some(1), intervals=intervals))))) as reader:
        one = next(reader.snapshots())
        assert (one.sample_us, one.aggr_us) == (2_000, 40_000)
        assert reader.info.target(0).command == "target_id=0"


def test_a_snapshot_with_a_tuned_interval_keeps_the_number_of_samples(tmp_path: Path) -> None:
    # damo 3.4.3, report access --style detailed, of such a record: "intervals: sample 20 ms aggr 400 ms".
    about = damo_object([(0, 10**9, [(4096, 8192, 20, 3)]), (0, 14 * 10**8, [(4096, 8192, 20, 4)])])
    about["intervals"] = {"sample_us": "5 ms", "aggr_us": "100 ms", "ops_update_us": "1 s"}
    about["snapshots"][1]["sample_interval_us"] = "20 ms"
    with open_record(str(put(tmp_path / "r", damo_record(about)))) as reader:
        found = [(s.sample_us, s.aggr_us, s.nr_accesses.tolist()) for s in reader.snapshots()]
        assert reader.warnings() == []
    assert found == [(5_000, 100_000, [20]), (20_000, 400_000, [20])]


@pytest.mark.parametrize("told", ["0", "-1", "1e30 s", 2**64, "x", 1])
def test_a_strange_tuned_interval_ends_nothing(tmp_path: Path, told: object) -> None:
    about = damo_object(some(2))
    about["snapshots"][1]["sample_interval_us"] = told
    assert len(read(put(tmp_path / "r", damo_record(about)))) >= 1


@pytest.mark.parametrize("wrap", [lambda kept: kept, lambda kept: [kept], lambda kept: {"damo_records": kept}])
def test_intervals_may_be_those_of_the_kdamond_beside_the_records(tmp_path: Path, wrap: Any) -> None:
    # The classes DamonRecords and DamoRecord of damo 3.4: the records beside the parameters of their kdamonds.
    about = damo_object(some(3)) | {"intervals": None, "context_idx": 1}
    contexts = [{"ops": "paddr"}, {"ops": "vaddr", "intervals": {"sample_us": "2 ms", "aggr_us": "40 ms"}}]
    record = wrap({"damon_records": {"kdamonds": [{"contexts": contexts}], "record_list": [about]}})
    with open_record(str(put(tmp_path / "r", json.dumps(record)))) as reader:
        assert {(s.sample_us, s.aggr_us) for s in reader.snapshots()} == {(2_000, 40_000)}


@pytest.mark.parametrize("spelt", [("damo_record_ver",), ("damo_reocrd_ver",), ("damo_reocrd_ver", "damo_record_ver")])
@pytest.mark.parametrize("packed", [True, False])
def test_a_container_of_version_1_by_either_spelling(tmp_path: Path, spelt: tuple[str, ...], packed: bool) -> None:
    # damo 3.4.3 knows it by both at once only, and writes the list.
    made = some(4)
    text = json.dumps(dict.fromkeys(spelt, 1) | {"damo_records": [damo_object(made)]}).encode()
    path = put(tmp_path / "r", zlib.compress(text) if packed else text)
    assert read_with_warnings(path) == (expected(made), [])


@pytest.mark.parametrize("version", [2, 7, "3", -1, "x\n", None, []])
@pytest.mark.parametrize("empty", [True, False])
def test_a_container_of_another_version_is_refused(tmp_path: Path, version: Any, empty: bool) -> None:
    held = {"damo_record_ver": version, "damo_records": [] if empty else [damo_object(some(2))]}
    with pytest.raises(
        PydamonError, match=r"container of version .*known are version 1, and the list without"
    ) as found:
        read(put(tmp_path / "r", json.dumps(held)))
    assert "\n" not in str(found.value)


def _readable(made: list[Made]) -> dict[str, Any]:
    """Numbers as people read them."""
    about = damo_object(made)
    for one in about["snapshots"]:
        for region in one["regions"]:
            region["start"], region["end"] = f"{int(region['start']):,}", f"{int(region['end']):,}"
            region["sz_filter_passed"] = "0 B"
    return about


def test_numbers_with_separators_and_units(tmp_path: Path) -> None:
    made = some(3)
    about = _readable(made)
    about["snapshots"][0]["start_time"] = "5 s"
    about["snapshots"][0]["end_time"] = "5.100 s"
    about["snapshots"][1]["start_time"] = "5 s 100 ms"
    assert read(put(tmp_path / "r", damo_record(about))) == expected(made)


def test_fields_that_are_missing_or_null(tmp_path: Path) -> None:
    made = some(3)
    about = damo_object(made, intervals=None)
    for key in ("kdamond_idx", "context_idx", "scheme_idx", "scheme_filters"):
        del about[key]
    for one in about["snapshots"]:
        del one["damos_stats"], one["total_bytes"]
        for region in one["regions"]:
            del region["sz_filter_passed"]
            region["age"] = {"usec": None, "aggr_intervals": None}
    found, warnings = read_with_warnings(put(tmp_path / "r", damo_record(about)))
    assert found == expected(made, age=False)
    assert warnings == [
        "read as damo: aggregation interval 100 ms (from the time between snapshots), "
        "sampling interval 5 ms (assumed: 20 in an aggregation)"
    ]


def test_accesses_and_ages_in_other_units(tmp_path: Path) -> None:
    about = damo_object([(0, 10**9, [(4096 * n, 4096 * n + 4096, 0, 0) for n in range(1, 5)])])
    regions = about["snapshots"][0]["regions"]
    regions[0] |= {"nr_accesses": {"samples": None, "percent": 50}, "age": {"usec": 300_000}}
    regions[1] |= {"nr_accesses": {"percent": "25 %"}, "age": {"usec": "1 s"}}
    regions[2] |= {"nr_accesses": {"hz": 120.0}, "age": 4}
    regions[3] |= {"nr_accesses": 3, "age": None}
    # 20 samples in 100 ms: 50 % are 10, 25 % are 5, 120 Hz are 12.
    found = read(put(tmp_path / "r", damo_record(about)))
    assert [(nr, age) for _, _, nr, age in found[0][3]] == [(10, 3), (5, 10), (12, 4), (3, 0)]


def test_targets_one_after_the_other_come_in_the_order_of_time(tmp_path: Path) -> None:
    ones, others = some(4, target=5), some(4, target=9, first_ns=5_150_000_000, seed=2)
    path = put(tmp_path / "r", damo_record(damo_object(ones), damo_object([]), damo_object(others)))
    found = read(path)
    assert [end for _, _, end, _ in found] == sorted(made[1] for made in ones + others)
    assert [one for one in found if one[0] == 0] == expected(ones)
    assert [one[3] for one in found if one[0] != 0] == [made[2] for made in others]
    with open_record(str(path)) as reader:
        assert {t.command for t in reader.info.targets} >= {"target_id=5", "target_id=9"}


def test_what_is_said_behind_the_snapshots_counts(tmp_path: Path) -> None:
    made = some(3)
    ordered = dict(sorted(damo_object(made, intervals={"sample_us": 1000, "aggr_us": 50_000}).items()))
    late = {"snapshots": ordered.pop("snapshots")} | ordered | {"data_source": "x"}
    with open_record(str(put(tmp_path / "r", damo_record(late)))) as reader:
        assert [(s.sample_us, s.aggr_us) for s in reader.snapshots()] == [(1000, 50_000)] * 3
        assert reader.info.target(0).command == "target_id=0"


def test_a_record_inside_of_an_object(tmp_path: Path) -> None:
    made = some(3)
    about = {"damo_record_ver": 1, "damo_records": {"damon_records": {"kdamonds": [], "record_list": []}}}
    about["damo_records"]["damon_records"]["record_list"] = [damo_object(made)]  # type: ignore[index]
    assert read(put(tmp_path / "r", json.dumps(about, indent=4))) == expected(made)


def test_tuned_intervals_of_a_snapshot(tmp_path: Path) -> None:
    about = damo_object(some(2))
    about["snapshots"][1]["sample_interval_us"] = "10 ms"
    with open_record(str(put(tmp_path / "r", damo_record(about)))) as reader:
        assert [s.sample_us for s in reader.snapshots()] == [5_000, 10_000]


def test_sizes_that_passed_filters_are_a_column(tmp_path: Path) -> None:
    made = some(2)
    about = damo_object(made)
    about["snapshots"][0]["regions"][1]["sz_filter_passed"] = "8.000 KiB"
    with open_record(str(put(tmp_path / "r", damo_record(about)))) as reader:
        assert reader.optional == ("sz_filter_passed",)
        first, second = reader.snapshots()
    passed = first.column("sz_filter_passed")
    assert passed is not None
    assert passed.tolist() == [0, 8192, 0]
    assert second.column("sz_filter_passed") is None  # of filters that let nothing pass, or none: damo does not tell


@pytest.mark.slow
def test_cut_at_every_byte_leaves_the_whole_snapshots(tmp_path: Path) -> None:
    made = some(2, regions=1)
    data = damo_record(damo_object(made), indent=None, packed=False)
    for size in range(0, len(data) - 1, 3):
        try:
            found, warnings = read_with_warnings(put(tmp_path / "r", data[:size]))
        except PydamonError as error:
            assert "\n" not in str(error)
        else:
            assert found == expected(made)[: len(found)]
            assert warnings == [f"ends early (cut off after {size:,} bytes); this is what came before"]


def test_cut_packed_data_leaves_the_whole_snapshots(tmp_path: Path) -> None:
    made = some(200)
    data = damo_record(damo_object(made))
    found, warnings = read_with_warnings(put(tmp_path / "r", data[: len(data) // 2]))
    assert 50 < len(found) < 150
    assert found == expected(made)[: len(found)]
    cut = f"its zlib data is cut off after {len(data) // 2:,} bytes"
    assert warnings == [f"ends early ({cut}); this is what came before"]


def test_flipped_bits(tmp_path: Path) -> None:
    data = damo_record(damo_object(some(4)), indent=None, packed=False)
    rng = np.random.default_rng(5)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        try:
            read(put(tmp_path / "r", bytes(damaged)))
        except PydamonError as error:
            assert "\n" not in str(error)


def _with(change: dict[str, Any], region: dict[str, Any] | None = None) -> bytes:
    about = damo_object(some(3))
    about["snapshots"][1] |= change
    about["snapshots"][1]["regions"][0] |= region or {}
    return damo_record(about)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_with({"start_time": "NaN"}), "1 snapshot that cannot be understood left out"),
        (_with({"end_time": None}), "1 snapshot that cannot be understood left out"),
        (_with({"end_time": "-5"}), "1 snapshot that cannot be understood left out"),
        (_with({"end_time": 1e300}), "1 snapshot that cannot be understood left out"),
        (_with({"end_time": "1"}), "1 snapshot out of time order left out"),
        (_with({}, {"start": -1}), "1 region without usable numbers left out"),
        (_with({}, {"end": str(1 << 64)}), "1 region without usable numbers left out"),
        (
            _with({}, {"end": "0"}),
            "1 impossible region left out (overlapping, backwards, or more accesses than samples)",
        ),
        (_with({}, {"nr_accesses": {"samples": "x"}}), "1 region without usable numbers left out"),
        (_with({}, {"nr_accesses": {"samples": 21}}), "1 impossible region left out"),
        (_with({}, {"nr_accesses": []}), "1 snapshot that cannot be understood left out"),
    ],
)
def test_absurd_values_cost_a_region_or_a_snapshot(tmp_path: Path, data: bytes, said: str) -> None:
    found, warnings = read_with_warnings(put(tmp_path / "r", data))
    assert warnings[-1].startswith(said)
    assert len(found) in (2, 3)
    assert [found[0], found[-1]] == [expected(some(3))[0], expected(some(3))[2]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "is a record of damo without a snapshot: nothing was recorded"),
        (zlib.compress(b" [\n] "), "is a record of damo without a snapshot: nothing was recorded"),
        (b"{}", "is JSON, but not a record of damo with snapshots"),
        (b"[1, 2, 3]", "is JSON, but not a record of damo with snapshots"),
        (b'[{"snapshots": []}]', "is JSON, but not a record of damo with snapshots"),
        (b'[{"snapshots": [1, 2]}]', "is JSON, but not a record of damo with snapshots"),
        (b'[{"snapshots": [{}]}]', "not a record of damo with snapshots: 1 snapshot cannot be understood"),
        (b"[" * 100_000, "is JSON, but not a record of damo"),
        (b'[{"snapshots": [' + b"[" * 100_000, "is JSON, but not a record of damo"),
        (b"[" + b" " * 5_000_000, "is no record: 4 MiB of JSON without a list of snapshots"),
        (zlib.compress(b"[" + b" " * 50_000_000), "is no record: 4 MiB of JSON without a list of snapshots"),
        (zlib.compress(b'[{"snapshots":[{"regions":[' + b"{}," * 25_000_000), "has a snapshot of more than 64 MiB"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(PydamonError) as caught:
        read(put(tmp_path / "r", data))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_targets(tmp_path: Path) -> None:
    objects = [damo_object([(number, 10**9, [(1, 2, 3, 4)])]) for number in range(300)]
    with pytest.raises(PydamonError, match="has more than 256 targets"):
        read(put(tmp_path / "r", damo_record(*objects)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_record(tmp_path: Path) -> None:
    made = some(1, regions=100)
    peaks = []
    for count in (50, 400):
        text = damo_record(damo_object([(0, made[0][1] + n * AGGR_NS, made[0][2]) for n in range(count)]))
        path = put(tmp_path / "r", text)
        read(path)
        tracemalloc.start()
        with open_record(str(path)) as reader:
            for _ in reader.batches():
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 350 snapshots more are 12 MB more of JSON.
    assert peaks[1] - peaks[0] < 6_000_000


def test_pieces_are_the_same_however_the_text_is_cut() -> None:
    text = b'[{"a": "]}\\"{", "snapshots" : [{"x": [1, {"y": "}"}]}, {"z": "\\\\"}], "b": 2}, {"snapshots": []}]'
    whole = [Head(b'[{"a": "]}\\"{", "snapshots" : []}]'), Item(b'{"x": [1, {"y": "}"}]}'), Item(b'{"z": "\\\\"}')]
    whole += [Head(b'[{"":0, "b": 2}, {"snapshots": []}]'), Tail(b'[{"":0}]', True)]
    for size in range(1, len(text) + 1):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert list(pieces(chunks, "x")) == whole
