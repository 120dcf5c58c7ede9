"""What things cost on this machine: arithmetic by a clock of our own, faults by the count of the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pydamon.cli.calibration import as_file
from pydamon.errors import MachineError, RequestError
from pydamon.linux.madvise import MADV_NOHUGEPAGE
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.own_memory import HUGE_SIZE, PAGE_SIZE, OwnFile, OwnMemory, faults
from pydamon.linux.swap import SwapDevice, swap_devices
from pydamon.linux.zram import Zram
from pydamon.run.calibration import calibrate as calibration
from pydamon.run.calibration import files, pages, swapping
from pydamon.run.calibration.timing import LEAST, Bench, spread
from pydamon.spec import costs

MIB = 1 << 20
MINOR_NS, MAJOR_NS, CALL_NS = 700, 90_000, 40
ROW = next(row for row in costs.TABLE if row.name == "minor_fault_ns")
DISK = "/var/tmp"


class FaultClock:
    """Its time passes with the faults of this thread, as the kernel counts them, and with each look at it."""

    def __init__(self, step_ns: int = CALL_NS) -> None:
        self._looks = 0
        self._step_ns = step_ns

    def now_ns(self) -> int:
        self._looks += 1
        had = faults()
        return had.minor * MINOR_NS + had.major * MAJOR_NS + self._looks * self._step_ns

    cpu_ns = now_ns


def bench(memory: int = 32 * MIB, directory: str = DISK, share_ns: int = 10**8, most: int = 8) -> Bench:
    return Bench(memory, directory, share_ns, clock=FaultClock(), most=most)


def test_each_page_that_is_touched_is_a_fault() -> None:
    with OwnMemory(4 * HUGE_SIZE) as memory:
        memory.advise(MADV_NOHUGEPAGE)
        before = faults()
        memory.touch()
        assert 0 <= faults().minor - before.minor - 4 * HUGE_SIZE // PAGE_SIZE < 8
        assert memory.resident_pages() == 4 * HUGE_SIZE // PAGE_SIZE
        assert memory.address % HUGE_SIZE == 0
        before = faults()
        memory.touch()
        assert faults().minor - before.minor < 8


def test_a_kernel_without_huge_pages_has_small_ones_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    """madvise(2): MADV_NOHUGEPAGE is EINVAL where the kernel was not built with them."""
    refused = OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def advise(self: OwnMemory, advice: int, start: int = 0, size: int | None = None) -> None:
        raise refused

    monkeypatch.setattr(OwnMemory, "advise", advise)
    with OwnMemory(HUGE_SIZE) as memory:
        memory.keep_small()
        refused.errno = errno.EPERM
        with pytest.raises(OSError, match="Invalid"):
            memory.keep_small()


def test_a_minor_fault_costs_what_the_clock_says() -> None:
    found = pages.minor_fault(bench())["minor_fault_ns"]
    assert len(found) == 8
    assert np.median(found) == pytest.approx(MINOR_NS, rel=0.01)


def test_a_fault_of_a_file_is_a_major_one_and_costs_what_the_clock_says() -> None:
    found = files.read(bench(128 * MIB, share_ns=10**10, most=5))
    assert len(found["file_in_ns"]) == len(found["file_readahead"]) >= 5
    assert np.median(found["file_in_ns"]) == pytest.approx(MAJOR_NS, abs=2 * MINOR_NS)
    assert np.median(found["file_readahead"]) >= 1


def test_a_file_that_is_dropped_is_read_again() -> None:
    with OwnFile(8 * MIB, DISK) as file:
        file.drop()
        with file.mapped() as mapped:
            assert mapped.resident().sum() < 200
            before = faults()
            assert mapped.bytes[5 * MIB] == 5  # each MiB begins with its number
            assert faults().major - before.major == 1
            assert mapped.resident()[5 * 256]


def test_pages_of_a_file_are_dropped() -> None:
    (found,) = files.drop(bench()).values()
    assert np.median(found) < 1  # the clock stands still meanwhile, but for two looks at it


def test_files_that_stay_in_memory_are_not_taken_for_a_disk() -> None:
    with pytest.raises(MachineError, match=r"^/dev/shm: files there do not leave memory"):
        files.read(bench(directory="/dev/shm"))


def test_marking_needs_no_fault() -> None:
    (found,) = pages.mark(bench()).values()
    assert np.median(found) == pytest.approx(CALL_NS * PAGE_SIZE / (16 * MIB))


def test_small_pages_become_huge_ones() -> None:
    try:
        (found,) = pages.collapse(bench(128 * MIB)).values()
        (loads,) = pages.tlb(bench(128 * MIB, most=5)).values()
    except MachineError as error:
        assert "MADV_COLLAPSE" in str(error) or "became huge pages" in str(error)
        pytest.skip(str(error))
    assert len(found) == 32
    assert loads == pytest.approx([0.0] * 5, abs=0.05)  # by a clock that takes loads for nothing, but a fault elsewhere


def test_what_fits_into_the_caches_tells_nothing_of_the_tlb() -> None:
    with pytest.raises(MachineError, match=r"it needs 128 MiB of memory$"):
        pages.tlb(bench(64 * MIB))


class Ticking(FaultClock):
    """A second passes with each look."""

    def now_ns(self) -> int:
        self._looks += 1
        return self._looks * 10**9


def test_it_ends_when_its_time_is_over_but_not_before_there_is_enough() -> None:
    calls = 0

    def once() -> list[float]:
        nonlocal calls
        calls += 1
        return [float(calls)]

    assert Bench(MIB, DISK, 20 * 10**9, clock=Ticking(), most=7).repeated(once) == [2, 3, 4, 5, 6, 7, 8]
    calls = 0
    assert len(Bench(MIB, DISK, 4 * 10**9, clock=Ticking()).repeated(once)) == LEAST
    with pytest.raises(MachineError, match=r"^took so long that there are 2 measurements; 5 are needed$"):
        Bench(MIB, DISK, 10**9, clock=Ticking()).repeated(once)


def test_the_spread_of_measurements() -> None:
    found = spread(ROW, [float(value) for value in range(101)])
    assert found == costs.Spread(value=50, low=10, high=90, samples=101)
    # Noise may make a difference negative; a cost is not.
    assert spread(ROW, [-20.0, -10.0, 3.4]) == costs.Spread(value=0, low=0, high=1, samples=3)


def test_swap_as_the_kernel_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/zram0                              partition\t1048572\t\t2048\t\t100\n"
        "/swap\\040file                           file\t\t4096\t\t0\t\t-2\n"
    )
    zram, file = swap_devices(str(swaps))
    assert zram == SwapDevice("/dev/zram0", True, 1048572 << 10, 2 * MIB)
    assert not file.is_zram
    assert swap_devices(str(tmp_path / "none")) == []
    monkeypatch.setattr(swapping, "swap_devices", lambda: [zram, file])
    with pytest.raises(MachineError, match="both in zram and elsewhere"):
        swapping.swap(bench())
    monkeypatch.setattr(swapping, "swap_devices", lambda: [file])
    with pytest.raises(MachineError, match=r"^only 4 MiB of swap are free; it needs 16$"):
        swapping.swap(bench())
    monkeypatch.setattr(swapping, "swap_devices", list)
    with pytest.raises(MachineError, match=r"^this machine has no swap$"):
        swapping.swap(bench())


def test_how_small_zram_makes_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zram0").mkdir()
    told = tmp_path / "zram0/mm_stat"
    told.write_text(f"{64 * MIB} {20 * MIB} 999 0 0 0 0 0 0\n")
    zram = SwapDevice("/dev/zram0", True, 1 << 30, 64 * MIB)
    monkeypatch.setattr(swapping, "swap_devices", lambda: [zram])
    monkeypatch.setattr(swapping, "Zram", lambda name: Zram(name, tmp_path))
    assert swapping.ratio(bench()) == {"zram_ratio_permil": [3200.0]}
    told.write_text(f"{8 * MIB} {2 * MIB}\n")
    with pytest.raises(MachineError, match="only 8 MiB are in zram now"):
        swapping.ratio(bench())
    told.write_text("nonsense\n")
    with pytest.raises(MachineError, match="mm_stat: is not as the kernel documents it"):
        swapping.ratio(bench())


def test_all_of_it_is_a_cost_file_and_the_rest_says_why() -> None:
    found = calibration.calibrate(quick=True, memory=32 * MIB)
    assert {"minor_fault_ns", "mark_ns"} <= found.measured.keys()
    assert found.measured.keys() | found.left.keys() == {row.name for row in costs.TABLE}
    assert not found.measured.keys() & found.left.keys()
    assert all(found.left.values())
    file = costs.load(as_file(found, "costs.yaml"))
    assert costs.load(as_file(found, "costs.json")) == file
    assert file.measured == found.measured
    assert file.costs.minor_fault_ns == found.measured["minor_fault_ns"].value > 0
    assert "Linux" in file.machine


def test_what_the_kernel_refuses_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(bench: Bench) -> pages.Found:
        raise PermissionError(1, "Operation not permitted")

    def one(bench: Bench) -> pages.Found:
        return {"zram_in_ns": [5.0, 7.0, 6.0]}

    measurements = {("mark_ns",): refused, ("zram_in_ns", "ssd_in_ns"): one}
    monkeypatch.setattr(calibration, "MEASUREMENTS", measurements)
    monkeypatch.setattr(calibration, "_NEVER", {row.name: "not asked for" for row in costs.TABLE})
    found = calibration.calibrate()
    assert found.measured == {"zram_in_ns": costs.Spread(value=6, low=5, high=7, samples=3)}
    assert found.left["mark_ns"] == "the kernel refuses it: Operation not permitted"
    assert found.left["ssd_in_ns"] == "this machine's swap is of the other kind"
    assert found.left["look_ns"] == "not asked for"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"memory": 8 * MIB}, "memory: is 8.0 MiB; it must be 16.0 MiB to 2.0 GiB"),
        ({"memory": 1 << 40}, "memory: is 1.0 TiB; it must be"),
        ({"directory": "/nope"}, "directory: '/nope' is no directory"),
        ({"directory": "\0"}, "is no directory"),
    ],
)
def test_wrong_arguments(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(RequestError) as raised:
        calibration.calibrate(**wrong)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_memory_that_others_need_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineMetrics, "available_bytes", lambda self: 100 * MIB)
    with pytest.raises(RequestError, match=r"100\.0 MiB of memory are available; at most half of that may be taken"):
        calibration.calibrate(memory=64 * MIB)
