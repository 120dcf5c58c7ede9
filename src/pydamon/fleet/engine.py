"""Asking DuckDB: a connection of bounded memory, files that cannot be read left out, partial answers put together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydamon.dataset.schema import bucket
from pydamon.errors import MachineError, PydamonError
from pydamon.fleet.inventory import Job, LeftOut
from pydamon.fleet.query import Query, flagged, parquet, repeated, surplus
from pydamon.fleet.valid import BUCKET, DUPLICATE

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_T = TypeVar("_T")

MEMORY_BYTES = 1 << 30
THREADS = 2
_MANY_GROUPS = 200_000  # of partial answers that wait to be put together
SPILL = "pydamon-fleet-"
_MOST_SPILLED = "200GiB"  # at most, on disk; DuckDB would take nearly all that is free


@dataclass(frozen=True)
class Means:
    """What a connection may use; ``spill``: a folder for what does not fit into memory, None: that of the machine."""

    memory_bytes: int = MEMORY_BYTES
    threads: int = THREADS
    spill: str | None = None


def needs_duckdb() -> Any:
    """The module. Raises MachineError where it is missing."""
    try:
        import duckdb
    except ImportError:
        raise MachineError("needs DuckDB: pip install 'pydamon[fleet]'", where="fleet") from None
    return duckdb


@contextmanager
def connected(means: Means) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to nothing but files; what does not fit into memory goes to a folder that is removed.

    Raises KeyboardInterrupt for what DuckDB makes of one.
    """
    duckdb = needs_duckdb()
    with tempfile.TemporaryDirectory(prefix=SPILL, dir=means.spill) as spill:
        config = {
            "memory_limit": f"{means.memory_bytes // (1 << 20)}MiB", "threads": means.threads, "temp_directory": spill,
            "max_temp_directory_size": _MOST_SPILLED, "autoinstall_known_extensions": False,
            "autoload_known_extensions": False, "preserve_insertion_order": False,
        }  # fmt: skip
        connection = duckdb.connect(":memory:", config=config)
        try:
            with suppress(duckdb.InvalidInputException):  # in a notebook that could not draw it either
                connection.execute("SET enable_progress_bar = false")  # it would be drawn on standard output
            yield connection
        except (duckdb.InterruptException, RuntimeError) as error:
            if isinstance(error, duckdb.InterruptException) or "Query interrupted" in str(error):
                raise KeyboardInterrupt from None
            raise
        finally:
            connection.close()


def partial_answer(connection: duckdb.DuckDBPyConnection, job: Job, query: Query) -> tuple[pa.Table, LeftOut]:
    """The sums over the rows of a job's files; of files of which some cannot be read: over the others'."""
    left_out = LeftOut()
    if not job.checked:
        with looked_at(connection, job, query.columns(job.table), left_out) as (source, good):
            if not good.files:
                return _nothing(connection, query), left_out
            sql, given = query.partial(job.table, source)
            return connection.sql(sql, params=given).to_arrow_table(), left_out

    def ask(some: Job) -> pa.Table:
        source, files = parquet(some.files)
        sql, given = query.partial(some.table, source)
        return connection.sql(sql, params=[*files, *given]).to_arrow_table()

    found, good = _of_readable(connection, job, left_out, ask)
    return (_nothing(connection, query) if found is None else found), left_out


@contextmanager
def looked_at(
    connection: duckdb.DuckDBPyConnection, job: Job, columns: Iterable[str], left_out: LeftOut
) -> Iterator[tuple[str, Job]]:
    """A table of the valid rows of files that nobody has checked, each once; and the job with what could be read.

    The other rows are counted, the other files named. Without any file there is no table.
    """
    duckdb = needs_duckdb()
    names: list[str] = []

    def make(some: Job) -> bool:
        sql, given = flagged(some, columns, names)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE looked_at AS {sql}", given)
        return True

    try:
        made, good = _of_readable(connection, job, left_out, make)
        if made:
            _leave_out_strangers(connection, job, names.index(BUCKET) + 1)
            _leave_out_repeated(connection, names.index(DUPLICATE) + 1)
            counts = "SELECT bad, count(*) FROM looked_at WHERE bad > 0 GROUP BY bad"
            for bad, count in connection.execute(counts).fetchall():
                left_out.row(names[bad - 1], count)
        yield "(FROM looked_at WHERE bad = 0)", good
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise _said(error, job) from None
    finally:
        with suppress(duckdb.Error):  # that may be why it is left
            connection.execute("DROP TABLE IF EXISTS looked_at")


