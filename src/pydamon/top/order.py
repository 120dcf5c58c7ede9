"""In what order processes are shown, which of them, and in which groups. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pydamon.views.processes import Process


class Column(NamedTuple):
    """A column that can be sorted by. ``key`` gives what it sorts by; ``down``: the largest comes first."""

    name: str
    key: Callable[[Process], Any]
    down: bool


# In the order in which < and > go through them.
COLUMNS = (
    Column("pid", lambda row: row.pid, False),
    Column("used", lambda row: -1 if row.used is None else row.used.bytes, True),
    Column("error", lambda row: -1 if row.used is None else row.used.error_bytes, True),
    Column("resident", lambda row: row.resident_bytes, True),
    Column("idle", lambda row: -1 if row.idle is None else row.idle.bytes, True),
    Column("user", lambda row: row.uid, False),
    Column("cost", lambda row: row.cost_bp, True),
    Column("command", lambda row: row.name.casefold(), False),
)
BY_NAME = {column.name: column for column in COLUMNS}


class Order(NamedTuple):
    """What the user has chosen. ``words`` have to be in the command line; ``tree``: in groups by cgroup."""

    by: str = "used"
    turned: bool = False
    words: str = ""
    tree: bool = False

    def next(self, by: int) -> Order:
        """By the column so many places to the right."""
        place = [column.name for column in COLUMNS].index(self.by)
        return self._replace(by=COLUMNS[(place + by) % len(COLUMNS)].name, turned=False)


class Group(NamedTuple):
    """The head of a group: a cgroup with its processes and the sums of what is known of them."""

    path: str
    depth: int
    processes: int
    resident_bytes: int
    used_bytes: int | None
    idle_bytes: int | None


Entry = Group | Process


def arranged(rows: Iterable[Process], order: Order) -> list[Entry]:
    """The rows that are wanted, in order; with ``tree`` below the heads of their groups."""
    words = order.words.casefold()
    wanted = [row for row in rows if words in row.name.casefold() or words == str(row.pid)]
    if not order.tree:
        return list(_sorted(wanted, order))
    groups: dict[str, list[Process]] = {}
    for row in wanted:
        groups.setdefault(row.cgroup, []).append(row)
    found: list[Entry] = []
    above: list[str] = []
    for path in sorted(groups, key=lambda path: path.split("/")):
        while above and not path.startswith(above[-1].rstrip("/") + "/"):
            above.pop()
        shown = path[len(above[-1].rstrip("/")) :] if above else path
        found.append(_group(shown, len(above), groups[path]))
        found += _sorted(groups[path], order)
        above.append(path)
    return found


def _sorted(rows: Sequence[Process], order: Order) -> list[Process]:
    column = BY_NAME[order.by]
    by_pid = sorted(rows, key=lambda row: row.pid)
    return sorted(by_pid, key=column.key, reverse=column.down != order.turned)


def _group(path: str, depth: int, rows: Sequence[Process]) -> Group:
    return Group(
        path,
        depth,
        len(rows),
        sum(row.resident_bytes for row in rows),
        _sum([row.used.bytes for row in rows if row.used is not None]),
        _sum([row.idle.bytes for row in rows if row.idle is not None]),
    )


def _sum(values: Sequence[int]) -> int | None:
    return sum(values) if values else None
