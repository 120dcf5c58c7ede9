"""Which part of a record a report is about: times since its start or before its end, and addresses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pydamon.errors import RequestError

_U64_MAX = 2**64 - 1  # as spec.units, which costs an import that --help need not pay

if TYPE_CHECKING:
    _TimeType = click.ParamType[int]
    _RangeType = click.ParamType[tuple[int, int]]
    _BoundsType = click.ParamType[tuple[float, float]]
    _ShareType = click.ParamType[float]
else:  # it cannot be subscripted in older releases of click
    _TimeType = _RangeType = _BoundsType = _ShareType = click.ParamType

_LEAST_SHARE = 1e-6

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user chose; times in ns, negative ones before the end of the record."""

    target: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    low: int = 0
    high: int = _U64_MAX
    whole_ranges: bool = False  # sizes are those of address ranges, whatever is resident in them
    all_targets: bool = False  # each is shown, not only the largest


def refuse_given(names: Sequence[str], why: str) -> None:
    """Raise RequestError (``why``) for the first of these options that the user has given: it would do nothing."""
    from pydamon.cli.options import given

    said = given(click.get_current_context())
    for name in names:
        if name in said:
            raise RequestError(why, where=said[name])


class _When(_TimeType):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from pydamon.spec import units

        text = str(value).strip()
        try:
            return -units.parse_time_ns(text[1:]) if text.startswith("-") else units.parse_time_ns(text)
        except RequestError as error:
            self.fail(error.message, param, ctx)


class _Addresses(_RangeType):
    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        from pydamon.spec import units

        start, dash, end = str(value).partition("-")
        if not dash:
            self.fail(f"{value!r} is not START-END", param, ctx)
        try:
            low, high = units.parse_address(start), units.parse_address(end)
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if low >= high:
            self.fail(f"{value!r}: start must be below end", param, ctx)
        return low, high


def _percent(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise RequestError(f"{text[:40]!r} is no percentage of the samples (0 to 100)")
    return value


class _Share(_ShareType):
    """A share of the samples in percent, above 0, as a fraction."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            share = _percent(str(value)) / 100
        except RequestError as error:
            self.fail(f"{error.message}; write e.g. 100%", param, ctx)
        if share < _LEAST_SHARE:
            self.fail(f"{str(value)[:40]!r} is too little to tell heat from none; write e.g. 100%", param, ctx)
        return share


class _Between(_BoundsType):
    """``MIN-MAX``, ``MIN-``, ``-MAX`` or one value, inclusive."""

    name = "range"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        from pydamon.spec import units

        parse = {"size": units.parse_size, "time": units.parse_time_ns, "percent": _percent}[self._kind]
        low_text, dash, high_text = (part.strip() for part in str(value).partition("-"))
        try:
            low = float(parse(low_text)) if low_text or not dash else 0.0
            high = float(parse(high_text)) if high_text else low if not dash else math.inf
        except RequestError as error:
            self.fail(f"{error.message}; write MIN-MAX, MIN- or -MAX", param, ctx)
        if low > high:
            self.fail(f"{str(value)[:40]!r}: the first must not be more than the second", param, ctx)
        return low, high


WHEN, SHARE = _When(), _Share()
SIZES, RATES, AGES = _Between("size"), _Between("percent"), _Between("time")
ADDRESSES = _Addresses()


counted = click.option(
    "--addresses",
    "whole_ranges",
    is_flag=True,
    help="Sizes of whole regions, as DAMON counts them, not of memory.",
)


def windowed(verb: _Verb) -> _Verb:
    """The options --from, --to, --address and --addresses."""
    for option in (
        click.option("--all-targets", is_flag=True, help="Show each target, not only the ten largest."),
        counted,
        click.option("--address", "addresses", type=ADDRESSES, metavar="START-END", help="Only these addresses."),
        click.option("--to", "to_ns", type=WHEN, metavar="TIME", help="Only up to this time after the start (or -5s)."),
        click.option(
            "--from",
            "from_ns",
            type=WHEN,
            metavar="TIME",
            help="Only from this time after the start (-5s: the last 5 s).",
        ),
    ):
        verb = option(verb)
    return verb


def choice(
    target: int | None,
    from_ns: int | None,
    to_ns: int | None,
    addresses: tuple[int, int] | None,
    whole_ranges: bool = False,
    all_targets: bool = False,
) -> Choice:
    """The options of `windowed` and --target as one value."""
    low, high = addresses if addresses is not None else (0, _U64_MAX)
    return Choice(target, from_ns, to_ns, low, high, whole_ranges, all_targets)
