"""What top says in its head, its foot and its help. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydamon.spec.units import format_duration_ns
from pydamon.top.cells import size
from pydamon.views.processes import Processes

_SECOND_NS = 1_000_000_000

# (key as it is shown, what the foot calls it, what the help says)
LIST_KEYS = (
    ("Enter", "Look", "look at one process by itself: its mappings, working set, idle memory"),
    ("F4 \\ /", "Filter", "show those whose command line has these words; empty: all"),
    ("F5 g", "Tree", "in groups by cgroup, or not"),
    ("F6 < >", "Sort", "sort by the column to the left, to the right"),
    ("I", "Invert", "turn the order round"),
)
ONE_KEYS = (
    ("Esc", "Back", "back to the list"),
    ("Tab", "Next", "the next target, where there are several"),
    ("F6 < >", "Sort", "mappings by address, size, heat or idle time"),
)
COMMON_KEYS = (
    ("Space p", "Pause", "stop here while what is seen goes on being kept; again: go on"),
    ("t T", "Time", "a step later, earlier (also with Right and Left); [ and ] are ten steps"),
    ("j", "Jump", "to a time: 30s (ago), 14:05:10"),
    ("l", "Live", "to what is now"),
    ("w", "Write", "write what is seen, and what was kept of it, to a record"),
    ("F1 h ?", "Help", "this page"),
    ("q F10", "Quit", "end"),
)


def foot(keys: Sequence[tuple[str, str, str]], width: int) -> list[tuple[str, str]]:
    """(key, name) of those that there is room for; the last two always."""
    short = [(key.split()[0], name) for key, name, _ in keys]
    found, last = short[:-2], short[-2:]
    while found and sum(len(key) + len(name) + 2 for key, name in found + last) > width:
        found.pop()
    return found + last


def clock(time_unix_ns: int) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(time_unix_ns / _SECOND_NS))


def ago(past_ns: int) -> str:
    """How long before the latest something was, in whole seconds where it is long."""
    whole = past_ns if past_ns < 3 * _SECOND_NS else round(past_ns, -9)
    return f"{format_duration_ns(max(round(whole, -8), 0))} before"


def about_list(seen: Processes, live_ns: int | None, width: int) -> str:
    """The first line above the list. ``live_ns`` is the time of the latest, None where this is it."""
    when = clock(seen.time_unix_ns)
    if live_ns is not None:
        when += f" ({ago(live_ns - seen.time_unix_ns)})"
    parts = [f"pydamon top  {when}", f"{len(seen.processes)} processes"]
    if seen.total_bytes:
        parts.append(f"{size(seen.total_bytes - seen.available_bytes)} of {size(seen.total_bytes)}")
    if seen.pages:
        parts.append(f"looking {seen.cpu_bp / 100:.1f}% CPU")
        every = f"/{format_duration_ns(round(seen.every_ns, -8))}" if seen.every_ns else ""
        parts.append(f"{seen.pages:,} pages{every}")
    return _joined(parts, width)


def _joined(parts: Sequence[str], width: int) -> str:
    """As many as there is room for, from the first on."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(part) + 3 > width:
            break
        text += f" · {part}"
    return text


def parse_jump(text: str, now_ns: int) -> int:
    """The time (ns since 1970) that was asked for: ``30s`` or ``-30s`` is so long before ``now_ns``, ``14:05:10`` the
    last such time of day. Raises RequestError."""
    from pydamon.errors import RequestError
    from pydamon.spec.units import parse_time_ns

    text = text.strip()
    if ":" not in text:
        return now_ns - parse_time_ns(text.removeprefix("-"))
    for form in ("%H:%M:%S", "%H:%M"):
        try:
            wanted = time.strptime(text, form)
        except ValueError:
            continue
        today = time.localtime(now_ns / _SECOND_NS)
        moment = time.mktime((*today[:3], wanted.tm_hour, wanted.tm_min, wanted.tm_sec, 0, 0, -1))
        if moment * _SECOND_NS > now_ns:
            moment -= 86400
        return int(moment) * _SECOND_NS
    raise RequestError(f"{text!r} is no time; write it like 30s (ago) or 14:05:10", where="jump")
