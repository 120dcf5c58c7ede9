"""Whose kdamond it is: somebody else's is shown and left alone, what a killed pydamon left is ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.engines.kernel_fake import BOOT, PID, FakeTree, start_thread

from pydamon.engines.kernel import owner
from pydamon.engines.kernel.engine import KernelEngine
from pydamon.engines.kernel.owner import FILE, Entry
from pydamon.errors import MachineError
from pydamon.linux.damon_sysfs import Roots, find_occupants, kdamond_thread
from pydamon.spec import from_builtins

_WATCHED: list[tuple[str, list[str]]] = []
_HOOKED = False


def _hook(event: str, args: Any) -> None:
    """What is opened for writing, made, renamed or removed below a watched directory."""
    if not _WATCHED or event not in ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.truncate"):
        return
    path = args[0]
    if event == "open" and isinstance(args[2], int) and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    for root, seen in _WATCHED:
        if isinstance(path, str) and os.path.abspath(path).startswith(root):
            seen.append(f"{event} {path}")


@pytest.fixture
def writes(tmp_path: Path) -> Iterator[list[str]]:
    """All writing below ``tmp_path`` while the test looks: an audit hook sees what no check of the result would."""
    global _HOOKED
    if not _HOOKED:
        sys.addaudithook(_hook)
        _HOOKED = True
    seen: list[str] = []
    _WATCHED.append((str(tmp_path), seen))
    yield seen
    _WATCHED.pop()


def make_busy(roots: Roots, pid: int = 77) -> FakeTree:
    """As the machine that this was written on: paddr, one pageout scheme with two filters, Linux 6.18."""
    tree = FakeTree(roots, (6, 18))
    tree.write("kdamonds/nr_kdamonds", 1)
    tree.write("kdamonds/0/contexts/nr_contexts", 1)
    here = "kdamonds/0/contexts/0"
    tree.write(f"{here}/operations", "paddr")
    for name, value in (("sample_us", 500000), ("aggr_us", 5000000)):
        tree.write(f"{here}/monitoring_attrs/intervals/{name}", value)
    tree.write(f"{here}/targets/nr_targets", 1)
    tree.write(f"{here}/targets/0/regions/nr_regions", 1)
    tree.write(f"{here}/targets/0/regions/0/start", 4294967296)
    tree.write(f"{here}/targets/0/regions/0/end", 11274289152)
    tree.write(f"{here}/schemes/nr_schemes", 1)
    tree.write(f"{here}/schemes/0/action", "pageout")
    tree.write(f"{here}/schemes/0/ops_filters/nr_filters", 2)
    start_thread(roots, pid)
    tree._put("kdamonds/0/pid", str(pid), 0o400)
    tree._put("kdamonds/0/state", "on")
    return tree


def spec() -> Any:
    return from_builtins({"kdamonds": [{"contexts": [{"targets": [{"pid": os.getpid()}]}]}]})


def everything_in(path: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in path.rglob("*") if file.is_file()}


def test_a_busy_tree_is_shown_and_not_one_byte_is_written(
    roots: Roots, own: int, tmp_path: Path, writes: list[str]
) -> None:
    tree = make_busy(roots)
    before = everything_in(tmp_path)
    writes.clear()
    with pytest.raises(MachineError) as error:
        KernelEngine(spec(), directory_fd=own, roots=roots, tree=tree)
    assert writes == []
    assert everything_in(tmp_path) == before
    assert error.value.exit_status == 3
    assert str(error.value) == (
        "the kernel's DAMON: is in use by somebody else, and left alone: "
        "kdamond 0 (pid 77; paddr; target 0x100000000-0x2a0000000; scheme pageout)"
    )


def test_the_hook_sees_writing(tmp_path: Path, writes: list[str]) -> None:
    (tmp_path / "file").write_text("")
    assert writes == [f"open {tmp_path}/file"]


def test_the_hosts_own_tree_is_refused_if_it_is_busy(own: int) -> None:
    roots = Roots()
    try:
        busy = find_occupants(roots)
    except MachineError as error:
        pytest.skip(str(error))
    if not busy:
        pytest.skip("nobody uses the kernel's DAMON here")
    with pytest.raises(MachineError, match="left alone"):  # the guard of the tests would see a write
        KernelEngine(spec(), directory_fd=own)


def test_a_tree_that_is_only_made_is_somebodys_too(roots: Roots, own: int) -> None:
    tree = FakeTree(roots)
    tree.write("kdamonds/nr_kdamonds", 1)
    with pytest.raises(MachineError, match=r"kdamond 0 \(off\)"):
        owner.take(own, roots, tree)
    assert tree.read("kdamonds/nr_kdamonds") == "1"


def test_a_kdamond_thread_of_no_tree_is_somebodys(roots: Roots, own: int) -> None:
    start_thread(roots, 99, "kdamond.3")
    with pytest.raises(MachineError, match=r"thread kdamond\.3 \(pid 99\)"):
        owner.take(own, roots)


def test_a_process_that_calls_itself_kdamond_is_nobody(roots: Roots, own: int) -> None:
    start_thread(roots, 99, "kdamond.3", kthread=False)
    owner.take(own, roots).release()


def test_a_module_that_is_enabled_is_somebodys(roots: Roots, own: int) -> None:
    parameters = Path(roots.modules, "damon_reclaim/parameters")
    parameters.mkdir(parents=True)
    (parameters / "enabled").write_text("N\n")
    (parameters / "kdamond_pid").write_text("-1\n")
    owner.take(own, roots).release()
    (parameters / "enabled").write_text("Y\n")
    with pytest.raises(MachineError, match=r"module damon_reclaim \(on\)"):
        owner.take(own, roots)


def test_a_kernel_without_damon_says_so(tmp_path: Path, own: int) -> None:
    roots = Roots(damon=str(tmp_path / "none"), proc="/proc")
    with pytest.raises(MachineError, match="this kernel: has no DAMON"):
        owner.take(own, roots)


def test_two_of_us_at_a_time_are_one_too_many(roots: Roots, own: int) -> None:
    claim = owner.take(own, roots)
    with pytest.raises(MachineError, match="another pydamon"):
        owner.take(own, roots)
    claim.release()
    owner.take(own, roots).release()
    assert os.listdir(own) == []


def dead_pid() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def leave(roots: Roots, own: int, tree: FakeTree, **changes: Any) -> None:
    """What a killed pydamon would have written down about ``tree``."""
    thread = kdamond_thread(tree, 0, roots)
    entry = Entry(
        boot_id=BOOT,
        pid=dead_pid(),
        start_ticks=1,
        kdamond=None if thread is None else (thread.pid, thread.start_ticks),
        fingerprint=owner.fingerprint(tree),
    )
    entry = msgspec.structs.replace(entry, **changes)
    fd = os.open(FILE, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=own)
    os.write(fd, msgspec.json.encode(entry))
    os.close(fd)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.usefixtures("processes")
def test_what_a_killed_pydamon_left_is_ended_if_it_is_exactly_that(roots: Roots, own: int, running: bool) -> None:
    tree = make_busy(roots, PID)
    if not running:
        tree.stop()
    leave(roots, own, tree)
    claim = owner.take(own, roots, tree)
    assert find_occupants(roots) == []
    assert tree.commands == (["off"] if running else [])
    assert claim.entry.pid == os.getpid()
    claim.release()


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "of another boot"},
        {"kdamond": (PID, 778)},  # the same number, another thread
        {"kdamond": (PID + 1, 777)},
        {"pid": os.getpid(), "start_ticks": "ours"},  # who wrote it lives
    ],
)
@pytest.mark.usefixtures("processes")
def test_what_differs_in_anything_is_left_alone(
    roots: Roots, own: int, tmp_path: Path, writes: list[str], changes: dict[str, Any]
) -> None:
    tree = make_busy(roots, PID)
    if changes.get("start_ticks") == "ours":
        start_thread(roots, os.getpid(), "pydamon", start_ticks=5, kthread=False)
        changes = {"pid": os.getpid(), "start_ticks": 5}
    leave(roots, own, tree, **changes)
    before = everything_in(tmp_path)
    writes.clear()
    with pytest.raises(MachineError, match="left alone"):
        owner.take(own, roots, tree)
    assert writes == []
    assert everything_in(tmp_path) == before


@pytest.mark.usefixtures("processes")
def test_a_tree_that_was_changed_since_is_left_alone(roots: Roots, own: int) -> None:
    tree = make_busy(roots, PID)
    tree.stop()
    leave(roots, own, tree)
    tree.write("kdamonds/0/contexts/0/monitoring_attrs/nr_regions/max", 999)
    with pytest.raises(MachineError, match="left alone"):
        owner.take(own, roots, tree)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"boot_id": 3}', b"\xff" * 100, b"9" * 100_000])
def test_a_state_file_of_anything_is_believed_nothing(roots: Roots, own: int, text: bytes) -> None:
    tree = make_busy(roots)
    fd = os.open(FILE, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=own)
    os.write(fd, text)
    os.close(fd)
    with pytest.raises(MachineError, match="left alone"):
        owner.take(own, roots, tree)
    shutil.rmtree(Path(roots.damon, "kdamonds/0"))
    Path(roots.damon, "kdamonds/nr_kdamonds").write_text("0\n")
    shutil.rmtree(Path(roots.proc, "77"))
    owner.take(own, roots, tree).release()


@pytest.mark.parametrize("name", ["../../etc", "pydamon-1/../x", "other"])
@pytest.mark.usefixtures("processes")
def test_only_an_instance_with_a_name_like_ours_is_removed(roots: Roots, own: int, name: str) -> None:
    ours, others = Path(roots.tracing, "instances/pydamon-7"), Path(roots.tracing, "instances", name)
    ours.mkdir(parents=True)
    others.resolve().mkdir(parents=True)
    tree = make_busy(roots, PID)
    leave(roots, own, tree, instance=name)
    owner.take(own, roots, tree).release()
    assert others.resolve().exists()
    tree = make_busy(roots, PID)
    leave(roots, own, tree, instance="pydamon-7")
    owner.take(own, roots, tree).release()
    assert not ours.exists()
