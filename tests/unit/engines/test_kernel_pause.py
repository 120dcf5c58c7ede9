"""The engine ``kernel``: what a context has beside its targets and schemes, as newer kernels have files for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.helpers.waiting import wait_until
from tests.unit.engines.kernel_fake import FakeTree

from pydamon.engines.kernel.engine import KernelEngine
from pydamon.errors import MachineError, RequestError
from pydamon.linux.damon_sysfs import Roots, find_occupants
from pydamon.spec import Spec, from_builtins

CONTEXT = "kdamonds/0/contexts/0"


def spec_of(refresh_ms: int = 0, **context: Any) -> Spec:
    context.setdefault("intervals", {"sample_us": 500, "aggr_us": 10_000})
    context.setdefault("targets", [{"pid": os.getpid()}])
    return from_builtins({"kdamonds": [{"contexts": [context], "refresh_ms": refresh_ms}]})


def test_a_pause_is_committed_and_nobody_asks_what_is_tried_in_it(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    # The kernel cancels such a command in a pause (the notes on DAMON of 2026-11-25, section 4); statistics it tells.
    tree = FakeTree(roots, (7, 2))
    engine = start(tree, spec_of(schemes=[{"action": "stat"}]))
    monitor = engine.monitor()
    next(monitor)
    engine.commit(replace(engine.context, pause=True))
    assert tree.read(f"{CONTEXT}/pause") == "Y"
    tree.refuse["update_schemes_tried_regions"] = errno.ECANCELED
    asked = len(tree.commands)
    wait_until(lambda: tree.commands[asked:].count("update_schemes_stats") >= 12)
    assert tree.commands[asked:].count("update_schemes_tried_regions") <= 1  # one that was under way
    tried = engine.schemes()[0].stats.nr_tried
    wait_until(lambda: engine.schemes()[0].stats.nr_tried > tried)
    del tree.refuse["update_schemes_tried_regions"]
    engine.commit(replace(engine.context, pause=False))
    assert tree.read(f"{CONTEXT}/pause") == "N"
    assert next(monitor)
    engine.stop()
    list(monitor)


def test_a_pause_that_is_refused_is_taken_back(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (7, 2))
    engine = start(tree, spec_of())
    monitor = engine.monitor()
    next(monitor)
    tree.refuse["commit"] = errno.EINVAL
    with pytest.raises(MachineError, match="refuses 'commit'"):
        engine.commit(replace(engine.context, pause=True))
    assert tree.read(f"{CONTEXT}/pause") == "N"
    assert not engine.context.pause
    engine.stop()
    list(monitor)


def test_the_kernel_refreshes_as_often_as_is_asked_for(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (6, 18))
    start(tree, spec_of(refresh_ms=250))
    assert tree.read("kdamonds/0/refresh_ms") == "250"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            spec_of(pause=True),
            "kdamonds[0].contexts[0].pause: this kernel's DAMON has no file pause for it (Linux 7.2 has it); nearest: "
            "to stop it, or the user engine",
        ),
        (
            spec_of(refresh_ms=250),
            "kdamonds[0].refresh_ms: this kernel's DAMON has no file refresh_ms for it (Linux 6.17 has it); nearest: "
            "0, for pydamon asks by itself",
        ),
    ],
)
def test_what_an_old_kernel_lacks_is_named(
    roots: Roots, start: Callable[..., KernelEngine], spec: Spec, message: str
) -> None:
    with pytest.raises(MachineError) as caught:
        start(FakeTree(roots, (6, 12)), spec)
    assert str(caught.value) == message
    assert find_occupants(roots) == []


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"ops": "paddr", "targets": [{}], "addr_unit": 8},
            "addr_unit: is 8: the kernel engine reads and writes addresses in bytes; nearest: 1, which does wherever "
            "an address has 64 bits",
        ),
        (
            {"targets": [{"pid": os.getpid()}, {"pid": 1, "obsolete": True}]},
            "targets[1].obsolete: is true, but nothing runs yet that it could be taken out of: leave the target out",
        ),
    ],
)
def test_what_it_does_not_do_is_a_wrong_request(
    roots: Roots, start: Callable[..., KernelEngine], context: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        start(FakeTree(roots, (7, 3)), spec_of(**context))
    assert str(caught.value) == f"kdamonds[0].contexts[0].{message}"
