"""The engine ``kernel`` where commands of others are under way (EBUSY), and after its end: nothing is left unowned."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Generator

import pytest
from msgspec.structs import replace
from tests.unit.engines.kernel_fake import PID, FakeTree

from pydamon.engines.kernel import kdamond as kernel
from pydamon.engines.kernel import owner
from pydamon.engines.kernel.engine import KernelEngine
from pydamon.errors import MachineError, PydamonError
from pydamon.linux import damon_sysfs
from pydamon.linux.damon_sysfs import Roots, find_occupants
from pydamon.spec import Intervals, Spec, from_builtins
from pydamon.spec.schemes import Scheme

PID_FILE, STATE = "kdamonds/0/pid", "kdamonds/0/state"


def spec() -> Spec:
    context = {"targets": [{"pid": os.getpid()}], "intervals": {"sample_us": 500, "aggr_us": 10_000}}
    return from_builtins({"kdamonds": [{"contexts": [context]}]})


def open_engine(tree: FakeTree, own: int) -> KernelEngine:
    return KernelEngine(spec(), directory_fd=own, roots=tree.roots, tree=tree)


def test_it_waits_for_the_id_of_its_thread_while_that_is_busy(roots: Roots, own: int) -> None:
    tree = FakeTree(roots)
    engine = open_engine(tree, own)
    tree.busy = {PID_FILE}
    threading.Timer(0.2, tree.busy.clear).start()
    next(engine.monitor())
    assert engine.kdamond._thread is not None
    engine.close()
    assert find_occupants(roots) == []
    assert os.listdir(own) == []


def test_it_is_ended_also_while_its_files_cannot_be_read(roots: Roots, own: int) -> None:
    tree = FakeTree(roots)
    engine = open_engine(tree, own)
    monitor = engine.monitor()
    assert isinstance(monitor, Generator)
    next(monitor)
    tree.busy = {PID_FILE, STATE}
    monitor.close()
    assert "off" in tree.commands  # what looks at it may have asked for something once more
    tree.busy.clear()
    assert find_occupants(roots) == []


def test_one_that_does_not_end_stays_ours_for_the_next(roots: Roots, own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_PATIENCE_S", 0.05)
    tree = FakeTree(roots)
    engine = open_engine(tree, own)
    monitor = engine.monitor()
    assert isinstance(monitor, Generator)
    next(monitor)
    tree.refuse["off"] = errno.EBUSY
    with pytest.raises(PydamonError, match="does not end"):
        monitor.close()
    assert os.listdir(own) == [owner.FILE]
    monkeypatch.setattr(damon_sysfs, "_BUSY_S", 0.05)
    with pytest.raises(MachineError, match="left cannot be removed: Device or resource busy"):
        open_engine(tree, own)
    tree.refuse.clear()
    following = open_engine(tree, own)
    assert tree.commands[-1] == "off"
    following.close()
    assert find_occupants(roots) == []


@pytest.mark.parametrize("how", ["closed", "taken over"])
def test_nothing_is_changed_after_its_end(roots: Roots, own: int, how: str) -> None:
    tree = FakeTree(roots)
    engine = open_engine(tree, own)
    monitor = engine.monitor()
    assert isinstance(monitor, Generator)
    next(monitor)
    if how == "closed":
        monitor.close()
    tree.stop()
    tree.start_ticks = 778
    tree.write("kdamonds/nr_kdamonds", 1)
    tree.write("kdamonds/0/contexts/nr_contexts", 1)
    tree.write(STATE, "on")  # somebody else's, with the same pid, as it may happen
    before = [*tree.settings()], list(tree.commands)
    with pytest.raises(PydamonError, match="has ended"):
        engine.commit(replace(engine.context, intervals=Intervals(), schemes=(Scheme(action="stat"),)))
    with pytest.raises(PydamonError, match="has ended"):
        engine.kdamond.set_goal_value(0, 0, 1)
    assert before == ([*tree.settings()], list(tree.commands))
    if how == "taken over":
        with pytest.raises(PydamonError, match="stopped by somebody else"):
            list(monitor)
    assert tree.read(PID_FILE) == str(PID)
    assert tree.read(STATE) == "on"


def test_a_claim_that_was_released_meanwhile_is_no_claim(
    roots: Roots, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B has opened the file, A releases it, B locks a file that nobody sees any more."""
    first = owner.take(own, roots)
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        first.release()
        real(fd, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(MachineError, match="another pydamon is about to use it"):
            owner.take(own, roots)
    second = owner.take(own, roots)
    first.note(fingerprint="late")  # writes nowhere
    assert second.entry.fingerprint is None
    second.release()
    assert os.listdir(own) == []
