"""The sampler on the real kernel, with a child that touches known pages inside each window."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.primitives.bpf_child import MIB, OBSTACLE, PAGE, Child, kib_of, started_child

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.btf import BtfError
from pydamon.linux.frames import FrameInfo
from pydamon.primitives import bpf_sampler, clearing, kept_facts
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_sampler import DONE, ENDED, REFUSED, WOKEN, BpfSampler
from pydamon.primitives.bpf_sampler_layout import CAREFUL, SamplerLayout
from pydamon.primitives.bpf_sampler_loaded import Resident, Watched
from pydamon.primitives.bpf_sampler_panel import take_noted
from pydamon.primitives.bpf_sampler_program import sampler_program
from pydamon.primitives.page_tables import ARM64_39, ARM64_48, X86_4, X86_5, PageTables

pytestmark = [
    pytest.mark.usefixtures("processes"),
    pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or ""),
]
SAMPLES = 20


@pytest.fixture
def child(processes: None) -> Iterator[Child]:
    yield from started_child()


@pytest.fixture
def sampler(walk: PageTableWalk) -> Iterator[BpfSampler]:
    sampler = BpfSampler(walk, seed=4711)
    yield sampler
    sampler.close()


@contextlib.contextmanager
def primitive_of(child: Child, walk: PageTableWalk) -> Iterator[BpfPrimitive]:
    """A primitive. What the child has touched before is on an LRU list then: other pages have pushed it out of this
    CPU's batch of those that were faulted in last."""
    child.do("add", "filler", 64 * PAGE)
    child.do("touch", "filler", "all")
    primitive = BpfPrimitive(child.process, walk)
    try:
        yield primitive
    finally:
        primitive.close()


