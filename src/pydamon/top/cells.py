"""What stands in the cells of the list of processes: plain text of a fixed width. Pure.

Whatever others have named is made harmless here (`printable`); nothing of it is ever read as markup.
"""

from __future__ import annotations

import pwd
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydamon.plain import printable
from pydamon.top.order import Entry, Group, Order
from pydamon.views.processes import Process, Use

_UNITS = "KMGTPE"
_SPARKS = "▁▂▃▄▅▆▇█"
UNTOLD = "-"  # nobody knows
_GAP = " "
_SHORT = {"bpf+idle": "b+i"}


class Shown(NamedTuple):
    """A column of the screen; ``rank``: the higher, the sooner it is left out where there is no room."""

    name: str
    head: str
    width: int
    rank: int
    left: bool = False


_COLUMNS = (
    Shown("pid", "PID", 7, 0),
    Shown("user", "USER", 8, 6, left=True),
    Shown("used", "USED", 6, 0),
    Shown("error", "±", 5, 1),
    Shown("resident", "RES", 5, 0),
    Shown("idle", "IDLE", 5, 2),
    Shown("trend", "TREND", 8, 4, left=True),
    Shown("through", "VIA", 4, 5, left=True),
    Shown("cost", "COST", 5, 3),
)
_LEAST_COMMAND = 20


def columns_for(width: int) -> list[Shown]:
    """The columns that there is room for, the command last, which gets the rest."""
    chosen = list(_COLUMNS)
    room = width - min(_LEAST_COMMAND, width // 4)
    while sum(column.width + 1 for column in chosen) > room and any(column.rank for column in chosen):
        chosen.remove(max(chosen, key=lambda column: column.rank))
    rest = max(width - sum(column.width + 1 for column in chosen), 1)
    return [*chosen, Shown("command", "COMMAND", rest, 0, left=True)]


def head(columns: Sequence[Shown], order: Order) -> str:
    """The line of headings; the one that it is sorted by has an arrow."""
    cells = []
    for column in columns:
        mark = ("▲" if order.turned else "▼") if column.name == order.by else ""
        cells.append(_fit(column.head + mark, column))
    return _GAP.join(cells)


def line(entry: Entry, columns: Sequence[Shown], *, indent: int = 0) -> str:
    """One entry."""
    of = _group_cell if isinstance(entry, Group) else _cell
    return _GAP.join(_fit(of(entry, column.name, indent), column) for column in columns)  # type: ignore[arg-type]


def _cell(row: Process, name: str, indent: int) -> str:
    if name == "pid":
        return str(row.pid)
    if name == "user":
        return user_name(row.uid) if row.uid >= 0 else UNTOLD
    if name == "used":
        return use(row.used)
    if name == "error":
        return UNTOLD if row.used is None or row.used.at_least else size(row.used.error_bytes)
    if name == "resident":
        return size(row.resident_bytes)
    if name == "idle":
        return use(row.idle)
    if name == "trend":
        return spark(row.trend, 8)
    if name == "through":
        return _SHORT.get(row.through, row.through) or UNTOLD
    if name == "cost":
        return f"{row.cost_bp / 100:.1f}%" if row.through else UNTOLD
    return "  " * indent + printable(row.name)


def _group_cell(group: Group, name: str, indent: int) -> str:
    if name == "used":
        return UNTOLD if group.used_bytes is None else size(group.used_bytes)
    if name == "idle":
        return UNTOLD if group.idle_bytes is None else size(group.idle_bytes)
    if name == "resident":
        return size(group.resident_bytes)
    if name == "command":
        return "  " * group.depth + f"{printable(group.path) or '(no cgroup)'} ({group.processes})"
    return ""


def use(known: Use | None) -> str:
    """An estimate; ``>`` stands before what may be more."""
    if known is None:
        return UNTOLD
    return f">{size(known.bytes)}" if known.at_least else size(known.bytes)


def size(size_bytes: int) -> str:
    """A number of bytes in at most five characters: 1023, 9.9K, 512M; K is 1,024."""
    if size_bytes < 1024:
        return str(size_bytes)
    power = 1
    while size_bytes >= 999.5 * 1024**power and power < len(_UNITS):
        power += 1
    value = size_bytes / 1024**power
    return f"{value:.1f}{_UNITS[power - 1]}" if value < 99.95 else f"{value:.0f}{_UNITS[power - 1]}"


def spark(values: Sequence[int], width: int) -> str:
    """The last values as bars, the largest of them as high as there is room."""
    shown = values[-width:]
    most = max(shown, default=0)
    return "".join(_SPARKS[value * (len(_SPARKS) - 1) // most] if most else _SPARKS[0] for value in shown)


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of a user, else the number."""
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return str(uid)


def _fit(text: str, column: Shown) -> str:
    cut = fit(text, column.width)
    return cut if column.left else " " * (column.width - cells_of(cut.rstrip(" "))) + cut.rstrip(" ")


def fit(text: str, width: int) -> str:
    """The text in exactly so many cells of a terminal, cut with … where it is longer; characters may take two."""
    taken = cells_of(text)
    if taken <= width:
        return text + " " * (width - taken)
    kept, room = [], width - 1
    for character in text:
        room -= cells_of(character)
        if room < 0:
            break
        kept.append(character)
    shown = "".join(kept) + "…"
    return shown + " " * (width - cells_of(shown))


def cells_of(text: str) -> int:
    """How many cells a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


@lru_cache(maxsize=4096)
def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
