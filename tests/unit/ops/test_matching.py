"""Processes that are found by patterns: of their names, and of their cgroups, which here are folders of a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.waiting import wait_until

from pydamon.ops.matching import Matching
from pydamon.ops.membership import Change
from pydamon.spec import Match

pytestmark = pytest.mark.usefixtures("processes")

NAME = "pd-match"
SLEEPS = "import time; print(flush=True); time.sleep(600)"


class Started:
    """Processes of names of ours; ended with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, megabytes: int = 0) -> subprocess.Popen[bytes]:
        link = self._folder / name
        if not link.exists():
            link.symlink_to(sys.executable)
        code = f"x = b'x' * ({megabytes} << 20); {SLEEPS}"
        child = subprocess.Popen([str(link), "-S", "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        self.children.append(child)
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    one = Started(tmp_path)
    yield one
    for child in one.children:
        one.end(child)
        assert child.stdout is not None
        child.stdout.close()


def pids(change: Change) -> tuple[set[int], set[int]]:
    """Of those that joined, and of those that left, which are closed."""
    for process in change.left:
        process.close()
    return {process.pid for process in change.joined}, {process.pid for process in change.left}


def close(group: Matching) -> None:
    for process in group.members.values():
        process.close()
    group.close()


def test_processes_of_a_name_join_as_they_come_and_leave_as_they_end(started: Started) -> None:
    group = Matching(Match(names=(f"{NAME}-a*",)), min_age_ns=0)
    assert pids(group.update()) == (set(), set())
    assert group.may_grow()
    first, other = started.start(f"{NAME}-a1"), started.start(f"{NAME}-b")
    assert pids(group.update()) == ({first.pid}, set())
    second = started.start(f"{NAME}-a2")
    assert pids(group.update()) == ({second.pid}, set())
    started.end(first)
    assert pids(group.update()) == (set(), {first.pid})
    assert other.pid not in group.members
    close(group)


def test_a_pattern_of_all_takes_neither_this_process_nor_its_parent_nor_kernel_threads(started: Started) -> None:
    child = started.start(f"{NAME}-c")
    group = Matching(Match(names=("*",), most=1024), min_age_ns=0)
    joined, _ = pids(group.update(1024))
    # Children of our parent stand for other kdamonds of its.
    assert child.pid in joined
    assert not {os.getpid(), 2} & joined
    assert os.getppid() == 1 or os.getppid() not in joined  # who was adopted by init has no supervisor
    close(group)


def test_of_more_than_there_is_room_for_the_largest_are_taken(started: Started) -> None:
    started.start(f"{NAME}-d")
    large = started.start(f"{NAME}-d", megabytes=30)
    group = Matching(Match(names=(f"{NAME}-d",), most=1), min_age_ns=0)
    assert pids(group.update(group.most)) == ({large.pid}, set())
    assert group.left_out == 1
    close(group)


@pytest.mark.parametrize(("before", "after"), [("python", f"{NAME}-e"), (f"{NAME}-e", "other")])
def test_a_process_belongs_from_the_exec_that_gives_it_the_name_and_stays(
    before: str, after: str, tmp_path: Path
) -> None:
    for name in (before, after):
        (tmp_path / name).symlink_to(sys.executable)
    then = [after, "-S", "-c", SLEEPS]
    code = f"import os, sys; print(flush=True); sys.stdin.readline(); os.execv('{tmp_path / after}', {then})"
    with subprocess.Popen([str(tmp_path / before), "-S", "-c", code], stdin=-1, stdout=-1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        group = Matching(Match(names=(f"{NAME}-e",)), min_age_ns=0)
        named = before != "python"
        assert pids(group.update()) == ({child.pid} if named else set(), set())
        child.stdin.write(b"\n")
        child.stdin.close()
        child.stdout.readline()
        wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == f"{after}\n")
        assert pids(group.update()) == (set() if named else {child.pid}, set())
        assert pids(group.update()) == (set(), set())
        close(group)
        child.kill()


def test_processes_of_cgroups_that_match_and_below_belong_until_they_move(started: Started, tmp_path: Path) -> None:
    root = tmp_path / "cgroups"
    inner = root / "system.slice" / "web.service" / "inner"
    inner.mkdir(parents=True)
    (root / "system.slice" / "other.scope").mkdir()
    first, second, third = (started.start(f"{NAME}-g") for _ in range(3))
    (root / "system.slice" / "web.service" / "cgroup.procs").write_text(f"{first.pid}\n0\n")
    (inner / "cgroup.procs").write_text(f"{second.pid}\n")
    (root / "system.slice" / "other.scope" / "cgroup.procs").write_text(f"{third.pid}\n")
    group = Matching(Match(cgroups=("system.slice/*.service",)), min_age_ns=0, below=[root])
    assert pids(group.update()) == ({first.pid, second.pid}, set())
    (inner / "cgroup.procs").write_text("")
    assert pids(group.update()) == (set(), {second.pid})
    shutil.rmtree(root / "system.slice" / "web.service")
    assert pids(group.update()) == (set(), {first.pid})
    assert group.may_grow()
    close(group)


def test_a_machine_without_cgroups_is_said_and_matches_nothing() -> None:
    group = Matching(Match(cgroups=("*",)), below=[])
    assert pids(group.update()) == (set(), set())
    assert group.notices == ["no cgroup v2 is mounted on this machine: patterns of cgroups match nothing"]
    group.close()