def regions(*areas: tuple[int, int], pieces: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends: each area (address, bytes) in that many equal pieces."""
    edges = [at + size * piece // pieces // PAGE * PAGE for at, size in areas for piece in range(pieces)]
    ends = [at + size * piece // pieces // PAGE * PAGE for at, size in areas for piece in range(1, pieces + 1)]
    return np.array(edges, np.uint64), np.array(ends, np.uint64)


def child_file(child: Child, path: Path) -> int:
    """A file of 4 MiB that the child has mapped and read; reading ahead makes folios of several sizes."""
    with path.open("wb") as file:
        file.write(bytes(4 * MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with path.open("rb", buffering=0) as file:
        while file.read(128 << 10):
            pass
    at = child.do("file", "file", path)
    child.do("load", "file", "all")
    return at


def touching(child: Child, *words: object) -> Callable[[], bool]:
    """A sleep in which the child touches these pages."""

    def sleep() -> bool:
        child.do("touch", *words)
        return True

    return sleep


def test_counts_are_exact_where_all_is_touched_and_binomial_where_a_share_is(
    child: Child, walk: PageTableWalk, sampler: BpfSampler
) -> None:
    size = 64 * PAGE
    all_at, half_at, tenth_at, cold_at = (child.do("add", name, size) for name in ("all", "half", "tenth", "cold"))
    for name in ("all", "half", "tenth", "cold"):
        child.do("touch", name, "all")
    start, end = regions(*((at, size) for at in (all_at, half_at, tenth_at, cold_at)))
    sums = np.zeros(4)
    rounds = 10

    def sleep() -> bool:
        child.do("touch", "all", "all")
        child.do("touch", "half", *range(0, 64, 2))
        child.do("touch", "tenth", *range(0, 64, 10))
        return True

    with primitive_of(child, walk) as primitive:
        for _ in range(rounds):
            sampler.load([Watched(primitive, start, end)])
            assert sampler.sample(SAMPLES, sleep) == (SAMPLES, DONE)
            assert not sampler.unknown(0).any()
            sums += sampler.accessed(0)
    n = rounds * SAMPLES
    assert (sums[0], sums[3]) == (n, 0)
    for found, share in ((sums[1], 32 / 64), (sums[2], 7 / 64)):
        assert abs(found - n * share) <= 3 * np.sqrt(n * share * (1 - share))


def test_the_same_seed_draws_the_same_pages(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", 8 * MIB)
    drawn = []
    with primitive_of(child, walk) as primitive:
        for seed in (5, 5, 6):
            with contextlib.closing(BpfSampler(walk, seed)) as sampler:
                sampler.load([Watched(primitive, *regions((at, 8 * MIB), pieces=8))])
                sampler.sample(3, lambda: True)
                drawn.append(sampler.drawn(0).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_huge_page_is_cleared_as_a_whole_and_stays_one(
    child: Child, walk: PageTableWalk, sampler: BpfSampler
) -> None:
    at = child.do("add", "huge", 8 * MIB, "huge")
    child.do("touch", "huge", "all")
    if kib_of(child, at, "AnonHugePages") < 8 << 10:
        pytest.skip("this kernel gives no transparent huge pages")
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 8 * MIB), pieces=4))])
        assert sampler.sample(5, touching(child, "huge", 3)) == (5, DONE)
        assert sampler.accessed(0).tolist() == [5, 0, 0, 0]
        assert not sampler.unknown(0).any()
    assert kib_of(child, at, "AnonHugePages") == 8 << 10


def test_pages_of_a_files_large_folios_are_cleared_with_their_folio(
    child: Child, walk: PageTableWalk, sampler: BpfSampler, tmp_path: Path
) -> None:
    at = child_file(child, tmp_path / "file")
    start, end = regions((at, 4 * MIB), pieces=8)
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, start, end)])
        sampler.sample(1, lambda: True)
        listed = sampler._map.iovecs["length"][:8]
        if not (listed > PAGE).any():
            pytest.skip("this file system gives no large folios")
        sampler.load([Watched(primitive, start, end)])
        assert sampler.sample(5, lambda: True) == (5, DONE)
        assert not sampler.accessed(0).any()
        sampler.load([Watched(primitive, start, end)])
        sampler.sample(5, touching(child, "file", "all"))
        assert (sampler.accessed(0) + sampler.unknown(0)).tolist() == [5] * 8
        assert np.count_nonzero(sampler.accessed(0) == 5) >= 6  # the first folios may reach over a 2 MiB boundary


def test_a_folio_that_reaches_out_of_its_mapping_is_left_in_one_piece(
    child: Child, walk: PageTableWalk, sampler: BpfSampler, tmp_path: Path
) -> None:
    at = child_file(child, tmp_path / "file")
    with primitive_of(child, walk) as primitive, contextlib.closing(FrameInfo()) as info:
        sampler.load([Watched(primitive, *regions((at, 4 * MIB), pieces=16))])
        sampler.sample(1, lambda: True)
        large = [(base, length) for base, length in sampler._map.iovecs[:16].tolist() if length > PAGE]
        if not large:
            pytest.skip("this file system gives no large folios")
        base, length = large[0]
        child.do("protect", "file", (base - at) // PAGE + 1, 1)  # of the same protection, but for this page
        child.do("load", "file", *range((base - at) // PAGE, (base - at + length) // PAGE))
        entries, _ = walk.walk(child.pid, np.array([base], np.uint64))
        frame = int(walk.frames(entries)[0])
        before = info.folio(frame)
        assert before[1] * PAGE == length
        primitive.clearer._mappings = [], []  # as some time later: the mappings are read anew
        primitive.clearer._reread_from = 0
        primitive.clearer.clear_stuck = lambda stuck, total: False  # type: ignore[method-assign]
        sampler.load([Watched(primitive, np.array([base], np.uint64), np.array([base + length], np.uint64))])
        sampler.sample(3, touching(child, "filler", 0))
        assert info.folio(frame) == before
        assert (sampler.accessed(0).tolist(), sampler.unknown(0).tolist()) == ([0], [3])


@pytest.mark.parametrize("kind", ["shared with a child", "locked"])
def test_pages_that_cannot_be_cleared_alone_are_never_taken_for_accessed(
    kind: str, child: Child, walk: PageTableWalk, sampler: BpfSampler
) -> None:
    size = 64 * PAGE
    hot = child.do("add", "hot", size)
    at = child.do("add", "odd", size, "locked" if kind == "locked" else "")
    assert at < hot  # regions are sorted
    child.do("touch", "odd", "all")
    child.do("touch", "hot", "all")
    if kind != "locked":
        child.fork("odd")
    with primitive_of(child, walk) as primitive:
        primitive.clearer.stuck_share = 1.0  # clear_refs may be used as often as it likes
        sampler.load([Watched(primitive, *regions((at, size), (hot, size), pieces=4))])
        sampler.sample(SAMPLES, touching(child, "hot", "all"))
        accessed, unknown = sampler.accessed(0), sampler.unknown(0)
        assert not accessed[:4].any()
        assert (accessed[4:] >= SAMPLES - unknown[4:] - 1).all()
        assert (sampler._map.regions["flags"][:4] & CAREFUL).all()
        # Where they are hot, clear_refs opens windows that say so.
        sampler.load([Watched(primitive, *regions((at, size), pieces=4))])
        assert (sampler._map.regions["flags"][:4] & CAREFUL).all()  # known from before

        def sleep() -> bool:
            child.do("load", "odd", "all")
            time.sleep(0.005)
            return True

        sampler.sample(SAMPLES, sleep)
        assert (sampler.accessed(0) + sampler.unknown(0) == SAMPLES).all()
        assert (sampler.accessed(0) > 0).all()


def test_a_mapping_that_refuses_is_left_out_from_then_on(
    child: Child, walk: PageTableWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked mapping whose pages do not look so: here, because the program does not look."""
    walk_facts, facts = kept_facts.of_this_kernel()
    assert not isinstance(facts, MachineError)
    blind = msgspec.structs.replace(facts, locked=0)
    monkeypatch.setattr(kept_facts, "of_this_kernel", lambda: (walk_facts, blind))
    size = 64 * PAGE
    locked, free = child.do("add", "locked", size, "locked"), child.do("add", "free", size)
    child.do("touch", "locked", "all")
    child.do("touch", "free", "all")
    with contextlib.closing(BpfSampler(walk, 1)) as sampler, primitive_of(child, walk) as primitive:
        primitive.clearer.clear_stuck = lambda stuck, total: False  # type: ignore[method-assign]
        order = sorted([(locked, size), (free, size)])
        sampler.load([Watched(primitive, *regions(*order))])
        sampler.sample(5, touching(child, "free", "all"))
        where = order.index((free, size))
        assert len(primitive.clearer.refused) == 1
        assert sampler.accessed(0)[where] == 5
        assert (sampler.accessed(0)[1 - where], sampler.unknown(0)[1 - where]) == (0, 5)
        assert sampler._map.targets["refusals"][0] == 1
        spent = primitive.cost.clear_ns
        sampler.load([Watched(primitive, *regions(*order))])
        sampler.sample(5, touching(child, "free", "all"))
        assert primitive.cost.clear_ns == spent  # it was not tried again


def test_without_vmemmap_pages_are_cleared_the_slow_way(
    child: Child, walk: PageTableWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_sampler, "find_vmemmap", lambda facts: 0)
    at = child.do("add", "a", 64 * PAGE)
    child.do("touch", "a", "all")
    with contextlib.closing(BpfSampler(walk, 1)) as sampler, primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE), pieces=2))])
        sampler.sample(5, touching(child, "a", *range(32)))
        assert sampler.accessed(0).tolist() == [5, 0]
        assert primitive.cost.clears > 0


