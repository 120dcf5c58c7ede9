"""What pages of a file cost: brought back from the disk by an access, and dropped."""

from __future__ import annotations

import mmap
import time

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.madvise import MADV_PAGEOUT
from pydamon.linux.own_memory import PAGE_SIZE, MappedFile, OwnFile, faults
from pydamon.run.calibration.pages import Found
from pydamon.run.calibration.timing import Bench

_LARGEST = 64 << 20
_SMALL = 8 << 20
_MIB = 1 << 20
_TRIES = 256  # single accesses of which the time is taken that Python takes for one
_LOOK_S, _MOST_LOOKS = 0.001, 50
_MOST_MISSES = 64  # of one opening: after about 100 without a hit the kernel reads nothing ahead any more


def read(bench: Bench) -> Found:
    """Single accesses to pages that are not in memory, each timed by itself; and how many pages each brought."""
    with OwnFile(min(bench.memory // 4, _LARGEST) // _MIB * _MIB, bench.directory) as file:
        _check_droppable(file, bench.directory)
        dice = np.random.default_rng(0)
        brought: list[float] = []

        def once() -> list[float]:
            file.drop()
            with file.mapped() as mapped:
                found, pages = _misses(bench, mapped, dice)
            brought.extend(pages)
            return found

        found = bench.repeated(once)
        return {"file_in_ns": found, "file_readahead": brought[-len(found) :]}  # without those of the warm-up


def _check_droppable(file: OwnFile, directory: str) -> None:
    file.drop()
    with file.mapped() as mapped:
        if mapped.resident().mean() > 0.1:
            raise MachineError("files there do not leave memory (tmpfs?); it takes one on a disk", where=directory)


def _misses(bench: Bench, mapped: MappedFile, dice: np.random.Generator) -> tuple[list[float], list[float]]:
    """Of one opening, until half of the file is there."""
    took: list[float] = []
    pages: list[float] = []
    there = mapped.resident()
    while len(took) < _MOST_MISSES and there.mean() < 0.5:
        at = int(dice.choice(np.flatnonzero(~there))) * PAGE_SIZE
        before = faults()
        took_ns = bench.timed_ns(lambda at=at: mapped.bytes[at])  # type: ignore[misc]
        waited = faults().major > before.major
        was, there = int(there.sum()), _settled(mapped)
        if waited:  # else it came just now, read ahead
            took.append(took_ns - _of_python(bench, mapped, at))
            pages.append(float(there.sum() - was))
    if not took:
        raise MachineError("no access had to wait for the disk, as the kernel counts it (ru_majflt)")
    return took, pages


def _settled(mapped: MappedFile) -> NDArray[np.bool_]:
    """What is in memory once nothing more comes."""
    there = mapped.resident()
    for _ in range(_MOST_LOOKS):
        time.sleep(_LOOK_S)
        before, there = there, mapped.resident()
        if there.sum() == before.sum():
            break
    return there


def _of_python(bench: Bench, mapped: MappedFile, at: int) -> float:
    """What an access takes that need not wait."""
    return float(np.median([bench.timed_ns(lambda: mapped.bytes[at]) for _ in range(_TRIES)]))


def drop(bench: Bench) -> Found:
    """CPU time of taking clean pages of a mapped file out of memory, as schemes do it."""
    with OwnFile(min(bench.memory // 4, _SMALL) // _MIB * _MIB, bench.directory) as file, file.mapped() as mapped:
        pages = len(mapped.bytes) // PAGE_SIZE

        def once() -> list[float]:
            mapped.advise(mmap.MADV_WILLNEED)
            int(mapped.bytes[::PAGE_SIZE].sum())
            took_ns = bench.cpu_timed_ns(lambda: mapped.advise(MADV_PAGEOUT))
            gone = pages - int(mapped.resident().sum())
            if gone < pages // 2:
                raise MachineError("the kernel does not drop its pages (tmpfs?)", where=bench.directory)
            return [took_ns / gone]

        return {"file_out_ns": bench.repeated(once)}
