"""Lines that fit a screen: nothing is left out, whatever the width. ``pydamon --help`` needs it before any library."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's own takes longer to import than --help to answer
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NARROWEST, _WIDEST = 30, 78  # columns
_TWO_COLUMNS = 58  # columns from which on descriptions stand beside the names
_MOST_FOR_NAMES = 32


def help_width() -> int:
    """The columns that help may fill: what COLUMNS says, else those of the terminal, within bounds."""
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns <= 0:
        columns = _terminal_columns() or 80
    return max(min(columns - 2, _WIDEST), _NARROWEST)


def _terminal_columns() -> int:
    """0 without a terminal."""
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ is not None else 0
    except (OSError, ValueError):  # it is none, or closed
        return 0


def listed(rows: Iterable[tuple[str, str]], width: int) -> str:
    """A row for each (name, description): in two columns where there is room, else the description below the name."""
    found = list(rows)
    fitting = [len(name) + 4 for name, _ in found if len(name) + 4 <= _MOST_FOR_NAMES]
    column = max(fitting, default=4) if width >= _TWO_COLUMNS else 0
    return "\n".join(_row(name, text, column, width) for name, text in found)


def _row(name: str, text: str, column: int, width: int) -> str:
    if column and len(name) + 4 <= column:
        return folded(text, f"  {name}".ljust(column), " " * column, width)
    indent = " " * (column or 6)
    head = folded(name, "  ", "    ", width)
    return f"{head}\n{folded(text, indent, indent, width)}" if text else head


def folded(text: str, first: str, further: str, width: int, end: str = "") -> str:
    """``text`` in lines of at most ``width`` columns, which begin with ``first`` and then with ``further``.

    ``end`` is what all lines but the last end with.
    """
    lines, line, begins = [], first, True
    for word in text.split():
        for piece, joined in _pieces(word, width - len(further) - len(end)):
            gap = "" if begins or joined else " "
            if not begins and len(line) + len(gap) + len(piece) + len(end) > width:
                lines.append(line + end)
                line, gap = further, ""
            line += gap + piece
            begins = False
    return "\n".join([*lines, line]).rstrip()


def _pieces(word: str, most: int) -> Iterator[tuple[str, bool]]:
    """The word, or what it is cut into behind ``|``, ``,`` and ``/`` where it is too long; and whether it joins."""
    if len(word) <= most:
        yield word, False
        return
    start = 0
    for at, character in enumerate(word):
        if character in "|,/" or at == len(word) - 1:
            yield word[start : at + 1], start > 0
            start = at + 1