def test_without_process_madvise_it_says_so(
    child: Child, walk: PageTableWalk, sampler: BpfSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        ctypes.set_errno(1)
        return -1

    monkeypatch.setattr(bpf_sampler, "_syscall", refused)
    monkeypatch.setattr(clearing, "_syscall", refused)
    at = child.do("add", "a", 64 * PAGE)
    child.do("touch", "a", "all")
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
        assert sampler.sample(5, touching(child, "a", "all")) == (0, REFUSED)
        assert sampler.refusal is not None
        assert "process_madvise" in sampler.refusal


def test_resident_pages_are_preferred_also_of_several_targets(
    child: Child, walk: PageTableWalk, sampler: BpfSampler
) -> None:
    sparse = []
    for name in ("one", "two"):
        at = child.do("add", name, 1024 * PAGE)
        child.do("touch", name, *range(0, 1024, 64))
        starts = np.uint64(at) + np.arange(0, 1024, 64, dtype=np.uint64) * np.uint64(PAGE)
        before = np.arange(17, dtype=np.uint64)
        low, count = np.array([0, 8], np.uint64), np.array([8, 8], np.uint64)
        sparse.append((regions((at, 1024 * PAGE), pieces=2), Resident(starts, before, low, count)))
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *of, resident) for of, resident in sparse])
        sampler.sample(SAMPLES, touching(child, "two", *range(0, 1024, 64)))
        assert sampler.accessed(0).tolist() == [0, 0]
        assert sampler.accessed(1).tolist() == [SAMPLES, SAMPLES]
        assert not sampler.saw_absent(1)
        sampler.load([Watched(primitive, *of) for of, _ in sparse])  # all pages alike
        sampler.sample(SAMPLES, touching(child, "two", *range(0, 1024, 64)))
        assert sampler.saw_absent(1)
        assert (sampler.accessed(1) < SAMPLES // 2).all()


def test_exec_in_mid_run_makes_windows_unknown(child: Child, walk: PageTableWalk, sampler: BpfSampler) -> None:
    at = child.do("add", "a", 64 * PAGE)
    child.do("touch", "a", "all")
    turns = 0

    def sleep() -> bool:
        nonlocal turns
        turns += 1
        if turns == 2:
            child.do("again")
            child.do("add", "b", PAGE)  # it runs its new program
        return True

    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
        assert sampler.sample(4, sleep) == (4, DONE)
        assert (sampler.accessed(0).tolist(), sampler.unknown(0).tolist()) == ([0], [1])


def test_a_stopped_target_is_sampled_like_any_other(child: Child, walk: PageTableWalk, sampler: BpfSampler) -> None:
    at = child.do("add", "a", 64 * PAGE)
    child.do("touch", "a", "all")
    with primitive_of(child, walk) as primitive:
        os.kill(child.pid, signal.SIGSTOP)
        try:
            sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
            assert sampler.sample(5, lambda: True) == (5, DONE)
            assert (sampler.accessed(0).tolist(), sampler.unknown(0).tolist()) == ([0], [0])
        finally:
            os.kill(child.pid, signal.SIGCONT)


def test_a_target_that_dies_ends_the_batch_and_the_others_go_on(
    child: Child, walk: PageTableWalk, sampler: BpfSampler
) -> None:
    other = Child()
    try:
        ats = [each.do("add", "a", 64 * PAGE) for each in (child, other)]
        for each in (child, other):
            each.do("touch", "a", "all")
        turns = 0

        def sleep() -> bool:
            nonlocal turns
            turns += 1
            child.do("touch", "a", "all")
            if turns == 3:
                os.kill(other.pid, signal.SIGKILL)
                wait_until(lambda: not other.process.alive())
            return True

        with primitive_of(child, walk) as one, primitive_of(other, walk) as two:
            sampler.load([Watched(two, *regions((ats[1], 64 * PAGE))), Watched(one, *regions((ats[0], 64 * PAGE)))])
            assert sampler.sample(10, sleep) == (3, ENDED)
            assert sampler.sample(5, sleep) == (5, DONE)  # it is known to have ended
            assert sampler.unknown(0).tolist() == [6]
            assert (sampler.accessed(1).tolist(), sampler.unknown(1).tolist()) == ([8], [0])
    finally:
        other.end()
        other.process.close()


def test_a_pid_that_is_not_the_targets_any_more_is_not_sampled(
    child: Child, walk: PageTableWalk, sampler: BpfSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = child.do("add", "a", 64 * PAGE)
    with primitive_of(child, walk) as primitive:
        monkeypatch.setattr(primitive.process, "alive", lambda: False)  # another process has its pid
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
        assert sampler.sample(2, touching(child, "a", "all")) == (2, DONE)
        assert (sampler.accessed(0).tolist(), sampler.unknown(0).tolist()) == ([0], [2])


def test_a_sleep_that_is_cut_short_says_nothing(child: Child, walk: PageTableWalk, sampler: BpfSampler) -> None:
    at = child.do("add", "a", 64 * PAGE)
    answers = [True, True, False]
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
        assert sampler.sample(9, lambda: answers.pop(0)) == (2, WOKEN)


def test_more_regions_and_targets_than_one_run_takes(child: Child, walk: PageTableWalk, sampler: BpfSampler) -> None:
    size = 5000 * PAGE
    at = child.do("add", "a", size)
    child.do("touch", "a", "all")
    start = np.uint64(at) + np.arange(5000, dtype=np.uint64) * np.uint64(PAGE)
    end = start + np.uint64(PAGE)
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, start, end)])
        assert sampler._runs == [(0, 1), (1, 2)]
        sampler.sample(2, touching(child, "a", "all"))
        assert (sampler.accessed(0) + sampler.unknown(0) == 2).all()
        assert np.count_nonzero(sampler.accessed(0) == 2) >= 4900
        sampler.load([Watched(primitive, start[i * 10 : i * 10 + 10], end[i * 10 : i * 10 + 10]) for i in range(257)])
        assert sampler._runs == [(0, 256), (256, 257)]
        sampler.sample(2, touching(child, "a", *range(2565, 2570)))
        assert [int(sampler.accessed(place).sum()) for place in range(257)] == [0] * 256 + [10]


