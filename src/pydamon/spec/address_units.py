"""Schemes with sizes and addresses in units of several bytes, as the kernel's files of physical memory may have them.

A spec has bytes; files have the context's ``addr_unit``. What cannot be written as whole units is made smaller where it
is a limit from above, and larger where it is one from below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from pydamon.spec.schemes import Filter, Scheme
from pydamon.spec.units import U64_MAX

_S = TypeVar("_S", bound=msgspec.Struct)


def to_bytes(schemes: tuple[Scheme, ...], unit: int) -> tuple[Scheme, ...]:
    """Schemes in bytes from those in units of ``unit`` bytes."""

    def size(value: int) -> int:
        return min(value * unit, U64_MAX)

    return _changed(schemes, size, size) if unit != 1 else schemes


def to_units(schemes: tuple[Scheme, ...], unit: int) -> tuple[Scheme, ...]:
    """Schemes in units of ``unit`` bytes from those in bytes."""

    def at_least(value: int) -> int:
        return -(-value // unit)

    def at_most(value: int) -> int:
        return value if value >= U64_MAX else value // unit

    return _changed(schemes, at_least, at_most) if unit != 1 else schemes


def _changed(
    schemes: tuple[Scheme, ...], at_least: Callable[[int], int], at_most: Callable[[int], int]
) -> tuple[Scheme, ...]:
    return tuple(_scheme(scheme, at_least, at_most) for scheme in schemes)


def _scheme(scheme: Scheme, at_least: Callable[[int], int], at_most: Callable[[int], int]) -> Scheme:
    def of(item: Filter) -> Filter:
        if item.address_range is None:
            return item
        ends = item.address_range
        # What a unit has a part of, belongs to the range.
        return _with(item, address_range=_with(ends, start=at_most(ends.start), end=at_least(ends.end)))

    wanted, quotas = scheme.access_pattern, scheme.quotas
    size = _with(wanted.sz_bytes, min=at_least(wanted.sz_bytes.min), max=at_most(wanted.sz_bytes.max))
    quota = at_most(quotas.sz_bytes) or min(quotas.sz_bytes, 1)  # a quota does not become none
    return _with(
        scheme,
        access_pattern=_with(wanted, sz_bytes=size),
        quotas=_with(quotas, sz_bytes=quota),
        filters=tuple(map(of, scheme.filters)),
    )


def _with(struct: _S, **fields: object) -> _S:
    return msgspec.structs.replace(struct, **fields)
