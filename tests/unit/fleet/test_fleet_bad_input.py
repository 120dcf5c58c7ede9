"""What is wrong in a data set is left out, counted and said; what is right is answered all the same."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.dataset import files
from pydamon.dataset.schema import VERSION, VERSION_KEY
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.fleet.asking import Data
from pydamon.fleet.compact import compact
from pydamon.fleet.engine import Means, connected
from pydamon.fleet.questions import memory

POISON: list[tuple[str, Any]] = [
    ("host", ""), ("cgroup", ""), ("service", "x\x1b[2J"), ("pod", "a\u202eb"), ("service", "s" * 5000),
    ("kernel", "\n"), ("version", "\x00"), ("cgroup", "c" * 1025), ("host", "h" * 256),
    ("resident", -1), ("resident", 1 << 51), ("resident", 0), ("cold_10s", 1 << 62), ("cold_60s", 1 << 30),
    ("returned_300s", 1 << 29), ("returned_10s", -5), ("limit_bytes", -1), ("psi_some_us", -1), ("used_60s_low", 2),
    ("monitor_bytes", 1 << 60), ("minute", helpers.FIRST + 1), ("minute", -60), ("minute", 1 << 40), ("seconds", 0),
    ("seconds", 61), ("seconds", 1 << 62), ("minute", int(time.time()) // 60 * 60 + 86400), ("minute", None),
    ("host", None), ("resident", None), ("seconds", None), ("cgroup", None),
]  # fmt: skip


def poisoned() -> pa.Table:
    """Twice as many rows as poisons: each second one has one."""
    table = helpers.rows(minutes=2 * len(POISON), used_60s=1, used_60s_low=0, used_60s_high=3)
    for at, (name, value) in enumerate(POISON):
        table = helpers.changed(table, name, 2 * at + 1, value)
    return table


def test_the_sql_and_the_reader_leave_out_the_same_rows_for_the_same_reasons(tmp_path: Path) -> None:
    table = poisoned()
    told = files.validate(table, until=int(time.time()) + 300)
    helpers.ship(tmp_path, table)
    found = helpers.asked(tmp_path)
    assert found.left_out.rows == told.left_out
    assert sum(found.exact("rows")) == told.rows.num_rows == len(POISON)
    assert sum(told.left_out.values()) == len(POISON)
    done = compact(str(tmp_path), jobs=1)
    assert done.left_out.rows == told.left_out
    again = helpers.asked(tmp_path, raw=False)
    assert (again.left_out.rows, again.table.to_pylist()) == (told.left_out, found.table.to_pylist())


def test_poison_is_said_on_harmless_lines(tmp_path: Path) -> None:
    helpers.ship(tmp_path, poisoned())
    lines = helpers.asked(tmp_path).left_out.lines()
    assert len(lines) == 1
    assert lines[0].startswith(f"left out {len(POISON)} rows: ")
    assert lines[0].isprintable()


def whole(root: Path) -> bytes:
    return helpers.ship(root, helpers.rows("host-b")).read_bytes()


def retyped(kind: pa.DataType) -> pa.Table:
    table = helpers.rows("host-b")
    at = table.column_names.index("resident")
    return table.set_column(at, pa.field("resident", kind), table.column("resident").cast(kind))


def of_version(number: int | None) -> pa.Table:
    metadata = {} if number is None else {VERSION_KEY: str(number).encode()}
    return helpers.rows("host-b").replace_schema_metadata(metadata)


def in_pages() -> pa.Table:
    table = helpers.rows("host-b")
    at = table.column_names.index("resident")
    return table.set_column(at, pa.field("resident", pa.int64(), metadata={"unit": "pages"}), table.column("resident"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: of_version(VERSION + 1), "is of version"),
        (lambda _: of_version(None), "is no file of a fleet's data set"),
        (lambda _: retyped(pa.float64()), "the column resident is double; it must be int64"),
        (lambda _: retyped(pa.string()), "the column resident is string; it must be int64"),
        (lambda _: in_pages(), "the column resident is in pages; it must be in bytes"),
        (lambda _: helpers.rows("host-b").drop_columns(["minute"]), "the column minute is missing"),
    ],
    ids=["newer", "of another tool", "floats", "texts", "pages", "a column missing"],
)  # fmt: skip
def test_files_that_are_not_as_they_should_be(tmp_path: Path, make: Any, words: str) -> None:
    helpers.ship(tmp_path, helpers.rows("host-a"))
    helpers.ship(tmp_path, make(tmp_path))
    found = helpers.asked(tmp_path)
    assert found.exact("rows") == [10]
    assert words in found.left_out.lines()[0]
    done = compact(str(tmp_path), jobs=1)
    assert (done.rows, done.left_out.nr_files) == (10, 1)


@pytest.mark.parametrize("how", ["half", "empty", "text", "no footer", "rotten"])
def test_files_that_are_half_written_or_rotten(tmp_path: Path, how: str) -> None:
    """Also within one partition: the host's other file is read."""
    good = helpers.rows("host-b", minutes=7)
    helpers.ship(tmp_path, good)
    data = whole(tmp_path / "other")
    rotten = data[:60] + bytes(60) + data[120:]
    made = {
        "half": data[: len(data) // 2],
        "empty": b"",
        "text": b"PAR1 not quite",
        "no footer": data[:-8],
        "rotten": rotten,
    }
    helpers.put(tmp_path, made[how], "host-b")
    found = helpers.asked(tmp_path)
    assert found.exact("rows") == [7]
    assert found.left_out.nr_files == 1
    done = compact(str(tmp_path), jobs=1)
    assert (done.rows, done.left_out.nr_files) == (7, 1)


def test_columns_that_may_be_null_may_be_missing(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows("host-b").drop_columns(["used_60s", "pod", "monitor_bytes"]))
    found = helpers.asked(tmp_path)
    assert (found.exact("rows"), found.exact("used_60s_known"), found.left_out.lines()) == ([10], [0], [])


def test_rows_of_another_day_and_of_another_bucket_are_left_out(tmp_path: Path) -> None:
    """A clock that was a day off, and a host that writes where another one's rows lie."""
    helpers.ship(tmp_path, helpers.rows("host-a"))
    helpers.ship(tmp_path, helpers.rows("host-a", first=helpers.FIRST - 86400, minutes=3))
    helpers.ship(tmp_path, helpers.rows("host-other", minutes=4), host="host-a")
    found = helpers.asked(tmp_path)
    assert found.left_out.rows == {"minute is not of its date": 3, "host is not of its bucket": 4}
    assert found.exact("rows") == [10]


def test_names_that_no_file_of_a_data_set_has(tmp_path: Path) -> None:
    path = helpers.ship(tmp_path, helpers.rows("host-a"))
    path.with_name("*.parquet").write_bytes(path.read_bytes())
    path.with_name("a'; DROP TABLE x.parquet").write_bytes(path.read_bytes())
    (tmp_path / "minutes" / "date=2026-02-31" / "bucket=00").mkdir(parents=True)
    (tmp_path / "minutes" / f"date={helpers.DAY}" / "bucket=99").mkdir()
    found = helpers.asked(tmp_path)
    assert (found.exact("rows"), found.left_out.nr_files, found.left_out.rows) == ([10], 2, {})


def test_a_value_that_is_asked_for_is_no_sql(tmp_path: Path) -> None:
    from pydamon.fleet.where import Where

    helpers.ship(tmp_path, helpers.rows("host-a", service="it's"))
    assert helpers.sums(tmp_path, "rows", Where(service="it's")) == 10
    with pytest.raises(PydamonError, match="no row is"):
        helpers.sums(tmp_path, "rows", Where(service="' OR 1 = 1 --"))


def test_nothing_good_is_an_error_that_says_what_is_bad(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no data set of a fleet"):
        helpers.asked(tmp_path)
    helpers.put(tmp_path, b"nothing", "host-a")
    with pytest.raises(PydamonError, match="is no whole file of Parquet"):
        helpers.asked(tmp_path)
    odd = tmp_path / "a*b"
    helpers.ship(odd, helpers.rows())
    with pytest.raises(RequestError, match="patterns"):
        helpers.asked(odd)


def test_a_million_cgroups_of_one_host_take_bounded_memory(tmp_path: Path) -> None:
    """A tenth of a million in a file, with less memory for DuckDB than the rows would take."""
    count = 100_000
    schema = files.arrow_schema()
    columns: dict[str, pa.Array] = {field.name: pa.nulls(count, field.type) for field in schema}
    columns["cgroup"] = pa.array([f"/poison/{at:07}/{'x' * 60}" for at in range(count)])
    for name, value in (("host", "host-a"), ("service", "api")):
        columns[name] = pa.array([value] * count)
    for name, number in (("minute", helpers.FIRST), ("seconds", 60), ("resident", 4096), ("cold_600s", 4096)):
        columns[name] = pa.array([number] * count)
    loose = pa.schema([field.with_nullable(True) for field in schema], schema.metadata)
    helpers.ship(tmp_path, pa.table(list(columns.values()), schema=loose))
    helpers.ship(tmp_path, helpers.rows("host-b"))
    rows, found = memory.cold(Data(str(tmp_path), means=Means(192 << 20, 1)), by="cgroup")
    assert len(rows) == count + 1
    assert found.left_out.lines() == []


def test_memory_that_is_not_enough_is_said(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(cgroups=100, minutes=100))
    with pytest.raises(PydamonError, match="memory_bytes: DuckDB: Out of Memory"):
        helpers.asked(tmp_path, means=Means(2 << 20, 1))


@pytest.mark.parametrize("mebibytes", [12, 16])
def test_memory_that_is_not_enough_for_later_steps_is_said(tmp_path: Path, mebibytes: int) -> None:
    """The rows fit, but not what it takes to find those that are there twice."""
    helpers.ship(tmp_path, helpers.rows(cgroups=200, minutes=60))
    helpers.ship(tmp_path, helpers.rows(cgroups=200, minutes=60, seconds=59))
    means = Means(mebibytes << 20, 1)
    with pytest.raises(PydamonError, match="memory_bytes: DuckDB: Out of Memory"):
        helpers.asked(tmp_path, means=means)
    with pytest.raises(PydamonError, match="memory_bytes: DuckDB: Out of Memory"):
        compact(str(tmp_path), jobs=1, means=means)


@pytest.mark.parametrize("label", ["\udcff", "a\0b", "x" * 5000], ids=["no text", "NUL", "too long"])
def test_what_no_label_can_be_is_refused(tmp_path: Path, label: str) -> None:
    from pydamon.fleet.where import Where

    helpers.ship(tmp_path, helpers.rows())
    with pytest.raises(RequestError, match=r"service: .* is no label"):
        helpers.sums(tmp_path, "rows", Where(service=label))


def test_files_of_newer_columns_are_read_for_those_that_are_known(tmp_path: Path) -> None:
    table = helpers.rows("host-a").append_column("colour", pa.array(["red"] * 10))
    path = helpers.ship(tmp_path, table)
    assert "colour" in pq.read_schema(path).names
    assert helpers.sums(tmp_path) == 10


def test_a_connection_draws_nothing_loads_nothing_and_is_bounded() -> None:
    with connected(Means(100 << 20, 1)) as connection:
        told = {
            name: connection.execute(f"SELECT current_setting('{name}')").fetchall()[0][0]
            for name in ("enable_progress_bar", "autoload_known_extensions", "memory_limit", "threads")
        }
    assert told == {
        "enable_progress_bar": False,
        "autoload_known_extensions": False,
        "memory_limit": "100.0 MiB",
        "threads": 1,
    }


def test_an_interrupted_query_is_a_keyboard_interrupt() -> None:
    """As DuckDB tells it when asked from another thread, and when a signal comes to its own."""
    over = threading.Event()

    def ask() -> None:
        with connected(Means(100 << 20, 1)) as connection:

            def interrupt() -> None:
                while not over.wait(0.01):
                    connection.interrupt()

            again = threading.Thread(target=interrupt)
            again.start()
            try:
                connection.execute("SELECT sum(hash(range)) FROM range(1000000000000)")  # alone it would take hours
            finally:
                over.set()
                again.join()

    with pytest.raises(KeyboardInterrupt):
        ask()
    with pytest.raises(KeyboardInterrupt), connected(Means(100 << 20, 1)):
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="else"), connected(Means(100 << 20, 1)):
        raise RuntimeError("something else")


@pytest.mark.parametrize("missing", ["duckdb", "distributed"])
def test_what_is_not_installed_is_named(tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.ship(tmp_path, helpers.rows())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MachineError, match=r"pip install 'pydamon\[fleet\]'"):
        helpers.asked(tmp_path, workers=1 if missing == "distributed" else 0)