def test_what_is_cleared_of_panel_pages_is_noted(child: Child, walk: PageTableWalk, sampler: BpfSampler) -> None:
    at = child.do("add", "a", 64 * PAGE)
    child.do("touch", "a", "all")
    panel = np.uint64(at) + np.arange(0, 64, 2, dtype=np.uint64) * np.uint64(PAGE)
    with primitive_of(child, walk) as primitive:
        sampler.load([Watched(primitive, *regions((at, 64 * PAGE), pieces=64))])
        sampler.watch_panel(panel)
        sampler.sample(1, lambda: True)
        noted, complete = take_noted(sampler._map)
        assert complete
        assert set(panel.tolist()) <= set(noted["base"].tolist())
        assert len(noted) < 48  # others have the same hash once in 2048
        assert set(noted["target"].tolist()) == {0}
        sampler.watch_panel(panel[:0])
        child.do("touch", "a", "all")
        sampler.sample(1, lambda: True)
        assert len(take_noted(sampler._map)[0]) == 0


def test_a_map_that_grows_keeps_the_random_numbers(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", 64 * PAGE)
    drawn = []
    with primitive_of(child, walk) as primitive:
        for runs in (1, 5000):
            starts = np.uint64(at) + np.arange(runs, dtype=np.uint64) * np.uint64(PAGE)
            before = np.arange(runs + 1, dtype=np.uint64)
            none = Resident(starts, before, np.zeros(1, np.uint64), np.zeros(1, np.uint64))
            with contextlib.closing(BpfSampler(walk, 8)) as sampler:
                sampler.load([Watched(primitive, *regions((at, 64 * PAGE)))])
                sampler.sample(1, lambda: True)
                sampler.load([Watched(primitive, *regions((at, 64 * PAGE)), none)])
                sampler.sample(1, lambda: True)
                drawn.append(sampler.drawn(0).tolist())
    assert drawn[0] == drawn[1]


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_sampler, "find_vmemmap", lambda facts: 0)
    assert "struct pages are not found" in (bpf_sampler.shortcoming() or "")
    walk_facts, _ = kept_facts.of_this_kernel()
    missing = BtfError("this kernel has no struct folio")
    monkeypatch.setattr(kept_facts, "of_this_kernel", lambda: (walk_facts, missing))
    assert bpf_sampler.shortcoming() == "samples are taken page by page: this kernel has no struct folio"


