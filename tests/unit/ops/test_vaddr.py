"""Target ranges of a process, and how the ops treat pages that cannot be watched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError
from pydamon.linux.process import Mapping, Process, ProcessGone
from pydamon.ops.sampling import PageSampler
from pydamon.ops.vaddr import VaddrOps, three_ranges
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, PrimitiveCost


def mapping(start: int, end: int, name: str = "") -> Mapping:
    return Mapping(start, end, "rw-p", 0, 0, name)


class TestThreeRanges:
    def test_kernel_vector(self) -> None:
        # mm/damon/tests/vaddr-kunit.h damon_test_three_regions_in_vmas
        spans = [(10, 20), (20, 25), (200, 210), (210, 220), (300, 305), (307, 330)]
        found = three_ranges([mapping(*span) for span in spans])
        assert found.tolist() == [[10, 25], [200, 220], [300, 330]]

    def test_of_equal_gaps_the_lower_counts(self) -> None:
        found = three_ranges([mapping(0, 10), mapping(20, 30), mapping(40, 50), mapping(60, 70)])
        assert found.tolist() == [[0, 10], [20, 30], [40, 70]]

    def test_fewer_gaps_mean_fewer_ranges(self) -> None:
        assert three_ranges([mapping(0, 10), mapping(10, 20), mapping(30, 40)]).tolist() == [[0, 20], [30, 40]]
        assert three_ranges([mapping(0, 10)]).tolist() == [[0, 10]]
        assert three_ranges([]).shape == (0, 2)

    def test_the_vsyscall_page_does_not_count(self) -> None:
        spans = [mapping(0, 10), mapping(20, 30), mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "[vsyscall]")]
        assert three_ranges(spans).tolist() == [[0, 10], [20, 30]]

    def test_unsorted_mappings_are_sorted(self) -> None:
        assert three_ranges([mapping(100, 110), mapping(0, 10)]).tolist() == [[0, 10], [100, 110]]


class FakePrimitive:
    """Even page numbers can be watched, odd ones cannot; every watched page counts as accessed."""

    name = "fake"

    def __init__(self, process: Process) -> None:
        self.cost = PrimitiveCost()
        self.closed = False
        self.updates = 0
        self.replaced = 0
        self._addresses = np.empty(0, np.uint64)

    @staticmethod
    def _usable(addresses: np.ndarray) -> np.ndarray:
        return addresses // np.uint64(4096) % np.uint64(2) == 0

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self._addresses = addresses.copy()
        return self._usable(addresses)

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        self.replaced += len(index)
        self._addresses[index] = addresses
        return self._usable(addresses)

    def check(self) -> np.ndarray:
        return np.where(self._usable(self._addresses), ACCESSED, NOT_ACCESSED).astype(np.uint8)

    def update(self) -> None:
        self.updates += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def child(processes: None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"], stdout=-1)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_ranges_cover_what_is_mapped(child: subprocess.Popen[bytes]) -> None:
    ops = VaddrOps([Process(child.pid)], FakePrimitive)
    (ranges,) = ops.init()
    assert len(ranges) == 3
    for m in ops.mappings(0):
        if m.name != "[vsyscall]":
            assert any(start <= m.start and m.end <= end for start, end in ranges.tolist())
    ops.cleanup()


def test_initial_ranges_are_used_until_the_first_update(child: subprocess.Popen[bytes]) -> None:
    given = np.array([[0x10000, 0x20000]], np.uint64)
    ops = VaddrOps([Process(child.pid)], FakePrimitive, initial=[given])
    assert ops.init()[0].tolist() == given.tolist()
    (updated,) = ops.update()
    assert updated is not None
    assert updated.tolist() != given.tolist()
    ops.cleanup()


def test_another_page_is_offered_where_one_cannot_be_watched(child: subprocess.Popen[bytes]) -> None:
    ops = VaddrOps([Process(child.pid)], FakePrimitive, rng=np.random.default_rng(0))
    start = np.arange(400, dtype=np.uint64) * np.uint64(1 << 20)
    assert isinstance(ops.sampler, PageSampler)
    ops.sampler.prepare_access_checks(0, start, start + np.uint64(1 << 20))
    primitive = ops.primitives[0]
    assert isinstance(primitive, FakePrimitive)
    # half of 400, then half of those: about 300 replacements, and an eighth stays unusable
    assert 200 < primitive.replaced < 400
    assert 320 < int((ops.sampler.check_accesses(0) == ACCESSED).sum()) < 380
    ops.cleanup()


def test_the_end_of_a_process_is_seen_and_everything_closed(child: subprocess.Popen[bytes]) -> None:
    process = Process(child.pid)
    ops = VaddrOps([process], FakePrimitive)
    ops.init()
    assert ops.target_valid(0)
    child.kill()
    child.wait()
    assert not ops.target_valid(0)
    assert ops.update() == [None]
    with pytest.raises(ProcessGone):
        process.mappings()
    ops.cleanup()
    assert process.pidfd == -1


@pytest.mark.usefixtures("processes")
def test_an_exec_is_followed() -> None:
    with subprocess.Popen(["sh", "-c", "read _; exec sleep 600"], stdin=-1) as child:
        assert child.stdin
        ops = VaddrOps([Process(child.pid)], FakePrimitive)
        ops.init()
        before = {m.name for m in ops.mappings(0)}
        child.stdin.write(b"\n")
        child.stdin.flush()

        def seen() -> bool:
            ops.update()
            return any(m.name.endswith("sleep") for m in ops.mappings(0))

        wait_until(seen)  # the mappings of the new program
        assert not any(name.endswith("sleep") for name in before)
        assert ops.target_valid(0)
        child.kill()
        ops.cleanup()


def test_permission_lost_midway_ends_the_target_with_the_reason(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = VaddrOps([Process(child.pid)], FakePrimitive)
    ops.init()

    def denied() -> list[Mapping]:
        raise MachineError("no permission", where="pid")

    monkeypatch.setattr(ops.processes[0], "mappings", denied)
    assert ops.update() == [None]
    assert not ops.target_valid(0)
    assert "no permission" in ops.lost[0]
    ops.cleanup()


def test_a_primitive_that_cannot_be_opened_leaves_nothing_open(child: subprocess.Popen[bytes]) -> None:
    process = Process(child.pid)

    def refuse(_: Process) -> FakePrimitive:
        raise MachineError("not here")

    with pytest.raises(MachineError):
        VaddrOps([process], refuse)
    assert process.pidfd == -1
    assert os.path.exists(f"/proc/{child.pid}")
