"""Actions on memory of a real child process of this test, as far as a machine without swap and nodes goes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.unit.ops.action_targets import acting_on, apply, scheme, small_pages
from tests.unit.primitives.bpf_child import MIB, OBSTACLE, PAGE, Child, kib_of, pages, started_child

from pydamon.errors import MachineError
from pydamon.linux import madvise, page_flags, pagemap_scan
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.ops.actions import acting, probe
from pydamon.spec.schemes import Filter, SizeRange

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_bpf = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

ANON = pagemap_scan.PRESENT
HUGE = pagemap_scan.PRESENT | pagemap_scan.HUGE


@pytest.fixture
def child(processes: None) -> Iterator[Child]:
    yield from started_child()


@pytest.fixture
def area(child: Child) -> int:
    """4 MiB of the child in small pages, all touched."""
    at = child.do("add", "a", 4 * MIB)
    child.do("touch", "a", "all")
    return at


def flags(child: Child, start: int, size: int) -> np.ndarray:
    table = Pagemap(child.pid)
    frames = frames_of(table.entries(pages(start, size // PAGE))[0])
    table.close()
    return page_flags.FrameFile(page_flags.FLAGS).read(frames)


def test_cold_counts_what_is_in_memory(child: Child, area: int) -> None:
    child.do("unmap", "a", 256, 256)  # 1 MiB is gone
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("cold"), (area + MIB // 2, MIB), (area + 3 * MIB // 2, MIB))
    assert done.applied.tolist() == [MIB // 2, MIB // 2]
    assert done.passed.tolist() == [MIB, MIB]


def test_regions_may_come_in_any_order(child: Child, area: int) -> None:
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("cold"), (area + 2 * MIB, MIB), (area, PAGE))
    assert done.applied.tolist() == [MIB, PAGE]


def test_locked_memory_refuses_and_the_rest_goes_on(child: Child, area: int) -> None:
    locked = child.do("add", "l", 2 * MIB, "locked")
    low, high = min(area, locked), max(area, locked)
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("lru_deprio"), (low, 2 * MIB), (high, 2 * MIB))
    applied = dict(zip((low, high), done.applied.tolist(), strict=True))
    assert applied == {locked: 0, area: 2 * MIB}


def test_lru_prio_marks_as_used_and_a_second_time_activates(child: Child, area: int) -> None:
    if probe._lru_gen():
        pytest.skip("the multi-generational LRU does not show what is active")
    with acting_on(child.pid) as ops:
        apply(ops, scheme("cold"), (area, 4 * MIB))
        done = apply(ops, scheme("lru_prio"), (area, 2 * MIB))
        assert done.applied.tolist() == [2 * MIB]
        referenced = (flags(child, area, 4 * MIB) & np.uint64(1 << 2)) != 0  # KPF_REFERENCED
        assert referenced[:512].all()
        assert not referenced[512:].any()
        apply(ops, scheme("lru_prio"), (area, 2 * MIB))
        active = (flags(child, area, 4 * MIB) & page_flags.ACTIVE) != 0
        assert active[:512].mean() > 0.9  # the kernel activates in batches of some pages
        assert not active[512:].any()
        # The filter sees the same.
        done = apply(ops, scheme("stat", Filter(filter_type="active", allow=True)), (area, 4 * MIB))
        assert done.applied.tolist() == [0]
        assert int(active.sum()) * PAGE <= int(done.passed[0]) <= 2 * MIB


@pytest.mark.usefixtures("processes")
def test_collapse_makes_huge_pages() -> None:
    with small_pages(8 * MIB) as (pid, at):
        # Two blocks are whole; of those that the region begins and ends in only a page is in it.
        region = (at + 2 * MIB - PAGE, 4 * MIB + 2 * PAGE)
        with acting_on(pid, dry_run=True) as ops:
            assert apply(ops, scheme("collapse"), region).applied.tolist() == [4 * MIB]
            (plan,) = ops.actions.take_plans()
            assert plan.bytes == 4 * MIB
        with acting_on(pid) as ops:
            assert apply(ops, scheme("collapse"), region).applied.tolist() == [4 * MIB]
            assert apply(ops, scheme("collapse"), region).applied.tolist() == [0]
            sizes = Filter(filter_type="hugepage_size", allow=True, hugepage_size=SizeRange(min=2 * MIB))
            assert apply(ops, scheme("stat", sizes), (at, 8 * MIB)).passed.tolist() == [4 * MIB]


@pytest.mark.usefixtures("processes")
def test_pageout_of_file_memory_is_measured(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(4 * MIB))
    os.sync()
    code = f"import mmap,sys\nf=open({str(path)!r},'rb')\nm=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n"
    code += "x=sum(m[i] for i in range(0,len(m),4096))\nprint('ok',flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        try:
            assert popen.stdout is not None
            popen.stdout.readline()
            line = next(x for x in Path(f"/proc/{popen.pid}/maps").read_text().splitlines() if str(path) in x)
            low = int(line.split("-")[0], 16)
            with acting_on(popen.pid) as ops:
                skipped = apply(ops, scheme("pageout", Filter(filter_type="anon", allow=True)), (low, 4 * MIB))
                assert (skipped.applied.tolist(), skipped.passed.tolist()) == ([0], [0])
                done = apply(ops, scheme("pageout"), (low, 2 * MIB))
                table = Pagemap(popen.pid)
                ranges, _ = pagemap_scan.populated(table.fileno(), low, low + 4 * MIB, 1 << 20)
                table.close()
                resident = int((ranges[:, 1] - ranges[:, 0]).sum())
                assert int(done.applied[0]) == 4 * MIB - resident
                if not done.applied[0]:
                    pytest.skip("the file system of the tests does not let its pages go (tmpfs without swap)")
                assert done.applied.tolist() == [2 * MIB]
                back = apply(ops, scheme("willneed"), (low, 4 * MIB))
                # The two halves are both in the page cache again, or still; only what was read in now counts.
                assert 0 <= int(back.applied[0]) <= 2 * MIB
        finally:
            popen.kill()


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("free", [0, MIB])
def test_shared_memory_stays_while_there_is_no_swap(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """The kernel unmaps it and keeps it: what is no more in the page table would count as paged out."""
    monkeypatch.setattr(acting, "swap_free_bytes", lambda: free)
    advised: list[int] = []
    monkeypatch.setattr(madvise, "advise", lambda process, ranges, *_: advised.append(len(ranges)))
    code = "import mmap,sys\nm=mmap.mmap(-1,4<<20)\nm.write(bytes(4<<20))\nprint('ok',flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        try:
            assert popen.stdout is not None
            popen.stdout.readline()
            line = next(x for x in Path(f"/proc/{popen.pid}/maps").read_text().splitlines() if "/dev/zero" in x)
            low = int(line.split("-")[0], 16)
            with acting_on(popen.pid) as ops:
                done = apply(ops, scheme("pageout"), (low, 4 * MIB))
            assert done.applied.tolist() == [0]
            assert sum(advised) == (1 if free else 0)
        finally:
            popen.kill()


def test_advice_for_huge_pages_is_refused_with_a_hint(child: Child) -> None:
    with acting_on(child.pid) as ops:
        try:
            ops.check_scheme(scheme("hugepage"))
        except MachineError as error:
            assert error.where == "action"
            assert "only the process itself can; use collapse" in error.message
        else:
            pytest.skip("this kernel lets other processes be advised")


def test_advice_for_huge_pages_of_this_process_and_its_undoing() -> None:
    with mmap.mmap(-1, 4 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        import ctypes

        view = ctypes.c_char.from_buffer(memory)
        at = ctypes.addressof(view)
        del view

        def advice() -> str:
            text = Path("/proc/self/smaps").read_text()
            inside = text[text.index(f"{at:x}-") if f"{at:x}-" in text else text.rindex("", 0) :]
            return inside[inside.index("VmFlags:") :].splitlines()[0]

        with acting_on(os.getpid()) as ops:
            wanted = scheme("nohugepage")
            # A mapping next to it may be part of the same one: advise on ours only, which splits it.
            assert apply(ops, wanted, (at, 4 * MIB)).applied.tolist() == [4 * MIB]
            assert " nh" in advice()
            done = ops.actions.undo(wanted)
            assert done.advice_reversed == 4 * MIB
            assert " hg" in advice()


def test_migration_to_a_node_that_is_not_there() -> None:
    with acting_on(os.getpid()) as ops, pytest.raises(MachineError, match=r"^target_nid: NUMA node 77"):
        ops.check_scheme(scheme("migrate_cold", target_nid=77))


def test_migration_to_where_it_is_does_nothing(child: Child, area: int) -> None:
    if Path("/sys/devices/system/node/node1").exists():
        pytest.skip("this machine has several nodes")
    with acting_on(child.pid, remember=True) as ops:
        wanted = scheme("migrate_hot", target_nid=0)
        assert apply(ops, wanted, (area, 4 * MIB)).applied.tolist() == [0]
        assert ops.actions.undo(wanted).migrated_back == 0
        start, end = np.array([area], np.uint64), np.array([area + 4 * MIB], np.uint64)
        assert ops.node_bytes(0, start, end, 0) == 4 * MIB
        assert ops.node_bytes(0, start, end, 1) == 0


@needs_bpf
def test_the_young_filter_tells_and_clears(child: Child, area: int) -> None:
    with acting_on(child.pid, bpf=True) as ops:
        reject_young = scheme("stat", Filter(filter_type="young"))
        apply(ops, reject_young, (area, 4 * MIB))
        child.do("load", "a", *range(100, 200))
        assert apply(ops, reject_young, (area, 4 * MIB)).passed.tolist() == [4 * MIB - 100 * PAGE]
        # It has made them old.
        assert apply(ops, reject_young, (area, 4 * MIB)).passed.tolist() == [4 * MIB]


@needs_bpf
def test_a_dry_run_tells_and_touches_nothing(child: Child, area: int) -> None:
    with acting_on(child.pid, bpf=True, dry_run=True) as ops:
        child.do("load", "a", "all")
        for _ in range(2):  # a young filter that cleared would find nothing the second time
            done = apply(ops, scheme("pageout", Filter(filter_type="young", allow=True)), (area, 2 * MIB))
            assert done.applied.tolist() == done.passed.tolist() == [2 * MIB]
        first, second = ops.actions.take_plans()
        assert ops.actions.take_plans() == []
        assert [(r.start, r.end, r.size) for r in first.ranges] == [(area, area + 2 * MIB, 2 * MIB)]
        assert f"(pid {child.pid}) anon" in first.ranges[0].owner
        assert (second.bytes, second.omitted) == (2 * MIB, 0)
    assert kib_of(child, area, "Rss") >= 4 * 1024


def test_an_allowed_region_skips_the_filters(child: Child, area: int) -> None:
    with acting_on(child.pid) as ops:
        never = scheme("cold", Filter(filter_type="anon"))
        assert apply(ops, never, (area, MIB)).applied.tolist() == [0]
        assert apply(ops, never, (area, MIB), allowed=True).applied.tolist() == [MIB]


def test_a_target_that_has_ended_is_not_applied_to(child: Child, area: int) -> None:
    with acting_on(child.pid) as ops:
        child.end()
        for action in ("cold", "pageout", "willneed", "lru_prio", "collapse"):
            start = np.array([area], np.uint64)
            done = ops.apply_scheme(0, scheme(action), start, start + np.uint64(MIB), np.zeros(1, np.bool_))
            assert done.applied.tolist() == [0]
        assert ops.node_bytes(0, start, start + np.uint64(MIB), 0) == 0


def test_a_target_that_ends_meanwhile_is_no_error(child: Child) -> None:
    at = child.do("add", "b", 64 * MIB)
    child.do("touch", "b", "all")
    with acting_on(child.pid) as ops:
        killer = threading.Timer(0.005, child._popen.kill)
        killer.start()
        for _ in range(50):
            start = np.array([at], np.uint64)
            for action in ("cold", "lru_prio", "pageout"):
                size = np.uint64(64 * MIB)
                done = ops.apply_scheme(0, scheme(action), start, start + size, np.zeros(1, np.bool_))
                assert done.applied[0] <= size
        killer.join()


def test_a_permission_that_was_lost_is_said(child: Child, area: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from pydamon.linux import madvise

    real, calls = madvise._call, []

    def refuse_later(*args: object) -> tuple[int, int]:
        calls.append(args)
        return real(*args) if len(calls) == 1 else (-1, errno.EPERM)  # type: ignore[arg-type]

    with acting_on(child.pid) as ops:
        monkeypatch.setattr(madvise, "_call", refuse_later)
        start = np.array([area], np.uint64)
        ops.apply_scheme(0, scheme("cold"), start, start + np.uint64(MIB), np.zeros(1, np.bool_))
        with pytest.raises(MachineError, match=r"no permission to advise process \d+ .*CAP_SYS_NICE"):
            ops.apply_scheme(0, scheme("cold"), start, start + np.uint64(MIB), np.zeros(1, np.bool_))


_WITHOUT_ROOT = """
import ctypes, mmap, os, signal
import numpy as np, numpy.random  # while their files can be read, as all others
from pydamon.errors import MachineError
from pydamon.ops.actions import probe
from pydamon.ops.vaddr import VaddrOps
from pydamon.primitives import bpf, idle, smaps
from pydamon.linux.process import Process
from pydamon.spec import Scheme
from pydamon.spec.schemes import Filter
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: its files belong to the user again
found = {f.name: f.obstacle for f in probe.actions() + probe.filters()}
assert found['stat'] is None and found['anon'] is None, found
assert 'CAP_SYS_NICE' in found['pageout'], found
assert 'root' in found['active'] and 'root' in found['memcg'], found
memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = b'x' * (1 << 20)
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
wait, ready = os.pipe()
pid = os.fork()
if not pid:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive a test that fails
    memory[:] = b'y' * (1 << 20)
    os.write(ready, b'.')
    signal.pause()