def _of_readable(
    connection: duckdb.DuckDBPyConnection, job: Job, left_out: LeftOut, work: Callable[[Job], _T]
) -> tuple[_T | None, Job]:
    """What the work makes of the files that can be read, and those; None if there are none. Names the others."""
    duckdb = needs_duckdb()
    try:
        return work(job), job
    except duckdb.InterruptException:
        raise
    except duckdb.OutOfMemoryException as error:
        raise _said(error, job) from None
    except duckdb.Error as error:
        good = _readable(connection, job, left_out)
        if not good.files:
            return None, good
        if len(good.files) == len(job.files):
            raise _said(error, job) from None
    try:
        return work(good), good
    except duckdb.Error as error:
        raise _said(error, good) from None


def _leave_out_repeated(connection: duckdb.DuckDBPyConnection, reason: int) -> None:
    """Of rows of the same host, cgroup and minute all but one."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE repeated AS {repeated('looked_at')}")
    if connection.execute("SELECT 1 FROM repeated LIMIT 1").fetchone():
        connection.execute(f"UPDATE looked_at SET bad = {reason} WHERE rowid IN ({surplus('looked_at', 'repeated')})")
    connection.execute("DROP TABLE repeated")


def _leave_out_strangers(connection: duckdb.DuckDBPyConnection, job: Job, reason: int) -> None:
    """Hosts whose rows belong into another bucket: there they could be there a second time."""
    asked = connection.execute("SELECT DISTINCT host FROM looked_at WHERE bad = 0")
    strangers: list[list[str]] = []
    while some := asked.fetchmany(10_000):
        strangers += [[host] for (host,) in some if bucket(host) != job.number]
    if strangers:
        connection.execute("CREATE OR REPLACE TEMP TABLE strangers (host VARCHAR)")
        connection.executemany("INSERT INTO strangers VALUES (?)", strangers)
        connection.execute(f"UPDATE looked_at SET bad = {reason} WHERE bad = 0 AND host IN (FROM strangers)")
        connection.execute("DROP TABLE strangers")


def _readable(connection: duckdb.DuckDBPyConnection, job: Job, left_out: LeftOut) -> Job:
    """The job with those of its files that can be read to their end; names the others."""
    duckdb = needs_duckdb()
    good = []
    for path in job.files:
        source, given = parquet([path])
        try:
            # Each value is asked for: a count would be answered from the footer.
            connection.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM {source}", given)
            good.append(path)
        except duckdb.OutOfMemoryException as error:  # that says nothing of the file
            raise _said(error, job) from None
        except duckdb.Error as error:
            left_out.file(path, f"cannot be read: {_first_line(error)}")
    return replace(job, files=tuple(good))


def _nothing(connection: duckdb.DuckDBPyConnection, query: Query) -> pa.Table:
    """An answer of no rows."""
    from pydamon.fleet.measures import LABEL_NAMES, MEASURES

    columns = [*(f"NULL::VARCHAR AS {name}" for name in LABEL_NAMES), "0::BIGINT AS minute", "false AS after"]
    measures = [f"0::DECIMAL(38, 0) AS {name}" for name in MEASURES]
    asked = ", ".join([*query.keys, *query.measures])
    return connection.sql(f"SELECT {asked} FROM (SELECT {', '.join([*columns, *measures])}) LIMIT 0").to_arrow_table()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _said(error: Exception, job: Job | None = None) -> PydamonError:
    """What DuckDB could not do, for people: it has too little memory, or else it is about the files of the job."""
    if job is None or isinstance(error, needs_duckdb().OutOfMemoryException):
        return PydamonError(f"DuckDB: {_first_line(error)}; allow it more", where="memory_bytes")
    return PydamonError(f"DuckDB: {_first_line(error)}", where=job.files[0])


class Together:
    """Partial answers, put together as they come, so that many of them take no more room than the answer."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, query: Query) -> None:
        self._connection, self._query = connection, query
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self.left_out = LeftOut()

    def add(self, found: tuple[pa.Table, LeftOut]) -> None:
        table, left_out = found
        self._waiting.append(table)
        self._rows += table.num_rows
        self.left_out.add(left_out)
        if self._rows > _MANY_GROUPS and len(self._waiting) > 1:
            self._fold()

    def _fold(self) -> None:
        import pyarrow as pa

        if len(self._waiting) == 1:
            return
        duckdb = needs_duckdb()
        self._connection.register("partial_answers", pa.concat_tables(self._waiting))
        try:
            folded = self._connection.sql(self._query.together("partial_answers")).to_arrow_table()
        except duckdb.Error as error:
            raise _said(error) from None
        finally:
            self._connection.unregister("partial_answers")
        self._waiting, self._rows = [folded], folded.num_rows

    def table(self) -> pa.Table:
        """The answer: a row for each group."""
        self._fold()
        return self._waiting[0]


def one_by_one(jobs: Iterable[Job], query: Query, means: Means) -> tuple[pa.Table, LeftOut]:
    """All jobs on this machine, on one connection with its threads."""
    with connected(means) as connection:
        together = Together(connection, query)
        for job in jobs:
            together.add(partial_answer(connection, job, query))
        return together.table(), together.left_out
