"""Aligned columns of text."""

from __future__ import annotations

from collections.abc import Sequence

from pydamon.cli.render.palette import DIM, styled
from pydamon.cli.render.screen import Screen


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen, left: int = 1, *, words: bool = False
) -> list[str]:
    """Lines of a table; the first ``left`` columns (``words``: and the last one) are aligned to the left, others right.

    On a narrow terminal lines are cut; a pipe gets them whole.
    """
    widths = [max(len(heading), *(len(row[at]) for row in rows), 0) for at, heading in enumerate(headings)]
    lines = []
    for number, cells in enumerate([headings, *rows]):
        padded = [
            cell.ljust(width) if at < left or (words and at == len(headings) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        line = screen.fit("  ".join(padded).rstrip())
        lines.append(styled(line, DIM, screen) if number == 0 else line)
    return lines
