"""What is drawn of one target as a heatmap: the heat, the words that go with it, and how high each part of it is."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.analysis.focus import heights
from pydamon.analysis.heatmap import Heatmap

LEAST = 1 / 12  # of the height of a picture: less than this would not be readable


@dataclass(frozen=True, slots=True)
class HeatPanel:
    """One target's heatmap. ``names``: what the mappings of each segment are called, in the order of the segments.

    ``details`` say how it was recorded, ``note`` what the picture leaves out; times are shown since ``origin_ns``.
    """

    heatmap: Heatmap
    title: str
    details: str
    names: list[str]
    note: str
    origin_ns: int

    def heights(self, total: float) -> list[float]:
        """The height of each segment in a picture of the height ``total``: by what it holds (`focus.heights`)."""
        return heights(self.heatmap.held(), self.heatmap.sizes(), total, LEAST * total)
