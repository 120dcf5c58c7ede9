"""The engine ``kernel`` where nobody said intervals: fixed ones, and a line about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from tests.unit.engines.kernel_fake import FakeTree

from pydamon.engines.kernel.engine import KernelEngine
from pydamon.library.build import make_spec
from pydamon.linux.damon_sysfs import Roots
from pydamon.run import kernel
from pydamon.run.open import open_engine
from pydamon.run.request import Request
from pydamon.run.signals import Waker
from pydamon.spec import Intervals, Spec


def opened_for_the_kernel(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., KernelEngine], tree: FakeTree, spec: Spec, engine: str
) -> tuple[list[str], Intervals]:
    """What is said when ``engine`` is opened for ``spec``, and with which intervals it runs."""

    def open_kernel_engine(spec: Spec, **options: Any) -> KernelEngine:
        return start(tree, spec, **options)

    monkeypatch.setattr(kernel, "obstacle", lambda roots: None)
    monkeypatch.setattr(kernel, "_check_free", lambda roots: None)
    monkeypatch.setattr(kernel, "open_kernel_engine", open_kernel_engine)
    said: list[str] = []
    with closing(Waker()) as waker:
        opened = open_engine(spec, Request(engine=engine, panel=0), waker=waker, say=said.append)
    assert opened.engine.kind == "kernel"
    assert opened.spec.context.intervals == opened.engine.context.intervals
    return said, opened.engine.context.intervals


@pytest.mark.parametrize("engine", ["kernel", "auto"])
@pytest.mark.parametrize("level", [(6, 12), (6, 18)])  # one that cannot tune, and one that can
def test_tuning_that_nobody_asked_for_is_left_out_and_said(
    roots: Roots,
    start: Callable[..., KernelEngine],
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    level: tuple[int, int],
) -> None:
    spec = make_spec(os.getpid())
    assert spec.context.intervals.intervals_goal is not None
    said, intervals = opened_for_the_kernel(monkeypatch, start, FakeTree(roots, level), spec, engine)
    assert said == ["sampling every 5 ms: the kernel's DAMON tunes its intervals only where that is asked for"]
    assert intervals == Intervals()


def test_tuning_that_was_asked_for_is_done_by_the_kernel(
    roots: Roots, start: Callable[..., KernelEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(os.getpid(), auto=True)
    said, intervals = opened_for_the_kernel(monkeypatch, start, FakeTree(roots, (6, 18)), spec, "kernel")
    assert (said, intervals) == ([], spec.context.intervals)
    assert intervals.intervals_goal is not None
