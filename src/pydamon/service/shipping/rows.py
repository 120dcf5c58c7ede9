"""From what monitors tell once a minute to rows of the data set: what has grown since the minute before is told of it.

What schemes did and what monitoring cost is known of a monitor, and shared out among its cgroups in proportion to what
is resident. After a gap of more than a minute and a half nothing is told of what has grown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pydamon.dataset.schema import AGES_S, COLUMNS
from pydamon.service.shipping.batches import Columns
from pydamon.service.shipping.cgroups import Cgroups, Facts
from pydamon.service.shipping.groups import REST, Group, groups, labels, memory, shares
from pydamon.views.live import WINDOWS_S as TOLD_S
from pydamon.views.live import Live

MOST = 1000  # cgroups of a minute; what is beyond them is one row
_GAP_S = 90.0
_STALE_S = 900.0  # of what is told again and again
_MINUTE_S = 60
# What an action has done to memory, by the column that counts it.
_DONE = {
    "pageout": "reclaimed",
    "migrate_hot": "promoted",
    "migrate_cold": "demoted",
    "hugepage": "collapsed",
    "collapse": "collapsed",
}
_PLACES = [TOLD_S.index(age_s) for age_s in AGES_S]
_GROWN = ("psi_some_us", "psi_full_us", "refaulted")
_OF_ROWS = tuple(
    column.name
    for column in COLUMNS
    if column.name not in ("host", "host_class", "kernel", "version", "minute")
)  # fmt: skip


class Seen(msgspec.Struct, frozen=True):
    """What a monitor told: its process, the view, and what its process has (bytes), None where it is not known.

    With ``dry_run`` its schemes count what they would have done.
    """

    name: str
    pid: int
    view: Live
    own_bytes: int | None = None
    dry_run: bool = False


class _Before(msgspec.Struct):
    """What is needed of the minute before of one monitor."""

    pid: int
    at_s: float
    changed_s: float  # when it told something new last
    time_ns: int
    cpu_ns: int | None
    done: dict[tuple[int, str, str], int]
    returned: dict[int, list[int]]


class Rows:
    """Makes rows of each minute. ``facts_of`` tells of a cgroup by its path, ``most`` how many cgroups there are."""

    def __init__(self, *, most: int = MOST, facts_of: Callable[[str], Facts] | None = None) -> None:
        self.put_together = 0  # cgroups beyond the most, at last
        self._most = most
        self._facts_of = Cgroups().facts if facts_of is None else facts_of
        self._before: dict[str, _Before] = {}
        self._facts: dict[str, tuple[float, Facts]] = {}

    def columns(self, seen: Sequence[Seen], now_s: float, own_cpu_us: int = 0, own_bytes: int = 0) -> Columns | None:
        """The columns of a minute's rows; None: nobody has told anything.

        ``now_s`` is of a clock that does not jump; ``own_…`` is what shipping itself has cost.
        """
        fresh = [one for one in seen if self._is_fresh(one, now_s)]
        if not fresh:
            self._forget(seen, now_s)
            return None
        found, self.put_together = groups([(one.name, one.view) for one in fresh], self._most)
        rows = {group.name: self._row(group, now_s) for group in found}
        for one in fresh:
            self._add_monitor(one, found, rows, now_s)
        self._add_cost(rows, found, own_cpu_us, own_bytes)
        self._forget(seen, now_s)
        for one in fresh:
            self._before[one.name] = _remembered(one, self._before.get(one.name), now_s)
        return {name: [row.get(name) for row in rows.values()] for name in _OF_ROWS} if rows else None

    def _is_fresh(self, one: Seen, now_s: float) -> bool:
        """Whether what it tells is of now: an aggregation may take minutes, but one that was stopped has no end."""
        before = self._before.get(one.name)
        if before is None or before.pid != one.pid or before.time_ns < one.view.time_ns:
            return True
        return now_s - before.changed_s <= _STALE_S

    def _last(self, one: Seen, now_s: float) -> _Before | None:
        """What it told a minute ago; None: it is another process, or that is too long ago."""
        before = self._before.get(one.name)
        return before if before is not None and before.pid == one.pid and now_s - before.at_s <= _GAP_S else None

    def _forget(self, seen: Sequence[Seen], now_s: float) -> None:
        names = {one.name for one in seen}
        self._before = {name: kept for name, kept in self._before.items() if name in names}
        self._facts = {path: kept for path, kept in self._facts.items() if now_s - kept[0] <= _GAP_S}

    # -- a row --------------------------------------------------------------------------------------------------------

    def _row(self, group: Group, now_s: float) -> dict[str, Any]:
        row: dict[str, Any] = {**labels(group), "seconds": 1, **memory(group)}
        if group.path is None or group.name == REST:
            return row
        now = self._facts_of(group.path)
        then_s, then = self._facts.get(group.path, (-_GAP_S, Facts()))
        self._facts[group.path] = (now_s, now)
        row |= {"limit_bytes": now.limit_bytes, "request_bytes": now.request_bytes}
        for name in _GROWN:
            after, before = getattr(now, name), getattr(then, name)
            if after is not None and before is not None and now_s - then_s <= _GAP_S:
                row[name] = max(after - before, 0)
        return row

    def _add_monitor(self, one: Seen, found: Sequence[Group], rows: dict[str, dict[str, Any]], now_s: float) -> None:
        """What one monitor tells of its groups, together."""
        mine = [
            (group, held) for group in found
            if (held := [each.target for each in group.held if each.monitor == one.name])
        ]  # fmt: skip
        before = self._last(one, now_s)
        seconds = _seconds(one, before, now_s)
        weights = [sum(target.resident_bytes for target in held) for _, held in mine]
        grown = {} if before is None else _grown(one, before)
        if one.own_bytes is not None:
            grown["monitor_bytes"] = one.own_bytes
        parts = {name: shares(amount, weights) for name, amount in grown.items()}
        for at, (group, held) in enumerate(mine):
            row = rows[group.name]
            row["seconds"] = max(row["seconds"], seconds)
            for name, share in parts.items():
                row[name] = (row.get(name) or 0) + share[at]
            if before is not None:
                _add_returned(row, [(target.returned_bytes, before.returned.get(target.target)) for target in held])

    def _add_cost(self, rows: dict[str, dict[str, Any]], found: Sequence[Group], cpu_us: int, size_bytes: int) -> None:
        weights = [group.resident for group in found]
        for name, amount in (("monitor_cpu_us", cpu_us), ("monitor_bytes", size_bytes)):
            for group, share in zip(found, shares(amount, weights), strict=True):
                row = rows[group.name]
                if row.get(name) is not None:
                    row[name] += share


def _seconds(one: Seen, before: _Before | None, now_s: float) -> int:
    """For how many seconds of the minute it has watched."""
    since_s = one.view.elapsed_ns / 1e9 if before is None else now_s - before.at_s
    return min(max(round(since_s), 1), _MINUTE_S)


def _done(one: Seen) -> dict[tuple[int, str, str], int]:
    schemes = () if one.dry_run else one.view.schemes
    return {(scheme.number, scheme.name, scheme.action): scheme.stats.get("sz_applied_bytes", 0) for scheme in schemes}


def _grown(one: Seen, before: _Before) -> dict[str, int]:
    """By how much what schemes did, and the CPU time, have grown; a counter that has shrunk began anew."""
    found: dict[str, int] = {}
    for key, after in _done(one).items():
        column = _DONE.get(key[2])
        if column is not None:
            then = before.done.get(key, 0)
            found[column] = found.get(column, 0) + (after - then if after >= then else after)
    if one.view.cost is not None and before.cpu_ns is not None:
        found["monitor_cpu_us"] = max(one.view.cost.cpu_ns - before.cpu_ns, 0) // 1000
    return found


def _add_returned(row: dict[str, Any], told: Sequence[tuple[list[int] | None, list[int] | None]]) -> None:
    """Add what came back, of the targets of which it is known; of one that is new, all that it told."""
    for after, then in told:
        if after is None:
            continue
        for age_s, place in zip(AGES_S, _PLACES, strict=True):
            name = f"returned_{age_s}s"
            row[name] = (row.get(name) or 0) + max(after[place] - (then[place] if then is not None else 0), 0)


def _remembered(one: Seen, before: _Before | None, now_s: float) -> _Before:
    cost = one.view.cost
    is_same = before is not None and before.pid == one.pid and before.time_ns == one.view.time_ns
    return _Before(
        pid=one.pid,
        at_s=now_s,
        changed_s=before.changed_s if before is not None and is_same else now_s,
        time_ns=one.view.time_ns,
        cpu_ns=None if cost is None else cost.cpu_ns,
        done=_done(one),
        returned={
            target.target: target.returned_bytes for target in one.view.targets if target.returned_bytes is not None
        },
    )
