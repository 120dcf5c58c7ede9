"""Rows of the side table ``panel`` as looks at the page panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pydamon.analysis.window import Window
from pydamon.core.panel import BOUNDS_S, Look, Once

_ONCE = ("weighed", "weights", "squares", "once_idle", "once_unseen", "once_squares")


def looks_of(
    rows: Iterable[Mapping[str, Any]], window: Window | None = None, target: int | None = None
) -> dict[int, list[Look]]:
    """The looks in the window's time, by target; those of another pydamon's bins are left out."""
    found: dict[int, list[Look]] = {}
    for row in rows:
        if target not in (None, row["target"]) or not (window is None or _inside(window, row["time_ns"])):
            continue
        look = _look(row)
        if look is not None:
            found.setdefault(look.target, []).append(look)
    return found


def _inside(window: Window, time_ns: int) -> bool:
    return (window.start_ns is None or time_ns >= window.start_ns) and (
        window.end_ns is None or time_ns <= window.end_ns
    )


def _look(row: Mapping[str, Any]) -> Look | None:
    idle, unseen, ended = (np.array(row[name], np.int64) for name in ("idle", "unseen", "ended"))
    if any(len(one) != len(BOUNDS_S) for one in (idle, unseen, ended)):
        return None
    return Look(row["time_ns"], row["target"], row["resident_bytes"], idle, unseen, ended, row["unknown"], _once(row))


def _once(row: Mapping[str, Any]) -> Once | None:
    """What a look says of memory that targets share; None if nothing, or nothing that can be."""
    if any(row.get(name) is None for name in _ONCE):
        return None
    idle, unseen = (np.array(row[name], np.float64) for name in ("once_idle", "once_unseen"))
    numbers = np.array([row[name] for name in ("weights", "squares", "once_squares")], np.float64)
    values = np.concatenate([idle, unseen, numbers])
    if len(idle) != len(BOUNDS_S) or len(unseen) != len(BOUNDS_S) or not ((values >= 0) & (values < 2**53)).all():
        return None
    return Once(row["weighed"], float(numbers[0]), float(numbers[1]), idle, unseen, float(numbers[2]))
