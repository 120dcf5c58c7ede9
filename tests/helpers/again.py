"""Tests of what a machine does in some time: where it is too busy for it, they ask for longer."""

from __future__ import annotations

from collections.abc import Callable


def for_longer(record: Callable[[str], object], enough: Callable[[], object], first_s: float) -> None:
    """Have ``record`` go on for ``first_s``, ten times as long, or a minute: until there is ``enough`` of it."""
    for seconds in (first_s, min(10 * first_s, 40.0), 60.0):
        record(f"{round(seconds * 1000)}ms")
        if enough():
            return
    raise AssertionError("there was not enough in a minute either")
