"""What is asked of rows, as SQL: the same for each set of files, with integers that can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydamon.dataset.schema import COLUMNS, HOURS
from pydamon.fleet.inventory import Job
from pydamon.fleet.measures import HOUR, LABEL_NAMES, MEASURES, added, rolled
from pydamon.fleet.valid import BUCKET, DUPLICATE, flag, reasons
from pydamon.fleet.where import HOUR_S, Where

_TYPES = {one.name: "VARCHAR" if one.type == "string" else "BIGINT" for one in COLUMNS}
ALL = frozenset(_TYPES)
_TOTAL = "DECIMAL(38, 0)"
_NOT_OF_NOTHING = " HAVING count(*) > 0"  # without keys there would be a row even then


@dataclass(frozen=True)
class Query:
    """Measures of rows that are grouped by ``labels``, and by whether they are from before or after ``cut``."""

    labels: tuple[str, ...]
    measures: tuple[str, ...]
    where: Where = field(default_factory=Where)
    cut: int | None = None

    def __post_init__(self) -> None:
        if not set(self.labels) <= set(LABEL_NAMES) or not set(self.measures) <= set(MEASURES):
            raise ValueError(f"no such labels or measures: {self.labels}, {self.measures}")

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.labels, *(("after",) if self.cut is not None else ()))

    @property
    def roll_ups_do(self) -> bool:
        """Whether roll-ups of hours can answer it."""
        return self.where.whole_hours and (self.cut is None or self.cut % HOUR_S == 0)

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table that are read for it."""
        asked = {*self.labels, *(name for name, _ in self.where.labels())}
        timed = self.cut is not None or self.where.start is not None or self.where.end is not None
        if table == HOURS:
            return frozenset(asked | set(self.measures) | ({HOUR.name} if timed else set()))
        own = {column for name in self.measures for column in MEASURES[name].columns}
        return frozenset(asked | own | ({"minute"} if timed else set()))

    def partial(self, table: str, source: str) -> tuple[str, list[str | int]]:
        """SQL of the sums over the rows of ``source``, and its parameters: a row for each group."""
        time = HOUR.name if table == HOURS else "minute"
        measure = added if table == HOURS else rolled
        keys = list(self.labels)
        if self.cut is not None:
            keys.append(f"{time} >= {int(self.cut)} AS after")
        sums = [f"({measure(name)})::{_TOTAL} AS {name}" for name in self.measures]
        tests, given = self._tests(time)
        condition = f" WHERE {' AND '.join(tests)}" if tests else ""
        group = f" GROUP BY {', '.join(self.keys)}" if keys else _NOT_OF_NOTHING
        return f"SELECT {', '.join([*keys, *sums])} FROM {source}{condition}{group}", given

    def _tests(self, time: str) -> tuple[list[str], list[str | int]]:
        tests: list[str] = []
        given: list[str | int] = []
        for name, value in self.where.labels():
            tests.append(f"{name} = ?")
            given.append(value)
        for sign, at in ((">=", self.where.start), ("<", self.where.end)):
            if at is not None:
                tests.append(f"{time} {sign} ?")
                given.append(at)
        return tests, given

    def together(self, source: str) -> str:
        """SQL of partial answers, put together."""
        sums = [f"({added(name)})::{_TOTAL} AS {name}" for name in self.measures]
        group = f" GROUP BY {', '.join(self.keys)}" if self.keys else _NOT_OF_NOTHING
        return f"SELECT {', '.join([*self.keys, *sums])} FROM {source}{group}"


def parquet(paths: Sequence[str], *, positions: bool = False) -> tuple[str, list[list[str]]]:
    """SQL of the rows of files, and its parameter; ``positions``: with the file's name and the number of the row."""
    more = ", filename = true, file_row_number = true" if positions else ""
    return f"read_parquet(?, hive_partitioning = false, union_by_name = {str(positions).lower()}{more})", [list(paths)]


def flagged(job: Job, columns: Iterable[str], reason_names: list[str]) -> tuple[str, list[list[str]]]:
    """SQL of the rows of files that nobody has checked, with these columns and ``bad``: 0, or the number of a reason.

    ``reason_names`` gets the names of the reasons, from 1 on: those of a row by itself, then `DUPLICATE` and `BUCKET`.
    """
    told = reasons(job.until, job.first)
    reason_names[:] = [*(name for name, _ in told), DUPLICATE, BUCKET]
    source, given = parquet(job.files, positions=True)
    read = [f"NULL::{kind} AS {name}" if name in job.missing else f"{name}::{kind} AS {name}"
            for name, kind in _TYPES.items()]  # fmt: skip
    inner = f"SELECT {', '.join(read)}, filename AS _file, file_row_number AS _row FROM {source}"
    asked = sorted({*columns, *SAME, *_BEST})
    return f"SELECT {', '.join(asked)}, _file, _row, {flag(told)} AS bad FROM ({inner})", given


# Of rows of the same host, cgroup and minute one is kept: the one that was watched for longest, then by what is in
# them and where they lie, so that it is the same one wherever this is asked.
SAME = ("host", "cgroup", "minute")
_BEST = ("seconds", "resident")


def repeated(table: str) -> str:
    """SQL of what is there more than once in a table of `flagged` rows."""
    return f"SELECT {', '.join(SAME)} FROM {table} WHERE bad = 0 GROUP BY ALL HAVING count(*) > 1"


def surplus(table: str, repeated: str) -> str:
    """SQL of the ids of those rows of the table that repeat another."""
    order = ", ".join([*(f"{name} DESC NULLS LAST" for name in _BEST), "_file", "_row"])
    number = f"row_number() OVER (PARTITION BY {', '.join(SAME)} ORDER BY {order})"
    rows = (
        f"SELECT rowid AS id, {number} AS nth FROM {table} SEMI JOIN {repeated} USING ({', '.join(SAME)}) WHERE bad = 0"
    )
    return f"SELECT id FROM ({rows}) WHERE nth > 1"
