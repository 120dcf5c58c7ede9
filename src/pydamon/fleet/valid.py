"""The one place that says, in SQL, which rows of minutes can be believed; the same as `pydamon.dataset.files.validate`.

A row counts for the first reason that it has. What is left out of a data set by a question is left out for good when
it is compacted, and counted in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydamon.dataset.files import MOST_BYTES, MOST_HOST, MOST_MINUTE, MOST_TEXT, UNPRINTABLE
from pydamon.dataset.schema import AGES_S, COLUMNS, WINDOWS_S

DATE = "minute is not of its date"
BUCKET = "host is not of its bucket"
DUPLICATE = "duplicate"


def reasons(until: int, first: int) -> list[tuple[str, str]]:
    """(reason, SQL that is true for rows that have it), in order; of the date whose first second is ``first``.

    ``until``: no minute begins later, in seconds since 1970.
    """
    return [*_of_row(), ("minute is in the future", f"minute > {until}"), *_of_values(), (DATE, _outside(first))]


def _outside(first: int) -> str:
    return f"minute < {first} OR minute >= {first + 86400}"


def _of_row() -> Iterator[tuple[str, str]]:
    for one in COLUMNS:
        if not one.null:
            yield f"{one.name} is null", f"{one.name} IS NULL"
    for one in COLUMNS:
        if one.type == "string":
            most = MOST_HOST if one.name == "host" else MOST_TEXT
            empty = f" OR {one.name} = ''" if one.name in ("host", "cgroup") else ""
            long = f"strlen({one.name}) > {4 * most} OR length({one.name}) > {most}"
            odd = f"regexp_matches({one.name}, '{UNPRINTABLE}')"
            yield f"{one.name} is too long or not printable", f"{long} OR {odd}{empty}"
    for one in COLUMNS:
        if one.type == "int64" and one.name not in ("minute", "seconds"):
            yield f"{one.name} is out of range", f"{one.name} < 0 OR {one.name} > {MOST_BYTES}"
    yield "minute is none", f"minute < 0 OR minute % 60 <> 0 OR minute > {MOST_MINUTE}"


def _of_values() -> Iterator[tuple[str, str]]:
    yield "seconds is not 1 to 60", "seconds < 1 OR seconds > 60"
    for head in ("cold", "returned"):
        names = [f"{head}_{age}s" for age in AGES_S]
        yield f"{head}_T does not fall with T", " OR ".join(_rising(names))
    yield "cold_10s is more than resident", "cold_10s > resident"
    for window in WINDOWS_S:
        name = f"used_{window}s"
        yield f"{name} is not within its bounds", f"{name}_low > {name} OR {name} > {name}_high"


def _rising(names: list[str]) -> Iterator[str]:
    """Each larger than the one before it that is known."""
    for at in range(1, len(names)):
        before = ", ".join(reversed(names[:at]))
        yield f"{names[at]} > {before}" if at == 1 else f"{names[at]} > coalesce({before})"


def flag(told: list[tuple[str, str]]) -> str:
    """SQL of the number of a row's first reason, from 1 on; 0: none."""
    whens = " ".join(f"WHEN {sql} THEN {number}" for number, (_, sql) in enumerate(told, 1))
    return f"(CASE {whens} ELSE 0 END)::UTINYINT"
