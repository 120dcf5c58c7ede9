"""Kdamonds of damonfs in processes of their own: how they end, and what the others see of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from tests.helpers.waiting import GENEROUS_S, wait_until

from pydamon.damonfs.levels import level
from pydamon.damonfs.remote import Spawner
from pydamon.damonfs.runner import starter
from pydamon.damonfs.tree import DamonTree

K = "/admin/kdamonds"


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def turn_on(tree: DamonTree, number: int = 0) -> int:
    """Kdamond ``number`` monitors this process; the id of its task."""
    place = f"{K}/{number}"
    tree.write(f"{place}/contexts/nr_contexts", 1)
    tree.write(f"{place}/contexts/0/targets/nr_targets", 1)
    tree.write(f"{place}/contexts/0/targets/0/pid_target", os.getpid())
    tree.write(f"{place}/contexts/0/schemes/nr_schemes", 1)
    tree.write(f"{place}/state", "on")
    return int(tree.read(f"{place}/pid"))


def process_of(task: int) -> int:
    """The process that a task belongs to."""
    with open(f"/proc/{task}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))


@pytest.fixture(name="said")
def said_fixture() -> list[str]:
    return []


@pytest.fixture(name="spawner")
def spawner_fixture() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture(name="tree")
def tree_fixture(spawner: Spawner, said: list[str]) -> Iterator[DamonTree]:
    start = starter("smaps", run=spawner.run)
    tree = DamonTree(level("mm"), start=start, avail_operations=lambda: ["vaddr"], say=said.append)
    tree.write(f"{K}/nr_kdamonds", 2)
    yield tree
    tree.close()


def test_each_is_a_process_of_its_own(tree: DamonTree) -> None:
    tasks = [turn_on(tree, number) for number in range(2)]
    processes = {process_of(task) for task in tasks}
    assert len(processes - {os.getpid()}) == 2
    for number in range(2):
        tree.write(f"{K}/{number}/state", "off")
    wait_until(lambda: all(map(gone, processes)))


def test_one_that_is_killed_is_off_and_can_be_turned_on_again(tree: DamonTree) -> None:
    os.kill(process_of(turn_on(tree)), signal.SIGKILL)
    wait_until(lambda: tree.read(f"{K}/0/state") == "off\n")
    assert tree.read(f"{K}/0/pid") == "-1\n"
    with pytest.raises(OSError, match="canceled"):
        tree.write(f"{K}/0/state", "update_schemes_stats")
    assert turn_on(tree) > 0


def test_whoever_waits_for_one_that_is_killed_is_told(tree: DamonTree) -> None:
    task = turn_on(tree)
    running = tree.controllers()[0]._running
    assert running is not None
    os.kill(process_of(task), signal.SIGSTOP)
    os.kill(process_of(task), signal.SIGKILL)
    assert running.walk() == {}
    assert running.ended.wait(GENEROUS_S)


def test_what_cannot_be_opened_is_refused_and_said(tree: DamonTree, said: list[str]) -> None:
    turn_on(tree, 1)
    tree.write(f"{K}/0/contexts/nr_contexts", 1)
    tree.write(f"{K}/0/contexts/0/targets/nr_targets", 1)
    tree.write(f"{K}/0/contexts/0/targets/0/pid_target", (1 << 22) + 1)
    with pytest.raises(OSError, match="Invalid argument"):
        tree.write(f"{K}/0/state", "on")
    assert str((1 << 22) + 1) in said[-1]
    assert tree.read(f"{K}/1/state") == "on\n"


def test_without_the_spawner_none_can_be_started_and_those_that_run_go_on(said: list[str]) -> None:
    spawner = Spawner()
    tree = DamonTree(level("mm"), start=starter("smaps", run=spawner.run), avail_operations=list, say=said.append)
    tree.write(f"{K}/nr_kdamonds", 2)
    turn_on(tree, 0)
    os.kill(spawner._pid, signal.SIGKILL)
    os.waitpid(spawner._pid, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        turn_on(tree, 1)
    assert "kdamond 1: " in said[-1]
    assert tree.read(f"{K}/0/state") == "on\n"
    tree.close()
    assert tree.read(f"{K}/0/state") == "off\n"
    spawner.close()


def test_they_end_with_the_program_that_has_started_them() -> None:
    read_end, write_end = os.pipe()
    program = os.fork()
    if program == 0:
        try:
            spawner = Spawner(read_end)
            tree = DamonTree(level("mm"), start=starter("smaps", run=spawner.run), avail_operations=list)
            tree.write(f"{K}/nr_kdamonds", 1)
            os.write(write_end, f"{process_of(turn_on(tree))} {spawner._pid}".encode())
            time.sleep(600)
        finally:
            os._exit(1)
    pids = [int(pid) for pid in os.read(read_end, 100).split()]
    os.close(read_end)
    os.close(write_end)
    os.kill(program, signal.SIGKILL)
    os.waitpid(program, 0)
    wait_until(lambda: all(map(gone, pids)))


def test_a_fork_that_fails_refuses_that_one_only(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    real, calls = os.fork, []

    def fork() -> int:
        calls.append(1)
        if len(calls) == 2:  # the first is the spawner's own; this one happens in it
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    spawner = Spawner()
    tree = DamonTree(level("mm"), start=starter("smaps", run=spawner.run), avail_operations=list, say=said.append)
    tree.write(f"{K}/nr_kdamonds", 1)
    with pytest.raises(OSError, match="Invalid argument"):
        turn_on(tree)
    assert "could not be started" in said[-1]
    assert turn_on(tree) > 0
    tree.close()
    spawner.close()


@pytest.mark.parametrize("process", [False, True])
def test_one_that_fails_before_it_runs_is_not_on(spawner: Spawner, said: list[str], process: bool) -> None:
    run = {"run": spawner.run} if process else {}
    start = starter("smaps", record=lambda: "/nonexistent/x.damon", **run)  # type: ignore[arg-type]
    tree = DamonTree(level("mm"), start=start, avail_operations=list, say=said.append)
    tree.write(f"{K}/nr_kdamonds", 1)
    with pytest.raises(OSError, match="Invalid argument"):
        turn_on(tree)
    assert "/nonexistent" in said[-1]
    assert tree.read(f"{K}/0/state") == "off\n"


def test_one_that_does_not_answer_is_ended_all_the_same(tree: DamonTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydamon.damonfs.remote._PATIENCE_S", 0.3)
    process = process_of(turn_on(tree))
    os.kill(process, signal.SIGSTOP)
    tree.write(f"{K}/0/state", "off")
    assert tree.read(f"{K}/0/state") == "off\n"
    wait_until(lambda: gone(process))
