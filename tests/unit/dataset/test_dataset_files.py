"""Files of a data set: the same bytes each time, and only rows that can be true."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pydamon.dataset import files
from pydamon.dataset.schema import AGES_S, COLUMNS, MINUTES, REGIONS, VERSION_KEY, Column
from pydamon.errors import RequestError

MINUTE = 1_795_000_020  # a multiple of 60


def row(**more: Any) -> dict[str, Any]:
    cold = {f"cold_{age}s": 1000 - place for place, age in enumerate(AGES_S)}
    return {"host": "a", "cgroup": "/x", "minute": MINUTE, "seconds": 60, "resident": 5000, **cold, **more}


def table(*rows: dict[str, Any]) -> pa.Table:
    names = list(dict.fromkeys(name for each in rows for name in each))
    return pa.table({name: [each.get(name) for each in rows] for name in names})


def test_a_file_has_the_columns_their_units_and_the_version() -> None:
    found = pq.ParquetFile(io.BytesIO(files.write(table(row())))).schema_arrow
    assert found.names == [column.name for column in COLUMNS]
    assert found.metadata[VERSION_KEY] == b"1"
    assert found.field("resident").metadata[b"unit"] == b"bytes"
    assert not found.field("host").nullable
    assert found.field("pod").nullable


def test_rows_are_sorted_by_host_and_minute_and_read_back_as_written() -> None:
    rows = [row(host=host, minute=MINUTE + 60 * at, cgroup=name) for host in "ba" for at in (1, 0) for name in "yx"]
    back = files.read(io.BytesIO(files.write(table(*rows))), "f")
    expected = sorted(rows, key=lambda one: (one["host"], one["minute"], one["cgroup"]))
    assert [{name: one[name] for name in rows[0]} for one in back.to_pylist()] == expected
    assert back.column("psi_some_us").null_count == 8


def test_the_same_rows_in_another_order_make_the_same_file() -> None:
    rows = [row(cgroup=name) for name in "abc"]
    first, second = files.write(table(*rows)), files.write(table(*reversed(rows)))
    assert first == second
    assert files.part(MINUTES, "2026-11-27", "h", first) == files.part(MINUTES, "2026-11-27", "h", second)
    assert files.content_hash(first) != files.content_hash(files.write(table(*rows[:2])))


def test_names_are_read_as_they_are_made_and_others_are_none() -> None:
    part = files.part(REGIONS, "2026-11-27", "123456789", b"")
    assert part.name == "regions/date=2026-11-27/bucket=38/e3b0c44298fc1c149afbf4c8996fb924.parquet"  # 0xCBF43926 % 64
    assert files.parse_name(part.name) == part
    for wrong in ("bucket=64", "bucket=7", "bucket=-1"):
        assert files.parse_name(part.name.replace("bucket=38", wrong)) is None
    assert files.parse_name(part.name.replace("11-27", "11-31")) is None
    assert files.parse_name("../" + part.name) is None
    assert files.parse_name(part.name + "\n") is None


def test_a_day_is_that_of_utc() -> None:
    assert files.day(0) == "1970-01-01"
    assert files.day(1_795_737_599) == "2026-11-26"  # date -u -d @1795737599
    assert files.day(1_795_737_600) == "2026-11-27"


def test_good_rows_stay_and_each_reason_counts() -> None:
    poisoned: dict[str, dict[str, Any]] = {
        "resident is out of range": row(resident=-1),
        "reclaimed is out of range": row(reclaimed=(1 << 50) + 1),
        "cold_T does not fall with T": row(cold_60s=1500),
        "returned_T does not fall with T": row(returned_10s=1, returned_600s=2),
        "seconds is not 1 to 60": row(seconds=61),
        "minute is none": row(minute=MINUTE + 1),
        "minute is in the future": row(minute=MINUTE + 6000),
        "host is too long or not printable": row(host="x" * 256),
        "cgroup is too long or not printable": row(cgroup="/a\x1b[2J"),
        "pod is too long or not printable": row(pod="a\u202eb"),
        "cgroup is null": row(cgroup=None),
        "cold_10s is more than resident": row(resident=10),
        "used_60s is not within its bounds": row(used_60s=10, used_60s_low=11, used_60s_high=12),
    }
    good = [row(), row(reclaimed=1 << 50, seconds=1), row(cold_86400s=None, cold_43200s=0, cgroup="/ä ø")]
    found = files.validate(table(*good, *poisoned.values()), until=MINUTE)
    assert found.left_out == dict.fromkeys(poisoned, 1)
    assert found.nr_left_out == len(poisoned)
    assert [one["cgroup"] for one in found.rows.to_pylist()] == ["/x", "/x", "/ä ø"]
    assert not found.rows.schema.field("cgroup").nullable


def test_a_row_that_is_wrong_twice_counts_once() -> None:
    assert files.validate(table(row(resident=-1, seconds=0))).nr_left_out == 1


def test_what_is_as_large_as_it_may_be_stays() -> None:
    assert files.validate(table(row(host="x" * 255, cgroup="ä" * 1024))).nr_left_out == 0
    assert files.validate(table(row(cgroup="ä" * 1025))).nr_left_out == 1


def test_no_rows_are_valid() -> None:
    assert files.validate(files.arrow_schema().empty_table()).rows.num_rows == 0


def test_other_types_that_hold_the_same_are_taken() -> None:
    odd = table(row()).set_column(0, "host", pa.array(["a"]).dictionary_encode())
    odd = odd.set_column(odd.column_names.index("seconds"), "seconds", pa.array([60], pa.int8()))
    assert files.shaped(odd).schema == files.arrow_schema()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.drop_columns(["minute"]), "minute is missing"),
        (lambda one: one.set_column(2, "minute", pa.array([1.5])), "minute is double"),
        (lambda one: one.set_column(2, "minute", pa.array(["1"])), "minute is string"),
        (lambda one: one.set_column(0, "host", pa.array([b"a"])), "host is binary"),
        (lambda one: one.set_column(2, "minute", pa.array([1 << 63], pa.uint64())), "column minute: "),
        (lambda one: one.append_column("host", pa.array(["b"])), "host is there twice"),
    ],
)
def test_columns_that_are_none_are_an_error(change: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        files.validate(change(table(row())))


def test_files_that_cannot_be_believed_name_why() -> None:
    good = files.write(table(row()))

    def with_metadata(metadata: dict[bytes, bytes] | None) -> bytes:
        sink = io.BytesIO()
        pq.write_table(files.shaped(table(row())).replace_schema_metadata(metadata), sink)
        return sink.getvalue()

    for data, words in (
        (b"", "no whole file"),
        (good[:-100], "no whole file"),
        (with_metadata(None), "no file of a fleet"),
        (with_metadata({VERSION_KEY: b"2"}), "version 2; this pydamon reads up to 1"),
        (with_metadata({VERSION_KEY: b"x" * 100}), "no version that can be read"),
    ):
        with pytest.raises(RequestError, match=f"^there: .*{words}"):
            files.read(io.BytesIO(data), "there")
    with pytest.raises(RequestError, match="has 1 rows"):
        files.check(io.BytesIO(good), "there", most_rows=0)


def test_a_damaged_file_is_an_error_and_never_other_numbers() -> None:
    """Every byte before the footer is turned once: the checksum of its page says so."""
    good = files.write(table(*(row(cgroup=str(at)) for at in range(20))))
    expected = files.read(io.BytesIO(good), "f")
    seen = 0
    for at in range(4, len(good) * 2 // 3, 97):
        data = bytearray(good)
        data[at] ^= 0xFF
        try:
            same = files.read(io.BytesIO(bytes(data)), "f").equals(expected)
        except RequestError:
            seen += 1
        else:
            assert same, f"byte {at}"
    assert seen


def test_other_columns_have_files_too() -> None:
    columns = (Column("host", "string", "", False, ""), Column("sum", "int64", "bytes", True, ""))
    data = files.write(pa.table({"host": ["b", "a"], "sum": [1, None]}), columns=columns)
    assert files.read(io.BytesIO(data), "f", columns).to_pydict() == {"host": ["a", "b"], "sum": [None, 1]}
