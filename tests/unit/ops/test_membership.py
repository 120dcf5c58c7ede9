"""Who belongs to a group: trees and cgroups whose processes come, go and are too short to be seen twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError, RequestError
from pydamon.linux.mounts import mounts
from pydamon.linux.process import Process, start_ticks
from pydamon.ops import membership as membership_module
from pydamon.ops.cgroup import Cgroup, resolve
from pydamon.ops.membership import Change, Children, Membership, Pids, command_of, read_stat

# Does what it is told, word by word, and answers with the pid of what it started: a child that sleeps ("fork"), fifty
# that end at once ("short"), one that is not waited for ("zombie"), a child with a child of its own ("middle").
PARENT = """
import os, sys, time
def say(number):
    os.write(1, b"%d\\n" % number)
def fork(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid
def middle():
    say(fork(lambda: time.sleep(600)))
    time.sleep(600)
for word in sys.stdin:
    word = word.strip()
    if word == "fork":
        say(fork(lambda: time.sleep(600)))
    elif word == "short":
        for _ in range(50):
            os.waitpid(fork(lambda: None), 0)
        say(0)
    elif word == "zombie":
        pid = fork(lambda: None)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        say(pid)
    elif word == "middle":
        say(fork(middle))
"""


class Tree:
    """A process that forks when told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=-1, stdout=-1, start_new_session=True)
        self.pid = self.process.pid

    def tell(self, word: str, answers: int = 1) -> list[int]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()
        return [int(self.process.stdout.readline()) for _ in range(answers)]

    def middle(self) -> tuple[int, int]:
        """A child that has a child of its own, and that one; numbers of processes may begin anew between them."""
        one, other = self.tell("middle", 2)
        stat = read_stat(one)
        assert stat is not None
        return (one, other) if stat.ppid == self.pid else (other, one)

    def close(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)  # its own session: all that it forked, and nothing else
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def tree(processes: None) -> Iterator[Tree]:
    tree = Tree()
    yield tree
    tree.close()


@pytest.fixture(params=["files", "scan"])
def children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Children]:
    """Makes a `Children` that finds them in one of the two ways."""
    if request.param == "files" and not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        pytest.skip("this kernel has no /proc/PID/task/TID/children")
    monkeypatch.setattr(Children, "_files_are_cheaper", lambda self: request.param == "files")
    return Children


@pytest.fixture
def closing() -> Iterator[Callable[[Membership], Membership]]:
    """Closes memberships and all their processes at the end."""
    made: list[Membership] = []

    def add(membership: Membership) -> Membership:
        made.append(membership)
        return membership

    yield add
    for membership in made:
        for process in (*membership.roots, *membership.members.values()):
            process.close()
        membership.close()


def pids(processes: list[Process]) -> set[int]:
    return {process.pid for process in processes}


def kill(pid: int) -> None:
    """End a process that a test's tree started, and wait until it is over."""
    process = Process(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not process.alive())
    process.close()


def test_stat_is_read_as_the_kernel_writes_it() -> None:
    own = read_stat(os.getpid())
    assert own is not None
    assert (own.ppid, own.ended, own.kernel) == (os.getppid(), False, False)
    assert own.start_ticks == start_ticks(os.getpid())
    assert read_stat(2**22 + 5) is None