os.read(wait, 1)
ops = VaddrOps([Process(pid)], smaps.SmapsPrimitive)
try:
    ops.init()
    def refusal(action, *filters):
        try:
            ops.check_scheme(Scheme(action=action, filters=filters))
        except MachineError as error:
            return str(error)
    assert 'action: process_madvise: no permission' in refusal('pageout')
    reason = refusal('stat', Filter(filter_type='active'))
    assert 'filters[0]: active cannot be told here' in reason and 'root' in reason, reason
    assert refusal('stat', Filter(filter_type='anon')) is None
    start = np.array([at], np.uint64)
    counted = Scheme(action='stat', filters=(Filter(filter_type='anon', allow=True),))
    done = ops.apply_scheme(0, counted, start, start + np.uint64(1 << 20), np.zeros(1, np.bool_))
    assert done.passed.tolist() == [1 << 20], done
    assert ops.node_bytes(0, start, start + np.uint64(1 << 20), 0) == 1 << 20
finally:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


@pytest.mark.usefixtures("processes")
def test_without_root_anon_is_told_and_the_rest_refused_with_reasons() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOT], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_what_the_machine_offers_is_told() -> None:
    for findings in (probe.actions(), probe.filters(), probe.metrics()):
        assert findings
        assert all(f.obstacle is None or len(f.obstacle) > 10 for f in findings)
