"""What a picture of amounts as horizontal bars shows: panels of rows, each with its words beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# Colours: one amount, before and after, hot to cold and unknown.
PLAIN = ("#3b6fb6",)
TWO = ("#9db7d9", "#3b6fb6")
HOT_TO_COLD = ("#c8452f", "#eda63a", "#5b83b8", "#c9ccd2")


@dataclass(frozen=True, slots=True)
class Bar:
    """A row: its ``amounts``, one for each name of the legend, and ``words`` about them.

    Without amounts it is not known how much it is; the words say why.
    """

    label: str
    amounts: Sequence[float]
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A panel. ``details`` stand below the title, ``notes`` below the bars."""

    title: str
    details: str
    bars: Sequence[Bar]
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Legend:
    """What the amounts of a bar are: their names and colours, and what the axis says.

    ``shares``: they are shares (0..1), not bytes; ``beside``: one below the other, not one behind the other.
    """

    axis: str
    names: Sequence[str]
    colours: Sequence[str]
    shares: bool = False
    beside: bool = False
