"""damonfs as programs meet it: mounted, over the kernel's place in a view of its own, with real processes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.helpers.waiting import GENEROUS_S, wait_until

from pydamon.damonfs import namespace
from pydamon.damonfs.legacy import LegacyTree
from pydamon.damonfs.levels import level
from pydamon.damonfs.remote import Spawner
from pydamon.damonfs.runner import starter
from pydamon.damonfs.tree import DamonTree, usable_operations
from pydamon.errors import MachineError
from pydamon.records.reader import RecordReader

MOUNT = [*PYDAMON, "mount"]
# Keeps 64 MiB, and uses all of it again and again.
BUSY = """
import sys
block = bytearray(64 << 20)
print(flush=True)
while True:
    for at in range(0, len(block), 4096):
        block[at] = 1
"""


def why_not_mounted() -> str | None:
    from pydamon.damonfs.fuse import binding

    try:
        binding()
    except MachineError as error:
        return str(error)
    if os.getuid() != 0:
        return "needs root"
    return None if os.path.exists("/dev/fuse") else "there is no /dev/fuse"


needs_fuse = pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}")


@pytest.fixture(name="busy")
def busy_fixture() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


class Kdamond:
    """The first kdamond of a tree that runs the user engine."""

    def __init__(self, tree: DamonTree, pid: int) -> None:
        self.tree = tree
        tree.write("/admin/kdamonds/nr_kdamonds", 1)
        self.write("contexts/nr_contexts", 1)
        self.context("targets/nr_targets", 1)
        self.context("targets/0/pid_target", pid)
        self.context("monitoring_attrs/intervals/aggr_us", 50_000)
        self.context("monitoring_attrs/intervals/update_us", 100_000)
        self.context("schemes/nr_schemes", 1)
        self.match_all(0)

    def match_all(self, number: int) -> None:
        for name in ("sz", "nr_accesses", "age"):
            self.context(f"schemes/{number}/access_pattern/{name}/max", 2**64 - 1)

    def write(self, name: str, value: object) -> None:
        self.tree.write(f"/admin/kdamonds/0/{name}", str(value))

    def context(self, name: str, value: object) -> None:
        self.write(f"contexts/0/{name}", value)

    def read(self, name: str) -> str:
        return self.tree.read(f"/admin/kdamonds/0/{name}").strip()

    def scheme(self, name: str, number: int = 0) -> int:
        return int(self.read(f"contexts/0/schemes/{number}/{name}"))

    def tried(self) -> list[str]:
        self.write("state", "update_schemes_tried_regions")
        return self.tree.names("/admin/kdamonds/0/contexts/0/schemes/0/tried_regions")[1:]

    def state(self, word: str) -> None:
        self.write("state", word)


@pytest.fixture(name="kdamond", params=["thread", "process"])
def kdamond_fixture(busy: subprocess.Popen[bytes], request: pytest.FixtureRequest) -> Iterator[Kdamond]:
    spawner = Spawner() if request.param == "process" else None
    start = starter() if spawner is None else starter(run=spawner.run)
    said: list[str] = []
    tree = DamonTree(level("mm"), start=start, avail_operations=usable_operations, say=said.append)
    yield Kdamond(tree, busy.pid)
    tree.close()
    if spawner is not None:
        spawner.close()


class TestEngine:
    """The tree with the user engine behind it, without a mount."""

    def test_it_runs_as_a_task_of_that_name_and_stops(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        pid = int(kdamond.read("pid"))
        assert Path(f"/proc/{pid}/comm").read_text() == "kdamond.0\n"
        kdamond.state("off")
        assert kdamond.read("state") == "off"
        wait_until(lambda: not Path(f"/proc/{pid}").exists())  # it may still be on its way out
        kdamond.state("on")
        assert kdamond.read("state") == "on"

    def test_each_walk_tells_of_a_pass_that_came_after_it(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        before = 0
        for _ in range(3):
            assert kdamond.tried()
            kdamond.state("update_schemes_stats")
            assert kdamond.scheme("stats/nr_snapshots") > before
            before = kdamond.scheme("stats/nr_snapshots")
        assert kdamond.scheme("tried_regions/total_bytes") >= 64 << 20

    def test_a_commit_keeps_schemes_and_changes_the_number_of_regions(self, kdamond: Kdamond) -> None:
        kdamond.context("monitoring_attrs/nr_regions/min", 50)
        kdamond.state("on")
        wait_until(lambda: len(kdamond.tried()) > 20)
        kdamond.context("monitoring_attrs/nr_regions/min", 3)
        kdamond.context("monitoring_attrs/nr_regions/max", 20)
        kdamond.state("update_schemes_stats")
        passes = kdamond.scheme("stats/nr_snapshots")
        kdamond.state("commit")
        wait_until(lambda: len(kdamond.tried()) <= 20)
        kdamond.state("update_schemes_stats")
        assert kdamond.scheme("stats/nr_snapshots") > passes

    def test_a_commit_of_another_target_goes_on_with_both(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        kdamond.tried()
        kdamond.state("update_schemes_stats")
        bytes_before, passes = kdamond.scheme("tried_regions/total_bytes"), kdamond.scheme("stats/nr_snapshots")
        first = int(kdamond.read("contexts/0/targets/0/pid_target"))
        with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            kdamond.context("targets/nr_targets", 2)
            kdamond.context("targets/0/pid_target", first)
            kdamond.context("targets/1/pid_target", other.pid)
            kdamond.state("commit")
            kdamond.tried()
            kdamond.state("update_schemes_stats")
            assert kdamond.scheme("tried_regions/total_bytes") > bytes_before + (60 << 20)
            assert kdamond.scheme("stats/nr_snapshots") > passes  # the same scheme, not a new one
            other.kill()
        assert kdamond.read("state") == "on"

    def test_probes_can_be_committed_with_another_target(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        kdamond.tried()
        first = int(kdamond.read("contexts/0/targets/0/pid_target"))
        kdamond.context("monitoring_attrs/probes/nr_probes", 1)
        kdamond.context("monitoring_attrs/probes/0/filters/nr_filters", 1)
        for name in ("matching", "allow"):
            kdamond.context(f"monitoring_attrs/probes/0/filters/0/{name}", "Y")
        kdamond.context("targets/nr_targets", 2)
        kdamond.context("targets/0/pid_target", first)
        kdamond.context("targets/1/pid_target", os.getpid())
        kdamond.state("commit")

        def anonymous_bytes() -> int:
            found = 0
            for number in kdamond.tried():
                start, end, hits = (
                    kdamond.scheme(f"tried_regions/{number}/{name}") for name in ("start", "end", "probes/0/hits")
                )
                found += (end - start) if hits else 0
            return found

        wait_until(lambda: anonymous_bytes() >= 60 << 20)  # of which the process sweeps 64 MiB
        assert kdamond.read("state") == "on"

    def test_a_wrong_commit_leaves_it_as_it_was(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        kdamond.context("targets/0/pid_target", 2**31 - 1)
        with pytest.raises(OSError) as caught:
            kdamond.state("commit")
        assert caught.value.errno == errno.EINVAL
        assert kdamond.tried()

    def test_a_paused_kdamond_waits_and_goes_on(self, kdamond: Kdamond) -> None:
        kdamond.state("on")
        kdamond.tried()
        kdamond.context("pause", "Y")
        kdamond.state("commit")
        kdamond.state("update_schemes_stats")
        paused = kdamond.scheme("stats/nr_snapshots")
        time.sleep(0.2)  # in which nothing is to happen
        kdamond.state("update_schemes_stats")
        assert kdamond.scheme("stats/nr_snapshots") <= paused + 1  # what was under way when it was told
        kdamond.context("pause", "N")
        kdamond.state("commit")
        assert kdamond.tried()

    def test_it_ends_with_its_target_when_that_was_waited_for(
        self, kdamond: Kdamond, busy: subprocess.Popen[bytes]
    ) -> None:
        kdamond.state("on")
        kdamond.tried()
        busy.kill()
        wait_until(lambda: Path(f"/proc/{busy.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        kdamond.state("update_schemes_stats")  # a zombie is still there for the kernel
        assert kdamond.read("state") == "on"
        busy.wait()
        wait_until(lambda: kdamond.read("state") == "off")
        kdamond.state("off")  # nothing to do, and no error since 7.3
        with pytest.raises(OSError) as caught:
            kdamond.state("update_schemes_stats")
        assert caught.value.errno == errno.ECANCELED

    def test_a_scheme_that_never_applies_is_not_waited_for(self, kdamond: Kdamond) -> None:
        kdamond.context("schemes/0/stats/max_nr_snapshots", 1)
        kdamond.state("on")
        kdamond.tried()
        assert kdamond.tried() == []


class HeardEvent:
    """A user event that somebody listens to."""

    enabled = True

    def __init__(self, name: str, fields: str, root: str) -> None:
        self.written = 0
        self.closed = False

    def write(self, payload: bytes) -> None:
        self.written += 1

    def close(self) -> None:
        self.closed = True


def test_what_kdamonds_find_is_offered_as_user_events(
    busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, HeardEvent] = {}

    def offered(name: str, fields: str, root: str) -> HeardEvent:
        heard[name] = HeardEvent(name, fields, root)
        return heard[name]

    monkeypatch.setattr("pydamon.run.events.UserEvent", offered)
    tree = DamonTree(level("mm"), start=starter(user_events=True), avail_operations=usable_operations)
    try:
        kdamond = Kdamond(tree, busy.pid)
        kdamond.state("on")
        told = ("damon_aggregated", "damos_before_apply", "damos_stat_after_apply_interval")
        wait_until(lambda: all(heard[name].written for name in told))
        assert kdamond.tried()  # the tree hears of the passes of schemes as ever
        before = heard["damon_aggregated"].written
        kdamond.context("targets/0/pid_target", os.getpid())
        kdamond.state("commit")  # goes on with another engine
        wait_until(lambda: heard["damon_aggregated"].written > before)
        assert not heard["damos_esz"].written  # there is no quota
    finally:
        tree.close()
    assert all(event.closed for event in heard.values())


@pytest.mark.guest
def test_tracing_tools_see_what_kdamonds_find(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    event = Path("/sys/kernel/tracing/events/user_events/damon_aggregated")
    if not Path("/sys/kernel/tracing/user_events_data").exists():
        pytest.skip("the kernel has no CONFIG_USER_EVENTS")
    with mounted(tmp_path, "--user-events") as kdamonds:
        (kdamonds / "nr_kdamonds").write_text("1")
        (kdamonds / "0/contexts/nr_contexts").write_text("1")
        (kdamonds / "0/contexts/0/targets/nr_targets").write_text("1")
        (kdamonds / "0/contexts/0/targets/0/pid_target").write_text(str(busy.pid))
        (kdamonds / "0/state").write_text("on")
        wait_until(event.exists)
        (event / "enable").write_text("1")
        trace = Path("/sys/kernel/tracing/trace")
        wait_until(lambda: "damon_aggregated: target_id=" in trace.read_text())
        (event / "enable").write_text("0")
        (kdamonds / "0/state").write_text("off")
        wait_until(lambda: not event.exists())


@pytest.mark.guest
def test_physical_memory_is_monitored_through_the_tree() -> None:
    """Needs idle page tracking, which the guest lab has."""
    assert usable_operations() == ["vaddr", "fvaddr", "paddr"]
    tree = DamonTree(level("6.12"), start=starter(), avail_operations=usable_operations)
    try:
        kdamond = Kdamond(tree, 0)
        kdamond.context("operations", "paddr")
        kdamond.state("on")
        assert kdamond.tried()
        assert kdamond.scheme("tried_regions/total_bytes") > 1 << 30  # node 0 alone has 2 GiB
    finally:
        tree.close()


def test_the_legacy_files_monitor_and_write_a_record(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "legacy.damon"
    tree = LegacyTree(level("mm"), make_start=starter)
    try:
        for name, text in (
            ("attrs", "5000 50000 100000 10 1000"),
            ("target_ids", busy.pid),
            ("schemes", f"0 {2**64 - 1} 0 {2**32 - 1} 0 {2**32 - 1} 5 0 0 0 0 0 0 0 0 0 0 0"),
            ("record", f"4096 {path}"),
            ("monitor_on", "on"),
        ):
            tree.write(f"/{name}", f"{text}\n")
        pid = tree.read("/kdamond_pid").strip()
        assert Path(f"/proc/{pid}/comm").read_text() == "kdamond.0\n"
        wait_until(lambda: int(tree.read("/schemes").split()[19]) > 64 << 20)  # sz_tried
        tree.write("/monitor_on", "off")
    finally:
        tree.close()
    assert tree.read("/kdamond_pid") == "none\n"
    with RecordReader(path) as record:
        assert sum(batch.start.size for batch in record.batches()) > 0


@contextlib.contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Path]:
    done = subprocess.run(
        [*MOUNT, str(directory), *options], capture_output=True, text=True, timeout=GENEROUS_S, check=False
    )
    assert done.returncode == 0, done.stderr
    try:
        yield directory / "admin" / "kdamonds"
    finally:
        subprocess.run(["umount", directory], check=True, timeout=GENEROUS_S)


@needs_fuse
class TestMounted:
    def test_files_behave_as_in_sysfs(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "--level", "6.18") as kdamonds:
            assert namespace.mount_type(str(tmp_path)) == "fuse.damonfs"
            (kdamonds / "nr_kdamonds").write_text("1\n")
            first = kdamonds / "0"
            assert sorted(os.listdir(first)) == ["contexts", "pid", "refresh_ms", "state"]
            assert oct((first / "pid").stat().st_mode) == "0o100400"
            assert (first / "state").stat().st_size == 4096
            assert (first / "state").read_text() == "off\n"
            refused: list[tuple[int, Callable[[], object]]] = [
                (errno.EACCES, lambda: (first / "pid").open("w")),
                (errno.EACCES, lambda: (first / "new").open("w")),
                (errno.EPERM, lambda: (first / "new").mkdir()),
                (errno.EPERM, lambda: (first / "state").unlink()),
                (errno.EPERM, lambda: (first / "state").rename(first / "new")),
                (errno.EINVAL, lambda: (first / "state").write_text("onn")),
                (errno.ERANGE, lambda: (first / "refresh_ms").write_text("4294967296")),
                (errno.ENOENT, lambda: (kdamonds / "1" / "state").read_text()),
            ]
            for number, action in refused:
                with pytest.raises(OSError) as caught:
                    action()
                assert caught.value.errno == number
            with (first / "state").open() as opened:
                (kdamonds / "nr_kdamonds").write_text("0")
                with pytest.raises(OSError) as caught:
                    opened.read()
                assert caught.value.errno == errno.ENODEV
            assert os.listdir(kdamonds) == ["nr_kdamonds"]
            assert not first.is_dir()

    def test_other_users_may_look_but_not_read(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        for parent in list(tmp_path.parents)[:2]:  # pytest's own directories are its user's only
            parent.chmod(0o755)
        with mounted(tmp_path) as kdamonds:
            done = subprocess.run(
                ["sh", "-c", f"ls {kdamonds}; cat {kdamonds}/nr_kdamonds; echo 1 > {kdamonds}/nr_kdamonds"],
                capture_output=True, text=True, timeout=GENEROUS_S, check=False, user=65534, group=65534, cwd="/",
            )  # fmt: skip
            assert done.stdout == "nr_kdamonds\n", done.stderr
            assert done.stderr.count("Permission denied") == 2
            assert (kdamonds / "nr_kdamonds").read_text() == "0\n"

    def test_unmounting_ends_the_kdamonds_and_the_process(self, tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
        with mounted(tmp_path) as kdamonds:
            (kdamonds / "nr_kdamonds").write_text("1")
            (kdamonds / "0/contexts/nr_contexts").write_text("1")
            (kdamonds / "0/contexts/0/targets/nr_targets").write_text("1")
            (kdamonds / "0/contexts/0/targets/0/pid_target").write_text(str(busy.pid))
            (kdamonds / "0/state").write_text("on")
            task = int((kdamonds / "0/pid").read_text())
            assert Path(f"/proc/{task}/comm").read_text() == "kdamond.0\n"
        wait_until(lambda: not Path(f"/proc/{task}").exists())

    def test_in_the_foreground_it_ends_with_a_signal(self, tmp_path: Path) -> None:
        with subprocess.Popen([*MOUNT, "-f", str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline().startswith(f"damonfs on {tmp_path} (pid ")
            assert namespace.mount_type(str(tmp_path)) == "fuse.damonfs"
            child.send_signal(signal.SIGINT)
            assert child.wait(GENEROUS_S) == 130
        assert namespace.mount_type(str(tmp_path)) is None

    def test_interrupted_while_it_is_mounted_leaves_nothing(self, tmp_path: Path) -> None:
        for delay in (0.2, 0.5, 0.8):
            with subprocess.Popen([*MOUNT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
                time.sleep(delay)
                child.send_signal(signal.SIGINT)
                status = child.wait(GENEROUS_S)
            if status == 0:  # it was done before
                subprocess.run(["umount", str(tmp_path)], check=True)
            assert namespace.mount_type(str(tmp_path)) is None

    def test_in_the_foreground_it_says_if_its_server_was_killed(self, tmp_path: Path) -> None:
        with subprocess.Popen([*MOUNT, "-f", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None
            server = int(re.findall(rb"\(pid (\d+)\)", child.stdout.readline())[0])
            os.kill(server, signal.SIGKILL)
            _, said = child.communicate(timeout=GENEROUS_S)
        subprocess.run(["umount", "-l", str(tmp_path)], check=False)
        assert child.returncode == 1
        assert said.count(b"\n") == 1
        assert b"ended unexpectedly" in said

    def test_it_goes_when_who_started_it_is_killed(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [*MOUNT, str(tmp_path), "--", "sh", "-c", "echo ready; exec sleep 3600"], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            child.kill()
        wait_until(lambda: namespace.mount_type(str(tmp_path)) is None)
        for task in tasks:  # the command lives on, with nothing to use
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(task), signal.SIGKILL)

    def test_what_is_refused_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for arguments, status, text in (
            ([], 2, "DIRECTORY: is missing; or give a command after --"),
            ([str(tmp_path / "file")], 2, "is not a directory"),
            ([str(tmp_path / "none")], 2, "No such file or directory"),
            ([str(tmp_path), "--log", str(tmp_path / "none" / "log")], 2, "--log: "),
            ([str(tmp_path), "--level", "5.15"], 2, "--level: '5.15' is not known"),
            (["/sys/kernel/mm"], 2, "is the kernel's, for everybody on this machine"),
            (["--", "/does/not/exist"], 2, "No such file or directory"),
        ):
            done = subprocess.run([*MOUNT, *arguments], capture_output=True, text=True, timeout=GENEROUS_S, check=False)
            (line,) = done.stderr.splitlines()
            assert done.returncode == status, done.stderr
            assert line.startswith("pydamon")
            assert text in line
        assert namespace.mount_type(str(tmp_path)) is None

    def test_a_command_sees_it_in_the_kernels_place_and_nobody_else_does(self) -> None:
        before = namespace.mount_type(namespace.SYSFS)
        script = f"cat {namespace.SYSFS}/admin/kdamonds/nr_kdamonds; grep -c {namespace.SYSFS} /proc/mounts; exit 7"
        done = subprocess.run(
            [*MOUNT, "--", "sh", "-c", script], capture_output=True, text=True, timeout=GENEROUS_S, check=False
        )
        assert (done.returncode, done.stdout) == (7, "0\n1\n"), done.stderr
        assert namespace.mount_type(namespace.SYSFS) == before is None