class TestPids:
    def test_they_join_once_and_leave_when_they_end(
        self, tree: Tree, closing: Callable[[Membership], Membership]
    ) -> None:
        other = tree.tell("fork")[0]
        group = closing(Pids([tree.pid, other]))
        change = group.update()
        assert [process.pid for process in change.joined] == [tree.pid, other]
        assert group.update() == Change()
        kill(other)
        assert [process.pid for process in group.update().left] == [other]
        assert group.update() == Change()
        assert not group.may_grow()

    def test_one_that_is_given_twice_or_does_not_exist_is_refused(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(RequestError, match="given twice"):
            Pids([os.getpid(), os.getpid()])
        with pytest.raises(RequestError, match="no process has the id"):
            Pids([os.getpid(), 2**22 + 5])
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_group_that_was_never_asked_closes_its_processes(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        Pids([os.getpid()]).close()
        assert len(os.listdir("/proc/self/fd")) == before


class TestChildren:
    def test_children_and_grandchildren_join(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=0))
        assert pids(group.update().joined) == {tree.pid}
        child = tree.tell("fork")[0]
        middle = set(tree.tell("middle", 2))
        assert pids(group.update().joined) == {child, *middle}
        assert group.update() == Change()

    def test_an_orphan_stays_a_member(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=0))
        middle, grandchild = tree.middle()
        group.update()
        kill(middle)
        assert pids(group.update().left) == {middle}
        assert grandchild in group.members
        assert group.update() == Change()

    @pytest.mark.usefixtures("processes")
    def test_the_children_of_an_orphan_join_and_keep_the_group_alive(
        self, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        with subprocess.Popen(["sh", "-c", "sh -c 'sleep 600 & wait' & echo $!; wait"], stdout=-1) as root:
            assert root.stdout
            middle = int(root.stdout.readline())
            group = closing(children(root.pid, min_age_ns=0))
            wait_until(lambda: group.update() is None or len(group.members) == 3)
            (leaf,) = group.members.keys() - {root.pid, middle}
            root.kill()
            root.wait()
            assert pids(group.update().left) == {root.pid}
            assert group.may_grow()
            kill(leaf)
            wait_until(lambda: group.update() is None or not group.members)
            assert not group.may_grow()

    def test_a_young_process_joins_when_it_is_seen_again_even_as_an_orphan(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=3600 * 10**9))
        group.update()
        middle, grandchild = tree.middle()
        assert group.update() == Change()
        kill(middle)
        assert pids(group.update().joined) == {grandchild}
        assert group.too_short == 1

    def test_short_children_are_counted_and_leave_nothing_open(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=3600 * 10**9))
        group.update()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            child = tree.tell("fork")[0]
            assert group.update() == Change()
            kill(child)  # a zombie now: nobody waits for it
            assert group.update() == Change()
        assert group.too_short == 5
        tree.tell("zombie")
        group.update()
        group.update()
        assert group.too_short == 6
        tree.tell("short")
        assert group.update() == Change()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_what_finds_no_room_joins_later(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=0))
        all_of_them = {tree.tell("fork")[0] for _ in range(5)}
        change = group.update(4)
        assert len(change.joined) == 4
        assert group.left_out == 2
        assert group.update(4) == Change()
        assert group.left_out == 2
        (notice,) = group.notices
        assert "2 processes more than can be monitored" in notice
        group.update(10, 1)
        assert group.left_out == 1
        group.update(10)
        assert {*group.members} == {tree.pid, *all_of_them}
        assert (group.left_out, group.too_short) == (0, 0)

    def test_the_number_of_processes_looked_at_is_bounded(
        self,
        tree: Tree,
        children: Callable[..., Children],
        closing: Callable[[Membership], Membership],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(membership_module, "MAX_LOOKS", 4)
        group = closing(children(tree.pid, min_age_ns=0))
        for _ in range(3):
            tree.tell("middle", 2)
        for _ in range(3):
            group.update()
        assert len(group.members) == 7
        assert len([line for line in group.notices if "not all are looked at" in line]) <= 1

    def test_a_pid_that_is_used_again_is_another_process(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(tree.pid, min_age_ns=0))
        group.update()
        child = tree.tell("fork")[0]
        (first,) = group.update().joined
        # As if the child had ended and its pid were a stranger's by now, who has a child.
        kill(child)
        group._waiting[os.getpid()] = start_ticks(os.getpid()) - 1
        group._waiting[tree.pid + 100_000] = 1
        change = group.update()
        assert change.left == [first]
        assert change.joined == []
        assert group.too_short == 2

    def test_this_process_and_what_it_starts_is_no_member(
        self, tree: Tree, children: Callable[..., Children], closing: Callable[[Membership], Membership]
    ) -> None:
        group = closing(children(os.getppid(), min_age_ns=0))
        joined = pids(group.update().joined)
        assert os.getppid() in joined
        assert not joined & {os.getpid(), tree.pid}


class FakeCgroup:
    """A directory tree that looks like a cgroup v2 mount."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        (mount / "cgroup.procs").write_text("1\n")

    def set(self, name: str, *pids: int) -> None:
        (self.mount / name).mkdir(parents=True, exist_ok=True)
        (self.mount / name / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@pytest.fixture
def fake(tmp_path: Path) -> FakeCgroup:
    (tmp_path / "mount").mkdir()
    return FakeCgroup(tmp_path / "mount")


class TestCgroup:
    def test_processes_of_descendants_join_and_leave(
        self, tree: Tree, fake: FakeCgroup, closing: Callable[[Membership], Membership]
    ) -> None:
        one, two, three = (tree.tell("fork")[0] for _ in range(3))
        fake.set("a", one)
        fake.set("a/b/c", two, two)
        group = closing(Cgroup("a", 0, below=[fake.mount]))
        assert pids(group.update().joined) == {one, two}
        fake.set("a/b/c", three)
        change = group.update()
        assert (pids(change.joined), pids(change.left)) == ({three}, {two})
        change.left[0].close()
        kill(one)
        change = group.update()
        assert (pids(change.joined), pids(change.left)) == (set(), {one})
        change.left[0].close()
        assert group.roots == []

    def test_a_removed_cgroup_is_said_once_and_a_new_one_of_its_name_is_another(
        self, tree: Tree, fake: FakeCgroup, closing: Callable[[Membership], Membership]
    ) -> None:
        fake.set("a", tree.pid)
        group = closing(Cgroup(str(fake.mount / "a"), 0, below=[fake.mount]))
        group.update()
        assert group.may_grow()
        shutil.rmtree(fake.mount / "a")
        fake.set("a", tree.pid)
        left = group.update().left
        assert pids(left) == {tree.pid}
        left[0].close()
        assert not group.may_grow()
        assert group.update() == Change()
        assert group.notices == [f"the cgroup {fake.mount / 'a'} was removed"]

    def test_an_empty_cgroup_waits_for_processes(
        self, tree: Tree, fake: FakeCgroup, closing: Callable[[Membership], Membership]
    ) -> None:
        fake.set("a")
        group = closing(Cgroup("a", 0, below=[fake.mount]))
        assert group.update() == Change()
        assert group.may_grow()
        fake.set("a", tree.pid)
        assert pids(group.update().joined) == {tree.pid}

    def test_kernel_threads_strangers_and_this_process_are_no_members(
        self, fake: FakeCgroup, closing: Callable[[Membership], Membership]
    ) -> None:
        kernel = [pid for pid in (2, 3, 4) if (stat := read_stat(pid)) is not None and stat.kernel]
        fake.set("a", 0, os.getpid(), 2**22 + 5, *kernel)
        group = closing(Cgroup("a", 0, below=[fake.mount]))
        assert group.update() == Change()
        assert group.too_short == 0
        assert "another pid namespace" in group.notices[0]

    def test_its_directory_is_closed(self, fake: FakeCgroup) -> None:
        before = len(os.listdir("/proc/self/fd"))
        fake.set("a")
        fake.set("a/b")
        group = Cgroup("a", below=[fake.mount])
        group.update()
        assert len(os.listdir("/proc/self/fd")) == before + 1
        group.close()
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/etc", "is not below the cgroup v2 mount"),
            ("../elsewhere", "is not below the cgroup v2 mount"),
            ("link", "is not below the cgroup v2 mount"),
            ("none", "does not exist"),
            ("cgroup.procs", "is not a directory"),
            ("plain", "has no cgroup.procs"),
            ("", "is not a path"),
            ("a\0b", "is not a path"),
        ],
    )
    def test_what_is_no_cgroup_is_refused_by_option(self, fake: FakeCgroup, path: str, reason: str) -> None:
        (fake.mount / "plain").mkdir()
        (fake.mount / "link").symlink_to("/tmp")
        with pytest.raises(RequestError, match=reason) as caught:
            Cgroup(path, below=[fake.mount])
        assert caught.value.where == "cgroup"

    def test_without_a_mount_it_is_the_machines_fault(self) -> None:
        with pytest.raises(MachineError, match="no cgroup v2 is mounted"):
            resolve("a", [])

    def test_mounts_are_read_from_mountinfo(self) -> None:
        text = (
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw\n"
            "31 30 0:27 / /sys/fs/cgroup/uni\\040fied rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
            "32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n"
        )
        assert mounts("cgroup2", text) == [Path("/sys/fs/cgroup/uni fied")]


def test_a_command_is_told_only_while_the_process_lives(tree: Tree) -> None:
    process = Process(tree.tell("fork")[0])
    assert sys.executable in command_of(process)
    assert len(command_of(process)) <= 200
    kill(process.pid)
    assert command_of(process) == "?"
    process.close()