@pytest.mark.parametrize(
    ("without", "tables"),
    [("rcu", X86_4), ("folio", X86_4), ("exec", X86_4), ("", X86_5), ("", ARM64_39), ("", ARM64_48)],
)
def test_the_verifier_takes_every_form_of_the_program(without: str, tables: PageTables) -> None:
    facts = kept_facts.of_this_kernel()[1]
    assert not isinstance(facts, MachineError)
    forms = {
        "rcu": msgspec.structs.replace(facts, walk=msgspec.structs.replace(facts.walk, rcu=None)),
        "folio": msgspec.structs.replace(facts, folio=None),
        "exec": msgspec.structs.replace(facts, task_exec=None),
        "": facts,
    }
    layout = SamplerLayout.for_size(300, 5000, 1 << 18)
    map_fd = bpf_syscall.create_map(layout.size)
    try:
        os.close(bpf_syscall.load_program(sampler_program(forms[without], tables, layout, map_fd)))
    finally:
        os.close(map_fd)


SCRIPT = """
import os, sys, time
import numpy as np
from pydamon.linux.process import Process
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_sampler import BpfSampler
from pydamon.primitives.bpf_sampler_loaded import Watched
at, size, pid = map(int, sys.argv[1:])
walk = PageTableWalk()
primitive = BpfPrimitive(Process(pid), walk)
sampler = BpfSampler(walk, 1)
edges = np.uint64(at) + np.arange(65, dtype=np.uint64) * np.uint64(size // 64)
sampler.load([Watched(primitive, edges[:-1], edges[1:])])
def sleep():
    time.sleep(0.005)
    return True
sampler.sample(5, sleep)
os.getppid()
sampler.sample(20, sleep)
os.getppid()
print(int(sampler.accessed(0).sum()))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_calls_of_a_sample(child: Child, tmp_path: Path) -> None:
    """One bpf, one sleep, at most one process_madvise; nothing else."""
    size = 64 * 64 * PAGE
    at = child.do("add", "a", size)
    child.do("touch", "a", "all")
    child.tell("spin", "a", 16 * 64)
    log = tmp_path / "calls"
    command = ["strace", "-o", str(log), sys.executable, "-c", SCRIPT, str(at), str(size), str(child.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    calls = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)
    first, last = (at for at, name in enumerate(calls) if name == "getppid")
    between = calls[first + 1 : last]
    assert set(between) <= {"bpf", "clock_nanosleep", "process_madvise"}
    assert between.count("bpf") == 21
    assert between.count("clock_nanosleep") == 20
    assert 0 < between.count("process_madvise") <= 20
