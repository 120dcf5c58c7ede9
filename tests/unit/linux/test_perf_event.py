"""Rings of perf_event_open: what the kernel writes, as it documents it, and what it never would."""

from __future__ import annotations

import mmap
import struct
import time

import numpy as np
import pytest
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError
from pydamon.linux import perf_event
from pydamon.linux.perf_event import Event, Sampling, joined, parse

STORE, LOAD, NOT_TOLD = 1 << 2, 1 << 1, 1 << 0


def sample(
    when: int, address: int, *, pid: int = 7, tid: int = 8, cpu: int = 1, source: int = LOAD, misc: int = 2
) -> bytes:
    """PERF_RECORD_SAMPLE of thread, time, address, CPU, data source (include/uapi/linux/perf_event.h)."""
    return struct.pack("=IHHIIQQIIQ", 9, misc, 48, pid, tid, when, address, cpu, 0, source)


def lost(count: int) -> bytes:
    return struct.pack("=IHHQQ", 2, 0, 24, 99, count)


def test_samples_and_what_stands_between_them() -> None:
    throttle = struct.pack("=IHHQQQ", 5, 0, 32, 1, 2, 3)
    data = sample(5, 0x5000) + sample(3, 0x3000, source=STORE) + lost(4) + throttle + sample(9, 0x9000, misc=1)
    data += struct.pack("=IHHQ", 13, 0, 16, 6)  # PERF_RECORD_LOST_SAMPLES
    data += struct.pack("=IHHQ", 77, 0, 16, 0)  # of a kind that is not known yet
    found = joined([parse(data), parse(sample(4, 0x4000, pid=17, tid=18, cpu=2, source=NOT_TOLD))])
    assert found.when_ns.tolist() == [3, 4, 5, 9]
    assert found.address.tolist() == [0x3000, 0x4000, 0x5000, 0x9000]
    assert found.is_write.tolist() == [True, False, False, False]
    assert (found.pid.tolist(), found.thread.tolist()) == ([7, 17, 7, 7], [8, 18, 8, 8])
    assert found.cpu.tolist() == [1, 2, 1, 1]
    assert (found.lost, found.throttled) == (10, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("=IHH", 9, 0, 0),  # would never end
        struct.pack("=IHH", 9, 0, 12),
        struct.pack("=IHH", 2, 0, 4096),  # reaches beyond the ring
        b"\xff" * 8,
    ],
)
def test_what_is_no_record_ends_the_reading_and_counts_as_lost(garbage: bytes) -> None:
    found = parse(sample(1, 0x1000) + garbage + sample(2, 0x2000))
    assert (len(found.words), found.lost) == (1, 1)


def test_any_bytes_at_all_are_survived() -> None:
    rng = np.random.default_rng(4)
    for length in range(0, 2000, 40):
        found = joined([parse(rng.bytes(length))])
        assert len(found.address) * 48 <= length


def test_nothing_is_read_from_empty_rings() -> None:
    assert len(joined([parse(b"")]).address) == len(joined([]).address) == 0


def test_an_event_that_there_is_not_is_refused_with_the_reason() -> None:
    import os

    with pytest.raises(MachineError, match=r"(offer|take) nonsense") as refused:
        Sampling(Event("nonsense", type=9999, config=1, period=1), [os.getpid()])
    assert "\n" not in str(refused.value)


def test_too_few_descriptors_are_no_reason_to_fail_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole CPUs then, where that is allowed; else the error names the limit."""
    import errno
    import os

    real = perf_event._perf_event_open

    def few(attributes: bytearray, thread: int, cpu: int) -> int:
        if thread != -1:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(attributes, thread, cpu)

    monkeypatch.setattr(perf_event, "_perf_event_open", few)
    faults = Event("page-faults", 1, 2, period=1)
    try:
        sampling = Sampling(faults, [os.getpid()])
    except MachineError as error:
        assert "kernel.perf_event_paranoid" in str(error)
        return
    before = time.monotonic_ns()

    def seen() -> bool:
        """Again, for others' faults on these CPUs may have filled the rings."""
        with mmap.mmap(-1, 1 << 20) as fresh:  # the heap may have pages that were there before
            fresh[::4096] = bytes(len(fresh[::4096]))
        found = sampling.read()
        mine = found.when_ns[found.pid == os.getpid()]
        return bool(len(mine)) and mine.min() > before - 10**10

    try:
        wait_until(seen)
        assert sampling.whole_cpus
    finally:
        sampling.close()
