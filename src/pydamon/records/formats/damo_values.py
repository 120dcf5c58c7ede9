"""The values in a record of damo: numbers, or strings with separators or units, or null."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.spec.units import U64_MAX, parse_count, parse_size, parse_time_ns

BINARY_MAGIC = b"damon_recfmt_ver"  # what its binary records began with, until 2023

Value = int | float | str | None

_LETTER = re.compile(r"[a-zµ]")
_TIME_PART = re.compile(r"([0-9][0-9,]*(?:\.[0-9]+)?)\s*([a-zµ]+)")
_HUNDRED_YEARS_NS = 100 * 366 * 86400 * 10**9


class Count(msgspec.Struct, gc=False):
    """Accesses of a region, in one of three units."""

    samples: Value = None
    percent: Value = None
    hz: Value = None


class Age(msgspec.Struct, gc=False):
    """Age of a region, in one of two units."""

    usec: Value = None
    aggr_intervals: Value = None


class DamoRegion(msgspec.Struct, gc=False):
    """One region of a snapshot."""

    start: Value
    end: Value
    nr_accesses: Count | int | float | str | None = None
    age: Age | int | float | str | None = None
    sz_filter_passed: Value = None
    probe_hits: Any = None


class SnapshotObject(msgspec.Struct, gc=False):
    """One snapshot; what we do not use is not decoded."""

    start_time: Value
    end_time: Value
    regions: list[DamoRegion]
    sample_interval_us: Value = None
    damos_stats: Any = None
    aggr_interval_us: Value = None  # pydamon's own, see `damo_export`


def number(value: Value, parse: Callable[[str], int] = parse_count) -> int | None:
    """The whole number; None for null, for what is none, and for what is negative or more than 64 bits."""
    try:
        if isinstance(value, str):
            found = int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else parse(value)
        elif value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        else:
            found = int(value)
    except (RequestError, ValueError):
        return None
    return found if 0 <= found <= U64_MAX else None


def time_ns(value: Value) -> int | None:
    """Nanoseconds; also as people read them, ``9 m 0.333 s``."""
    found = number(value, _readable_time)
    return None if found is None or found > _HUNDRED_YEARS_NS else found


def time_us(value: Value) -> int | None:
    """Microseconds; a string may have another unit."""
    found = number(value, lambda text: _readable_time(text) // 1000 if _LETTER.search(text) else parse_count(text))
    return None if found is None or found > _HUNDRED_YEARS_NS // 1000 else found


def _readable_time(text: str) -> int:
    if not _LETTER.search(text):
        return parse_count(text)
    parts = _TIME_PART.findall(text)
    if not parts or _TIME_PART.sub("", text).strip() or len(text) > 100:
        raise RequestError(f"{text[:40]!r} is not a time")
    return sum(parse_time_ns(f"{amount}{unit}") for amount, unit in parts)


def numbers(
    values: Sequence[Value], parse: Callable[[str], int] = parse_size
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(the numbers, which of them are numbers of at most 64 bits)."""
    try:
        # int() takes a string of digits and a number alike, and fails for the rest.
        found = list(map(int, values))  # type: ignore[arg-type]
        if not found or (min(found) >= 0 and max(found) <= U64_MAX):
            return np.array(found, np.uint64), np.ones(len(found), np.bool_)
    except (TypeError, ValueError, OverflowError):
        pass
    each = [number(value, parse) for value in values]
    good = np.array([value is not None for value in each], np.bool_)
    return np.array([value or 0 for value in each], np.uint64), good


def accesses(
    regions: Sequence[DamoRegion], sample_us: int, aggr_us: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(samples that found an access, which of them are known); percent and hertz are of these intervals."""
    try:
        return numbers([region.nr_accesses.samples for region in regions])  # type: ignore[union-attr]
    except AttributeError:
        return numbers([_samples(region.nr_accesses, sample_us, aggr_us) for region in regions])


def _samples(value: Count | Value, sample_us: int, aggr_us: int) -> int | None:
    if not isinstance(value, Count):
        return number(value)
    if value.samples is not None:
        return number(value.samples)
    for other, whole in ((value.percent, aggr_us / max(sample_us, 1) / 100), (value.hz, aggr_us / 1e6)):
        if other is not None:
            try:
                share = float(str(other).rstrip("% hz").replace(",", ""))
            except ValueError:
                return None
            return round(share * whole) if 0 <= share < 1e12 else None
    return None


def has_samples(regions: Sequence[DamoRegion]) -> bool:
    """Whether the accesses of all regions are in samples."""
    return all(isinstance(r.nr_accesses, Count) and r.nr_accesses.samples is not None for r in regions)


def ages(regions: Sequence[DamoRegion], aggr_us: int) -> NDArray[np.uint64]:
    """Ages in aggregations; 0 where none is known."""
    try:
        found = [region.age.aggr_intervals for region in regions]  # type: ignore[union-attr]
        if None not in found:
            return numbers(found)[0]
    except AttributeError:
        pass
    return numbers([_age(region.age, aggr_us) or 0 for region in regions])[0]


def _age(value: Age | Value, aggr_us: int) -> int | None:
    if not isinstance(value, Age):
        return number(value)
    if value.aggr_intervals is not None:
        return number(value.aggr_intervals)
    micros = time_us(value.usec)
    return None if micros is None else micros // max(aggr_us, 1)
