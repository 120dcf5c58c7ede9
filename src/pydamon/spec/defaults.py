"""What holds where nobody has said anything: intervals that fit, where that can be found out; the page panel's size."""

from __future__ import annotations

import msgspec

from pydamon.spec.model import Intervals, IntervalsGoal, Spec

PANEL_PAGES = 1024  # of all targets together, that are asked one by one
_TUNED = ("vaddr", "fvaddr", "paddr")  # simulations and reports are to be repeatable, as the kernel's DAMON is


class DefaultGoal(IntervalsGoal, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The goal that holds where none was said: whoever cannot tune intervals goes without it and refuses nothing."""


def default_goal(ops: str, *, faithful: bool) -> DefaultGoal | None:
    """How intervals are tuned that nobody has said; None where they are DAMON's fixed ones."""
    return DefaultGoal() if ops in _TUNED and not faithful else None


def has_default_goal(intervals: Intervals) -> bool:
    """Whether the intervals are tuned though nobody has said so."""
    return isinstance(intervals.intervals_goal, DefaultGoal)


def without_default_goal(spec: Spec) -> Spec:
    """The same with fixed intervals, unless it was said that they are to be tuned."""
    context = spec.context
    if not has_default_goal(context.intervals):
        return spec
    intervals = msgspec.structs.replace(context.intervals, intervals_goal=None)
    return spec.with_context(msgspec.structs.replace(context, intervals=intervals))
