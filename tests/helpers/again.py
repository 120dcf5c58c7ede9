"""Tests of what a machine does in some time: where it is too busy for it, they ask for longer, or again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def for_longer(record: Callable[[str], object], enough: Callable[[], object], first_s: float) -> None:
    """Have ``record`` go on for ``first_s``, ten times as long, or a minute: until there is ``enough`` of it."""
    for seconds in (first_s, min(10 * first_s, 40.0), 60.0):
        record(f"{round(seconds * 1000)}ms")
        if enough():
            return
    raise AssertionError("there was not enough in a minute either")


def asked_again(test: Callable[P, None]) -> Callable[P, None]:
    """A test that measures a program while it runs, and has to hold in one of three tries.

    For what is estimated from samples, or told of the last seconds: chance, or a program that got no CPU in them, may
    fail one try, but hardly three in a row. What is wrong fails all of them.
    """

    @functools.wraps(test)
    def asked(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(2):
            with contextlib.suppress(AssertionError, LookupError):
                return test(*args, **kwargs)
        return test(*args, **kwargs)

    return asked
