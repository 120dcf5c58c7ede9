"""Which part of a record a report is about: times since its start or before its end, and addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pydamon.errors import RequestError

_U64_MAX = 2**64 - 1  # as spec.units, which costs an import that --help need not pay

if TYPE_CHECKING:
    _TimeType = click.ParamType[int]
    _RangeType = click.ParamType[tuple[int, int]]
else:  # it cannot be subscripted in older releases of click
    _TimeType = _RangeType = click.ParamType

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user chose; times in ns, negative ones before the end of the record."""

    target: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    low: int = 0
    high: int = _U64_MAX


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


WHEN = _When()


def windowed(verb: _Verb) -> _Verb:
    """The options --from, --to and --address."""
    for option in (
        click.option("--address", "addresses", type=_Addresses(), metavar="START-END", help="Only these addresses."),
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


def choice(target: int | None, from_ns: int | None, to_ns: int | None, addresses: tuple[int, int] | None) -> Choice:
    """The options of `windowed` and --target as one value."""
    low, high = addresses if addresses is not None else (0, _U64_MAX)
    return Choice(target, from_ns, to_ns, low, high)
