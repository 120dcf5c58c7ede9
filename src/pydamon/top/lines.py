"""A screen of lines of which only those that have changed are drawn: the one widget that top is made of.

Texts are drawn as they are, cell by cell: nothing in them is read as markup, and nothing that drives a terminal is in
them, since whoever makes them has gone through `pydamon.plain.printable`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pydamon.top.spans import EMPTY, Line

# Heat goes from what is not used to what always is; it is told by the character as well, where there is no colour.
_HEAT = ("#7a8aa8", "#3f8fb0", "#c9b03a", "#e08a2e", "#e0452e")
STYLES = {
    "": Style.null(),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "head": Style(reverse=True),
    "cursor": Style(reverse=True, bold=True),
    "past": Style(reverse=True, bold=True, color="yellow"),
    "note": Style(color="yellow"),
    "key": Style(bold=True),
    "curve": Style(color="#3fa0a0"),
    "unknown": Style(dim=True),
    **{f"heat{level}": Style(color=colour) for level, colour in enumerate(_HEAT)},
}


class Lines(Widget, can_focus=True):
    """Shows lines, one per row; those behind the last row are not seen."""

    DEFAULT_CSS = "Lines { width: 1fr; height: 1fr; background: transparent; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[Line] = ()
        self.drawn = 0  # lines, so far

    def show(self, lines: Sequence[Line]) -> None:
        """These from now on; those that are as before are not drawn again."""
        before, self._lines = self._lines, list(lines)
        width = max(self.size.width, 1)
        rows = max(len(before), len(lines))
        changed = [y for y in range(rows) if _at(before, y) != _at(self._lines, y)]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    @property
    def lines(self) -> Sequence[Line]:
        """What is shown."""
        return self._lines

    def render_line(self, y: int) -> Strip:
        """See `Widget`."""
        self.drawn += 1
        segments = [Segment(span.text, STYLES[span.style]) for span in _at(self._lines, y)]
        return Strip(segments).adjust_cell_length(self.size.width, Style.null())


def _at(lines: Sequence[Line], y: int) -> Line:
    return lines[y] if y < len(lines) else EMPTY
