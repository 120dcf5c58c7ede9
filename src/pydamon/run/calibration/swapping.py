"""What swap costs, in zram or on a disk: out by MADV_PAGEOUT, back by an access or ahead of it; and zram's ratio.

On memory of our own; if there is no swap, nothing is measured, and none is made.
"""

from __future__ import annotations

import mmap
import os
import time

import numpy as np

from pydamon.errors import MachineError
from pydamon.linux.madvise import MADV_PAGEOUT
from pydamon.linux.own_memory import PAGE_SIZE, OwnMemory, faults
from pydamon.linux.pagemap import Pagemap, is_swapped
from pydamon.linux.swap import SwapDevice, swap_devices
from pydamon.linux.zram import Zram
from pydamon.run.calibration.pages import Found
from pydamon.run.calibration.timing import Bench

_SMALL = 4 << 20
_ROOM = 4  # times as much swap has to be free: nobody is to run out of it for this
_TELLING = 16 << 20  # bytes in zram from which on they say how small it makes memory
_TAKEN = 0.9  # of the pages have to go where they are sent
_LOOK_S, _MOST_LOOKS = 0.002, 500


def swap(bench: Bench) -> Found:
    """A third of each page is random, the rest zeros: zram makes it some three times smaller."""
    devices = _devices()
    kind = "zram" if devices[0].is_zram else "ssd"
    size = min(bench.memory, _SMALL)
    free = sum(one.size_bytes - one.used_bytes for one in devices)
    if free < _ROOM * size:
        raise MachineError(f"only {free >> 20} MiB of swap are free; it needs {_ROOM * size >> 20}")
    with OwnMemory(size) as memory:
        memory.keep_small()
        _fill(memory)
        places = np.arange(0, size, PAGE_SIZE)
        dice = np.random.default_rng(0)
        found: Found = {f"{kind}_out_ns": [], "willneed_ns": [], f"{kind}_readahead": []}

        def once() -> list[float]:
            found[f"{kind}_out_ns"].append(_out(bench, memory))
            at = dice.permutation(places)
            before = faults()
            took_ns = bench.timed_ns(lambda: memory.bytes[at].sum())
            waits = faults().major - before.major
            if not waits:
                raise MachineError("no access had to wait for swap, as the kernel counts it (ru_majflt)")
            took_ns -= bench.timed_ns(lambda: memory.bytes[at].sum())
            found[f"{kind}_readahead"].append(len(at) / waits)
            _out(bench, memory)
            found["willneed_ns"].append(_ahead(bench, memory))
            return [took_ns / waits]

        took = bench.repeated(once)
    return {name: values[-len(took) :] for name, values in found.items()} | {f"{kind}_in_ns": took}


def _devices() -> list[SwapDevice]:
    devices = swap_devices()
    if not devices:
        raise MachineError("this machine has no swap")
    if len({one.is_zram for one in devices}) > 1:
        raise MachineError("this machine has swap both in zram and elsewhere: it cannot be told which is used")
    return devices


def _fill(memory: OwnMemory) -> None:
    pages = memory.bytes.reshape(-1, PAGE_SIZE)
    random = np.random.default_rng(0).bytes(len(pages) * (PAGE_SIZE // 3))
    pages[:, : PAGE_SIZE // 3] = np.frombuffer(random, np.uint8).reshape(len(pages), -1)


def _out(bench: Bench, memory: OwnMemory) -> float:
    """CPU time of a page on its way out. Raises MachineError unless they go."""
    memory.touch()
    took_ns = bench.cpu_timed_ns(lambda: memory.advise(MADV_PAGEOUT))
    pages = len(memory.bytes) // PAGE_SIZE
    for _ in range(_MOST_LOOKS):  # a disk has to have written them
        gone = _swapped(memory)
        if gone >= _TAKEN * pages and memory.resident_pages() <= (1 - _TAKEN) * pages:
            return took_ns / gone
        time.sleep(_LOOK_S)
        memory.advise(MADV_PAGEOUT)  # what was written meanwhile goes
    raise MachineError(f"of {pages} pages only {gone} went to swap (a limit of the cgroup?)")


def _swapped(memory: OwnMemory) -> int:
    pagemap = Pagemap(os.getpid())
    try:
        return int(is_swapped(pagemap.span(memory.address, memory.address + len(memory.bytes))).sum())
    finally:
        pagemap.close()


def _ahead(bench: Bench, memory: OwnMemory) -> float:
    """CPU time of a page that is brought back by MADV_WILLNEED."""
    before = memory.resident_pages()
    took_ns = bench.cpu_timed_ns(lambda: memory.advise(mmap.MADV_WILLNEED))
    return took_ns / max(memory.resident_pages() - before, 1)


def ratio(bench: Bench) -> Found:
    """How small zram makes what is in it now: what this machine really has there."""
    names = [one.name.rpartition("/")[2] for one in swap_devices() if one.is_zram]
    if not names:
        raise MachineError("this machine has no swap in zram")
    stored = [Zram(name).stored_bytes() for name in names]
    whole, small = sum(one for one, _ in stored), sum(one for _, one in stored)
    if whole < _TELLING or not small:
        raise MachineError(f"only {whole >> 20} MiB are in zram now; it tells from {_TELLING >> 20} MiB on")
    return {"zram_ratio_permil": [whole * 1000 / small]}
