"""Fields of a view: what each is called, its unit, what it means, and whether it is a gauge or a counter.

A view is a msgspec struct whose fields are annotated with what `counter`, `gauge` or `fact` returns. As it stands it is
its JSON.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from pydamon.spec.units import format_duration_ns, format_size

Kind = Literal["counter", "gauge", "fact"]
Unit = Literal["ns", "us", "ms", "s", "bytes", "bytes_per_s", "bp", ""]
_NS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Field:
    """What is known of a field. A counter only grows, a gauge goes both ways, a fact is no number to add up: a name, a
    number of a process, yes or no. ``path`` are the keys that lead to it, with ``[]`` behind those of lists.

    Units: bp is 1/10,000; "" is a plain number or text.
    """

    path: str
    kind: Kind
    unit: Unit
    help: str


class View(msgspec.Struct, kw_only=True):
    """What views have in common."""


def counter(unit: Unit, help: str) -> msgspec.Meta:
    """Annotates a number that only grows."""
    return msgspec.Meta(description=help, extra={"kind": "counter", "unit": unit})


def gauge(unit: Unit, help: str) -> msgspec.Meta:
    """Annotates a number that goes both ways."""
    return msgspec.Meta(description=help, extra={"kind": "gauge", "unit": unit})


def fact(help: str, unit: Unit = "") -> msgspec.Meta:
    """Annotates what is no number to add up."""
    return msgspec.Meta(description=help, extra={"kind": "fact", "unit": unit})


@cache
def fields_of(view: type[View]) -> dict[str, Field]:
    """All fields of a view and of the views in it, by their paths. A field without an annotation is told in JSON only.

    A view may have ``more_fields``: those of a mapping whose keys are the rows of a table.
    """
    return {field.path: field for field in _walk(view, "")}


def _walk(view: type[View], before: str) -> Iterator[Field]:
    for name, annotation in get_type_hints(view, include_extras=True).items():
        if get_origin(annotation) is Annotated:
            (meta,) = (each for each in annotation.__metadata__ if isinstance(each, msgspec.Meta))
            assert meta.extra is not None
            assert meta.description is not None
            yield Field(f"{before}{name}", meta.extra["kind"], meta.extra["unit"], meta.description)
            continue
        for inner, many in _views_in(annotation):
            yield from _walk(inner, f"{before}{name}[]." if many else f"{before}{name}.")
    for field in getattr(view, "more_fields", tuple)():
        yield Field(f"{before}{field.path}", field.kind, field.unit, field.help)


def _views_in(annotation: Any) -> Iterator[tuple[type[View], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, View):
        yield annotation, False
    elif get_origin(annotation) in (Union, types.UnionType, list):
        for part in get_args(annotation):
            for view, many in _views_in(part):
                yield view, many or get_origin(annotation) is list


def cell(view: View, path: str) -> str:
    """The value at ``path`` of a view, for people, in the unit that the field has."""
    value: Any = view
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return show(value, fields_of(type(view))[path].unit)


def show(value: Any, unit: Unit) -> str:
    """A value of that unit for people."""
    if unit in _NS:
        return format_duration_ns(value * _NS[unit])
    if unit in ("bytes", "bytes_per_s"):
        return format_size(value) + ("/s" if unit == "bytes_per_s" else "")
    return f"{value / 100:.1f}%" if unit == "bp" else str(value)
