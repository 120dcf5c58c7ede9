"""What is added up over rows: for each measure how, over rows of minutes, and that its sums over hours add up the same.

A roll-up of an hour has a column for each measure, so an answer from roll-ups is the answer from minutes: integers,
added in another order. Bytes that lie in memory are multiplied by the seconds that they were watched for (``_bs``);
bytes that something happened to are not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydamon.dataset.schema import AGES_S, COLUMNS, WINDOWS_S, Column

How = Literal["sum", "max", "min"]


class Measure(NamedTuple):
    """A column of a roll-up: ``sql`` over a row of minutes, of what columns; how rows are put together; its unit."""

    name: str
    how: How
    sql: str
    columns: tuple[str, ...]
    unit: str
    help: str


def _held(name: str, help: str) -> tuple[Measure, ...]:
    """Of bytes that may be unknown: their sum, and the seconds for which they are known."""
    both = (name, "seconds")
    known = f"CASE WHEN {name} IS NULL THEN 0 ELSE seconds END"
    return (
        Measure(f"{name}_bs", "sum", f"{name} * seconds", both, "bytes * s", help),
        Measure(f"{name}_known", "sum", known, both, "s", f"seconds for which {name} is known"),
    )


def _happened(name: str, unit: str) -> Measure:
    return Measure(name, "sum", name, (name,), unit, f"sum of {name}")


def _most(name: str) -> Measure:
    return Measure(f"{name}_max", "max", name, (name,), "bytes", f"the most of {name}")


def _measures() -> tuple[Measure, ...]:
    found = [
        Measure("rows", "sum", "1", (), "", "how many rows"),
        Measure("seconds", "sum", "seconds", ("seconds",), "s", "seconds watched"),
        Measure("first", "min", "minute", ("minute",), "s", "the first minute, in seconds since 1970"),
        Measure("last", "max", "minute", ("minute",), "s", "the last minute"),
        Measure("resident_bs", "sum", "resident * seconds", ("resident", "seconds"), "bytes * s", "resident memory"),
        *(_most(name) for name in ("resident", "limit_bytes", "request_bytes")),
    ]
    for age in AGES_S:
        found += _held(f"cold_{age}s", f"memory idle for {age} s or longer")
    for age in AGES_S:
        name = f"returned_{age}s"
        known = f"CASE WHEN {name} IS NULL THEN 0 ELSE seconds END"
        about = f"seconds for which {name} is known"
        found += [_happened(name, "bytes"), Measure(f"{name}_known", "sum", known, (name, "seconds"), "s", about)]
    for window in WINDOWS_S:
        name = f"used_{window}s"
        found += [*_held(name, f"memory accessed within {window} s"), _most(name), _most(f"{name}_high")]
        for bound in ("low", "high"):
            found.append(_held(f"{name}_{bound}", f"bound of {name}")[0])
    found += [_happened(one.name, one.unit) for one in _effects()]
    both = ("monitor_bytes", "seconds")
    found.append(
        Measure("monitor_bytes_bs", "sum", "monitor_bytes * seconds", both, "bytes * s", "memory of monitoring")
    )
    return tuple(found)


def _effects() -> tuple[Column, ...]:
    names = ("reclaimed", "promoted", "demoted", "collapsed", "refaulted")
    return tuple(one for one in COLUMNS if one.name in names or one.name.endswith("_us"))


MEASURES: dict[str, Measure] = {one.name: one for one in _measures()}
LABELS = tuple(one for one in COLUMNS if one.type == "string")
LABEL_NAMES = tuple(one.name for one in LABELS)
HOUR = Column("hour", "int64", "s", False, "when the hour begins: seconds since 1970, UTC, a multiple of 3600")


def hour_columns() -> tuple[Column, ...]:
    """The columns of a roll-up of hours: labels, the hour, and each measure."""
    told = (Column(one.name, "int64", one.unit, one.how == "max", one.help) for one in MEASURES.values())
    return (*LABELS, HOUR, *told)


def rolled(name: str) -> str:
    """A measure over rows of minutes, as SQL that gives an integer."""
    one = MEASURES[name]
    total = f"{one.how}({one.sql})"
    return f"coalesce({total}, 0)" if one.how == "sum" else total


def added(name: str) -> str:
    """A measure over roll-ups, or over partial answers."""
    return f"{MEASURES[name].how}({name})"
