"""The live source: samples, whoever they are of, become accesses of targets in the order of time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tests.unit.linux.test_perf_event import STORE, lost, sample

from pydamon.engines.reported import TraceClock
from pydamon.errors import RequestError
from pydamon.linux import perf_pmu
from pydamon.linux.perf_event import Event, Samples, joined, parse
from pydamon.ops.reported.reports import AccessFilter, AccessReports
from pydamon.ops.reported.sources import perf_event
from pydamon.ops.reported.sources.base import LiveSource
from pydamon.ops.reported.sources.perf_event import PerfEvent

MS = 1_000_000
ME = os.getpid()


class Script:
    """A clock that only goes on where somebody waits, and what the rings hold at each reading."""

    def __init__(self, *rings: bytes) -> None:
        self.rings = list(rings)
        self.now = 1000 * MS
        self.closed = False
        self.full = os.eventfd(0)

    def fileno(self) -> int:
        return self.full

    def wake(self) -> None:
        os.eventfd_read(self.full)

    def __call__(self, event: Event, pids: Sequence[int]) -> Script:
        return self

    def read(self) -> Samples:
        return joined([parse(self.rings.pop(0) if self.rings else b"")])

    def close(self) -> None:
        self.closed = True
        os.close(self.full)

    def now_ns(self) -> int:
        self.now += 2 * MS
        return self.now


class Alive:
    """This process lives; all others have a descriptor that is readable, as that of one that has ended."""

    def __init__(self, pid: int) -> None:
        self.pidfd = os.eventfd(0 if pid == ME else 1)

    def close(self) -> None:
        os.close(self.pidfd)


Open = Callable[..., PerfEvent]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Open:
    def open_(script: Script, pids: Sequence[int] = (ME,)) -> PerfEvent:
        monkeypatch.setattr(perf_event, "Sampling", script)
        monkeypatch.setattr(perf_event, "Process", Alive)
        return PerfEvent(perf_pmu.PAGE_FAULTS, pids, now_ns=script.now_ns)

    return open_


def addresses(source: PerfEvent) -> list[int]:
    block = source.read()
    assert block is not None
    found: list[int] = block.address.tolist()
    return found


def test_each_access_is_its_targets_and_others_are_skipped(opened: Open) -> None:
    script = Script(
        sample(4, 0x4000, pid=ME)
        + sample(3, 0x3000, pid=ME, tid=9, cpu=0, source=STORE)
        + sample(5, 0x5000, pid=1 if ME != 1 else 2)  # somebody else
        + sample(6, 0, pid=ME)  # the hardware did not know
        + sample(7, 1 << 63, pid=ME)  # the kernel's
        + lost(5)
    )
    source = opened(script)
    assert isinstance(source, LiveSource)
    block = source.read()
    assert block is not None
    assert block.address.tolist() == [0x3000, 0x4000]
    assert block.is_write.tolist() == [True, False]
    assert block.thread is not None
    assert block.cpu is not None
    assert (block.thread.tolist(), block.cpu.tolist()) == ([9, 8], [0, 1])
    assert block.lost == 5
    assert (source.counts.accesses, source.counts.skipped, source.without_address) == (2, 3, 2)
    assert source.remarks() == ["2 samples had no address of a program, and are left out"]
    source.close()
    assert script.closed


def test_what_is_too_new_waits_for_those_that_are_still_written(opened: Open) -> None:
    script = Script(sample(10, 0x1000, pid=ME) + sample(10**12, 0x3000, pid=ME), sample(11, 0x2000, pid=ME))
    source = opened(script)
    assert [addresses(source), addresses(source)] == [[0x1000], [0x2000]]
    script.now = 2 * 10**12
    assert addresses(source) == [0x3000]


def test_it_ends_with_the_last_process_and_tells_what_it_did_before(opened: Open) -> None:
    script = Script(sample(10, 0x1000, pid=4) + sample(11, 0x2000, pid=3))
    source = opened(script, (4, 3))
    block = source.read()
    assert block is not None
    assert block.target is not None
    assert block.target.tolist() == [0, 1]
    assert source.read() is None


def test_lost_samples_make_silence_unknown_and_filters_hold(opened: Open) -> None:
    from pydamon.ops.reported.ops import ReportedOps
    from pydamon.primitives.base import ACCESSED, UNKNOWN

    at = 1001 * MS
    script = Script(b"", sample(at, 0x10_1000, pid=ME, tid=5) + sample(at, 0x20_1000, pid=ME, tid=6) + lost(1))
    source = opened(script)
    reports = AccessReports(1)
    clock = TraceClock(source, reports)
    ops = ReportedOps(reports, clock, scope="region", accept=AccessFilter(threads=frozenset({5})))
    clock.collect = ops.collect
    assert clock.prime() is not None  # nothing has happened yet, and yet it begins
    start = np.array([0x10_0000, 0x20_0000], np.uint64)
    clock._now_ns = 1000 * MS
    ops.prepare_access_checks(0, start, start + np.uint64(0x1_0000))
    assert clock.sleep_ns(20 * MS)
    assert ops.check_accesses(0).tolist() == [ACCESSED, UNKNOWN]
    assert ops.dropped == 1


def test_what_was_lost_before_the_first_interval_counts(opened: Open) -> None:
    reports = AccessReports(1)
    assert TraceClock(opened(Script(sample(10, 0x1000, pid=ME) + lost(3))), reports).prime() is not None
    assert reports.dropped == 3


def test_a_process_that_there_is_not_is_refused() -> None:
    with pytest.raises(RequestError, match="pid: no process has the id 4194305"):
        PerfEvent(perf_pmu.PAGE_FAULTS, [4194305])
