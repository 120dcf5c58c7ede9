"""What the page draws of a what-if: what is saved and comes back by idle time, and the lowest within the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydamon.analysis.whatif.answers import Answers
from pydamon.analysis.whatif.limits import for_share
from pydamon.plain import printable

GOAL = 0.002  # of the working set may come back in a minute: as of `pydamon what-if`


def curves(found: Answers, acted: Sequence[str]) -> dict[str, Any]:
    """Parallel lists over ``age_s``: bytes that are saved, and bytes a minute that come back, at least and at most.

    ``most`` is null where nothing limits it. ``lowest`` is the idle time that keeps within the goal, null if none does;
    ``acted`` names the actions of schemes that took effect meanwhile.
    """
    rows = found.rows
    lowest = for_share(found, GOAL)
    return {
        "span_s": found.ages.span_s,
        "resident": round(found.ages.resident),
        "working_set": round(found.working_set),
        "window_s": found.window_s,
        "panel_pages": found.panel_pages,
        "acted": [printable(action) for action in acted],
        "age_s": [row.age_s for row in rows],
        "saved": [round(row.saved) for row in rows],
        "back": [round(row.refaults) for row in rows],
        "least": [round(row.low) for row in rows],
        "most": [None if row.high is None else round(row.high) for row in rows],
        "goal": GOAL,
        "lowest": None if lowest.row is None else {"at": rows.index(lowest.row), "few": lowest.few},
    }
