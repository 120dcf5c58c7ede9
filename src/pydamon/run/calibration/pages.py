"""What anonymous pages cost: mapped at their first access, marked, made huge, moved; and what huge ones save."""

from __future__ import annotations

import errno
import mmap
import os

import numpy as np

from pydamon.errors import MachineError
from pydamon.linux import thp
from pydamon.linux.madvise import MADV_COLD, MADV_COLLAPSE, MADV_HUGEPAGE
from pydamon.linux.move_pages import memory_nodes, move, nodes_of
from pydamon.linux.own_memory import HUGE_SIZE, PAGE_SIZE, OwnMemory, faults
from pydamon.linux.process import Process
from pydamon.run.calibration.timing import Bench

Found = dict[str, list[float]]

_SMALL = 16 << 20  # of what is measured again and again
_BLOCKS = 64 << 20
_LOADS = 1 << 18  # at random, in one measurement
_TRUE = 0.98  # of the pages have to have done what is measured
_CACHES = 64 << 20  # memory of less is answered by the CPU's caches, and by its TLB


def minor_fault(bench: Bench) -> Found:
    """New pages: the time of writing a byte of each, less that of writing it again."""
    with _small_pages(bench) as memory:
        pages = len(memory.bytes) // PAGE_SIZE

        def once() -> list[float]:
            memory.advise(mmap.MADV_DONTNEED)
            before = faults()
            first_ns = bench.timed_ns(memory.touch)
            new = faults().minor - before.minor
            if new < _TRUE * pages:
                raise MachineError(f"{new} faults brought {pages} pages: this kernel maps several at once")
            return [(first_ns - bench.timed_ns(memory.touch)) / pages]

        return {"minor_fault_ns": bench.repeated(once)}


def mark(bench: Bench) -> Found:
    """Pages that are marked cold."""
    with _small_pages(bench) as memory:
        memory.touch()
        pages = len(memory.bytes) // PAGE_SIZE

        def once() -> list[float]:
            memory.touch()
            return [bench.cpu_timed_ns(lambda: memory.advise(MADV_COLD)) / pages]

        return {"mark_ns": bench.repeated(once)}


def collapse(bench: Bench) -> Found:
    """Small pages that become huge ones, each block once."""
    with OwnMemory(min(bench.memory, _BLOCKS) // HUGE_SIZE * HUGE_SIZE) as memory:
        memory.keep_small()
        memory.touch()
        return {"collapse_ns": _collapse(bench, memory)}


def tlb(bench: Bench) -> Found:
    """Loads at random from small pages, against those from huge ones: half of the memory each.

    The loads of a pair are the same ones, one after the other.
    """
    size = bench.memory // 2 // HUGE_SIZE * HUGE_SIZE
    if size < _CACHES:
        raise MachineError(f"the CPU's caches may hold it all; it needs {2 * _CACHES >> 20} MiB of memory")
    with OwnMemory(size) as small, OwnMemory(size) as large:
        for memory in (small, large):
            memory.keep_small()
            memory.touch()
        _collapse(bench, large)
        return {"tlb_miss_ns": _loads(bench, small, large)}


def _collapse(bench: Bench, memory: OwnMemory) -> list[float]:
    """ns per small page, of each block. Raises MachineError if huge pages do not come."""
    memory.advise(MADV_HUGEPAGE)  # else they are refused; khugepaged is far slower than what follows
    before = thp.of_process(os.getpid()) or 0
    found = []
    try:
        for start in range(0, len(memory.bytes), HUGE_SIZE):
            took_ns = bench.timed_ns(lambda start=start: memory.advise(MADV_COLLAPSE, start, HUGE_SIZE))  # type: ignore[misc]
            found.append(took_ns * PAGE_SIZE / HUGE_SIZE)
    except OSError as error:
        remedy = {errno.EINVAL: "; it takes Linux 6.1", errno.ENOMEM: "; no huge page is free"}.get(
            error.errno or 0, ""
        )
        raise MachineError(f"MADV_COLLAPSE: {error.strerror}{remedy}") from None
    made = (thp.of_process(os.getpid()) or 0) - before
    if made < _TRUE * len(memory.bytes):
        raise MachineError(f"of {len(memory.bytes) >> 20} MiB only {made >> 20} MiB became huge pages")
    return found


def _loads(bench: Bench, small: OwnMemory, large: OwnMemory) -> list[float]:
    dice = np.random.default_rng(0)
    out = np.empty(_LOADS, np.uint8)

    def once() -> list[float]:
        at = dice.integers(0, len(small.bytes), _LOADS)
        # "clip": with the usual mode NumPy would buffer what it finds.
        first_ns = bench.timed_ns(lambda: np.take(small.bytes, at, out=out, mode="clip"))
        return [(first_ns - bench.timed_ns(lambda: np.take(large.bytes, at, out=out, mode="clip"))) / _LOADS]

    return bench.repeated(once)


def migrate(bench: Bench) -> Found:
    """Pages that are moved to another node and back."""
    nodes = memory_nodes()
    if len(nodes) < 2:
        raise MachineError(f"only NUMA node {', '.join(map(str, nodes))} has memory: there is nowhere to move it to")
    process = Process(os.getpid())
    try:
        with _small_pages(bench) as memory:
            memory.touch()
            addresses = np.arange(0, len(memory.bytes), PAGE_SIZE).astype(np.uint64) + np.uint64(memory.address)
            here = nodes_of(process, addresses)

            def once() -> list[float]:
                nonlocal here
                there = np.where(here == nodes[0], nodes[1], nodes[0]).astype(np.int32)
                took_ns = bench.timed_ns(lambda: move(process, addresses, there))
                moved = int(np.count_nonzero(nodes_of(process, addresses) == there))
                if moved < _TRUE * len(addresses):
                    raise MachineError(f"of {len(addresses)} pages only {moved} could be moved to the other node")
                here = there
                return [took_ns / len(addresses)]

            return {"migrate_ns": bench.repeated(once)}
    finally:
        process.close()


def _small_pages(bench: Bench) -> OwnMemory:
    memory = OwnMemory(min(bench.memory, _SMALL) // HUGE_SIZE * HUGE_SIZE)
    memory.keep_small()
    return memory
