"""Words and tables that the answers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.errors import PydamonError
from pydamon.plain import fit, printable
from pydamon.spec.units import format_duration_ns, format_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pydamon.cli.render.bars import Bars, Legend

_LONGEST = 48


def name_words(name: str) -> str:
    """What a host called itself, a service, a cgroup: harmless, and not too long."""
    return fit(printable(name), _LONGEST) if name else "-"


def size_words(size: float | None) -> str:
    """Bytes; ``?``: not known."""
    if size is None or not math.isfinite(size):
        return "?"
    return format_size(round(size)) if size >= 0 else f"-{format_size(round(-size))}"


def whole(size: float | None) -> int | None:
    """Bytes for programs; None: not known."""
    return None if size is None or not math.isfinite(size) else round(size)


def age_words(age_s: float) -> str:
    return format_duration_ns(round(age_s * 10**9))


def titled(title: str, about: str, headings: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen,
           left: int = 1, *, words: bool = False) -> list[str]:  # fmt: skip
    """A heading, what it is about, and a table; "none" where that is empty."""
    lines = [styled(screen.fit(title), BOLD, screen)]
    if about:
        lines.append(styled(screen.fit(about), DIM, screen))
    return lines + table(headings, rows, screen, left, words=words) + ([] if rows else ["none"])


def drawn(panels: Sequence[Bars], legend: Legend) -> Figure:
    """The picture of these bars. Raises PydamonError where there are none."""
    from pydamon.cli.render.bars_figure import bars_figure

    if not any(panel.bars for panel in panels):
        raise PydamonError("there is nothing to draw (pictures are of bytes); ask without -o", where="-o")
    return bars_figure(panels, legend)


def more_line(more: int, screen: Screen) -> list[str]:
    return [screen.fit(f"and {more} more; --top shows more, --json all")] if more > 0 else []
