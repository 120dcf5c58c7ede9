"""Rings that would be full before the sampling interval is over are read in the middle of it, and nothing is lost."""

from __future__ import annotations

import mmap
import os
import signal
import time

import numpy as np
import pytest

from pydamon.engines.clock import MachineClock
from pydamon.errors import MachineError
from pydamon.linux import perf_event, perf_pmu
from pydamon.linux.perf_event import Samples, Sampling, joined

PAGE = mmap.PAGESIZE
RING = 8 * PAGE // 48  # samples that fit into the ring of this test: 682
BURST, BURSTS = 400, 12


class Reader:
    """Reads a sampling when it says so, and lets the program that fills it go on."""

    def __init__(self, sampling: Sampling, go_on: int) -> None:
        self.sampling, self.go_on = sampling, go_on
        self.found: list[Samples] = []
        self.wakes = 0

    def fileno(self) -> int:
        return self.sampling.fileno()

    def wake(self) -> None:
        self.found.append(self.sampling.read())
        self.sampling.wake()
        self.wakes += 1
        os.write(self.go_on, b"x")


def _faults(hear: int, say: int) -> None:
    """Touch pages in bursts, each after the reader has read; on one CPU, so that one ring takes all."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    memory = mmap.mmap(-1, BURST * BURSTS * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    base = np.frombuffer(memory, np.uint8).ctypes.data
    os.read(hear, 1)
    os.write(say, base.to_bytes(8, "little"))
    for burst in range(BURSTS):
        for at in range(burst * BURST * PAGE, (burst + 1) * BURST * PAGE, PAGE):
            memory[at] = 1
        os.read(hear, 1)
    time.sleep(600)


@pytest.mark.usefixtures("processes")
def test_a_burst_that_would_overflow_the_ring_is_read_while_the_interval_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perf_event, "_DATA_PAGES", (8, 8))
    monkeypatch.setattr(perf_event, "_WAKE_BYTES", 4 * PAGE)
    hear, go_on = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            _faults(hear, say)
        finally:
            os._exit(0)
    try:
        try:
            sampling = Sampling(perf_pmu.PAGE_FAULTS, [pid])
        except MachineError as error:
            pytest.skip(str(error))
        reader = Reader(sampling, go_on)
        clock = MachineClock()
        clock.serve(reader)
        os.write(go_on, b"x")
        base = int.from_bytes(os.read(said, 8), "little")
        deadline = time.monotonic() + 120
        # The pieces of one long interval: how long it takes depends on the machine.
        while reader.wakes < BURSTS and time.monotonic() < deadline:
            assert clock.sleep_ns(200_000_000)
        found = joined([*reader.found, sampling.read()])
        touched = {int(a) - base for a in found.address[found.pid == pid]}
        assert BURST * BURSTS > 2 * RING  # it would not have fitted
        assert set(range(0, (BURSTS - 1) * BURST * PAGE, PAGE)) <= {at // PAGE * PAGE for at in touched}
        assert found.lost == 0
        sampling.close()
        assert reader.fileno() == -1
        assert clock.sleep_ns(1_000_000)  # it is not waited for any more
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (hear, go_on, said, say):
            os.close(fd)


@pytest.mark.usefixtures("processes")
def test_a_thread_that_ends_wakes_nobody_for_ever() -> None:
    """Its descriptor stays readable; the next thread's takes its place."""
    pids = []
    sink = os.open("/dev/null", os.O_WRONLY)
    for _ in range(2):
        pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    try:
        try:
            sampling = Sampling(perf_pmu.PAGE_FAULTS, pids)
        except MachineError as error:
            pytest.skip(str(error))
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        reader = Reader(sampling, sink)
        clock = MachineClock()
        clock.serve(reader)
        began = time.monotonic()
        while not reader.wakes and time.monotonic() < began + 60:
            clock.sleep_ns(50_000_000)
        woken = reader.wakes
        assert woken >= 1
        assert clock.sleep_ns(50_000_000)
        assert reader.wakes <= woken + 8  # one for each CPU's, and not a busy loop
        assert all(of_cpu.watched == 1 for of_cpu in sampling._cpus.values())
        sampling.close()
    finally:
        for pid in pids[1:]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(sink)
