"""What a picture of several sizes over time shows: panels with a size that has a spread, and lines beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydamon.analysis.wss import WorkingSet

BESIDE = (("resident", "#22262b"), ("swap", "#c8452f"))  # what a footprint has, and its colours
DOMAINS = ("#c8452f", "#5a8f3c", "#8a5fb0", "#b07a2f")


@dataclass(frozen=True, slots=True)
class Line:
    """Another size beside it, measured at ``time_ns``, in bytes."""

    name: str
    time_ns: Sequence[int]
    bytes: Sequence[float]
    colour: str


@dataclass(frozen=True, slots=True)
class Series:
    """A panel: ``sizes``, called ``name``, with their least and most, and ``lines`` beside them."""

    title: str
    details: str
    name: str
    sizes: WorkingSet
    note: str
    lines: Sequence[Line] = field(default_factory=list)
