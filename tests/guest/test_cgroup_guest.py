"""A real cgroup v2: processes are put into it, move out, end; it is removed while it is monitored."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.cgroups import remove

from pydamon.engines.user.engine import UserEngine
from pydamon.errors import RequestError
from pydamon.linux.mounts import mounts
from pydamon.ops.cgroup import Cgroup
from pydamon.ops.membership import Membership
from pydamon.spec import from_builtins

pytestmark = pytest.mark.guest


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup; whatever is in it or below in the end is killed, and it is removed."""
    path = mounts("cgroup2")[0] / f"pydamon-test-{os.getpid()}"
    path.mkdir()
    yield path
    if path.exists():
        (path / "cgroup.kill").write_text("1")
        for child in sorted(path.glob("**/"), reverse=True):
            remove(child)


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def put(cgroup: Path, pid: int) -> None:
    (cgroup / "cgroup.procs").write_text(str(pid))


def changes(group: Membership) -> tuple[set[int], set[int]]:
    change = group.update()
    return {process.pid for process in change.joined}, {process.pid for process in change.left}


def test_processes_come_and_go_and_the_cgroup_is_removed(cgroup: Path, sleepers: list[subprocess.Popen[bytes]]) -> None:
    a, b, c = (process.pid for process in sleepers)
    below = cgroup / "x" / "y"
    below.mkdir(parents=True)
    group = Cgroup(cgroup.name, 0)
    assert changes(group) == (set(), set())
    put(cgroup, a)
    put(below, b)
    assert changes(group) == ({a, b}, set())
    put(below, c)
    put(cgroup.parent, a)  # moved out; it lives on
    assert changes(group) == ({c}, {a})
    sleepers[1].kill()
    sleepers[1].wait()
    assert changes(group) == (set(), {b})
    assert group.may_grow()
    put(cgroup.parent, c)
    for path in (below, below.parent, cgroup):
        remove(path)
    assert not group.may_grow()
    assert changes(group) == (set(), {c})
    cgroup.mkdir()  # another one of the same name
    put(cgroup, c)
    assert not group.may_grow()
    assert changes(group) == (set(), set())
    assert group.notices == [f"the cgroup {cgroup} was removed"]
    put(cgroup.parent, c)
    group.close()


def test_the_root_cgroup_has_no_kernel_threads_for_members_and_not_this_process() -> None:
    group = Cgroup(".", 0)
    joined, _ = changes(group)
    assert os.getpid() not in joined
    assert 1 in joined
    assert 2 not in joined
    group.close()


def test_threaded_cgroups(cgroup: Path, sleepers: list[subprocess.Popen[bytes]]) -> None:
    child = cgroup / "threads"
    child.mkdir()
    (child / "cgroup.type").write_text("threaded")
    put(cgroup, sleepers[0].pid)
    with pytest.raises(RequestError, match="is threaded; name the cgroup that holds its processes") as caught:
        Cgroup(str(child))
    assert caught.value.where == "cgroup"
    group = Cgroup(str(cgroup), 0)
    assert changes(group)[0] == {sleepers[0].pid}
    group.close()


def test_a_directory_elsewhere_is_no_cgroup() -> None:
    with pytest.raises(RequestError, match="is not below the cgroup v2 mount"):
        Cgroup("/proc/self")


BUSY = """
import mmap, time
area = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
while True:
    for at in range(0, len(area), 4096):
        area[at] = 1
    time.sleep(0.01)
"""


def test_a_cgroup_is_monitored_from_empty_to_removed(cgroup: Path) -> None:
    request = {
        "targets": [{"cgroup": str(cgroup)}],
        "primitive": "smaps",
        "intervals": {"sample_us": 50_000, "aggr_us": 500_000, "ops_update_us": 500_000},
    }
    engine = UserEngine(from_builtins({"kdamonds": [{"contexts": [request]}]}))
    seen: set[int] = set()
    children: list[subprocess.Popen[bytes]] = []
    accessed = 0
    try:
        for snapshots in engine.monitor():
            seen |= {snapshot.target for snapshot in snapshots}
            accessed += sum(int(snapshot.nr_accesses.sum()) for snapshot in snapshots)
            if len(children) < 2 and len(seen) == len(children):
                children.append(subprocess.Popen([sys.executable, "-c", BUSY]))
                put(cgroup, children[-1].pid)
            elif len(seen) == 2 and accessed and children[0].poll() is None:
                for child in children:
                    child.kill()
                    child.wait()
                remove(cgroup)
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert not engine.stop_requested
    rows = engine.joined()
    assert [(row["target"], row["pid"]) for row in rows] == [(n, child.pid) for n, child in enumerate(children)]
    assert engine.notices() == [f"the cgroup {cgroup} was removed"]
