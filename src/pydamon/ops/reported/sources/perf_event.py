"""Address samples of running processes, live and without the perf program: the kernel's rings, read as time passes.

With the hardware's events (PEBS on Intel, IBS on AMD) these are loads and stores; with the software event page-faults,
which there is everywhere, the first touches of pages. The rings are read once per sampling interval, and at least every
50 ms, and when one is half full; what did not fit into them is counted, and silence says nothing in an interval in
which samples were lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import perf_pmu
from pydamon.linux.online_cpus import nodes_of_cpus
from pydamon.linux.perf_event import Event, Samples, Sampling, joined
from pydamon.linux.process import Mapping, Process, ProcessGone
from pydamon.ops.reported.reports import NOBODY
from pydamon.ops.reported.sources.base import Block, LineCounts

_PATIENCE_NS = 50_000_000  # a ring holds some thousands of samples
_SETTLED_NS = 1_000_000  # what is older stands in its ring: a sample is written some time after it has its time
_USER_LIMIT = np.uint64(1 << 63)
_LOWEST = np.uint64(4096)  # the hardware tells 0 where it does not know
_SIZE = 1  # the width of an access is not told


class PerfEvent:
    """Samples of ``event`` in the processes ``pids``, targets 0, 1, …, as a source. It ends when all of them have.

    Raises MachineError where they cannot be sampled, RequestError for a process that there is not.
    """

    name = "perf-event"
    complete = False

    def __init__(self, event: Event, pids: Sequence[int], *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.nr_targets = len(pids)
        self.counts = LineCounts()
        self.without_address = 0  # samples of which the hardware told no address, or the kernel's
        self.throttled = 0  # how often the kernel stopped sampling for a moment
        self._now_ns = now_ns
        self._until_ns = 0
        self._early: list[Samples] = []  # those that are not settled yet
        self._ended = False
        self._pids = np.array(sorted(pids), np.int32)
        self._target_of = np.array([pids.index(pid) for pid in sorted(pids)], np.uint16)
        self._node_of = _table(nodes_of_cpus())
        self._processes: list[Process] = []
        try:
            for pid in pids:
                self._processes.append(Process(pid))
            self._sampling: Sampling = Sampling(event, pids)
        except BaseException:
            self._let_go()
            raise
        self._living = list(self._processes)

    def aim(self, until_ns: int) -> None:
        """Whoever reads needs to know all up to that time (CLOCK_MONOTONIC, ns), and nothing before it is reached."""
        self._until_ns = until_ns

    def read(self) -> Block | None:
        """Wait until the time that is aimed at, or for a while; None when all the processes have ended."""
        if self._ended:
            return None
        now_ns = self._now_ns()
        wait_ns = min(max(self._until_ns + _SETTLED_NS - now_ns, 0), _PATIENCE_NS)
        self._ended = self._wait(wait_ns)
        # Read the clock first: what is settled by then is in the rings.
        end_ns = self._now_ns() - (0 if self._ended else _SETTLED_NS)
        return self._block(self._sampling.read(), end_ns)

    def fileno(self) -> int:
        """Readable when a ring is half full."""
        return self._sampling.fileno()

    def _wait(self, wait_ns: int) -> bool:
        """Until then, or a ring is half full, or all have ended: whether they have."""
        poll = select.poll()
        rings = self._sampling.fileno()
        poll.register(rings, select.POLLIN)
        living = {process.pidfd: process for process in self._living}
        for fd in living:
            poll.register(fd, select.POLLIN)
        deadline_ns = self._now_ns() + wait_ns
        while True:
            rest_ms = -(-max(deadline_ns - self._now_ns(), 0) // 1_000_000)
            for fd, _ in poll.poll(rest_ms):
                if fd == rings:
                    self._sampling.wake()
                    deadline_ns = 0
                    continue
                poll.unregister(fd)
                self._living.remove(living[fd])
            if not self._living:
                return True
            if self._now_ns() >= deadline_ns:
                return False

    def _block(self, new: Samples, end_ns: int) -> Block:
        """What happened before ``end_ns`` of the new samples and of those that waited; the others wait."""
        self.throttled += new.throttled
        words = joined([*self._early, new]).words
        settled = int(np.searchsorted(words[:, 2], np.uint64(end_ns), side="left"))
        self._early, found = [Samples(words[settled:])], Samples(words[:settled])
        pid, address = found.pid, found.address
        place = np.minimum(np.searchsorted(self._pids, pid), len(self._pids) - 1)
        ours = self._pids[place] == pid
        told = (address >= _LOWEST) & (address < _USER_LIMIT)
        self.without_address += int((ours & ~told).sum())
        self.counts.skipped += int((~(ours & told)).sum())
        rows = np.flatnonzero(ours & told)
        self.counts.accesses += len(rows)
        cpu = found.cpu[rows]
        return Block(
            address=address[rows],
            size=np.full(len(rows), _SIZE, np.uint64),
            when_ns=found.when_ns[rows],
            is_write=found.is_write[rows],
            end_ns=end_ns,
            target=self._target_of[place[rows]],
            cpu=cpu,
            node=self._node_of[np.clip(cpu, 0, len(self._node_of) - 1)],
            thread=found.thread[rows],
            lost=new.lost,
        )

    def mappings(self, target: int) -> list[Mapping]:
        """What its process maps; nothing of one that has ended, or may not be looked at."""
        with contextlib.suppress(ProcessGone, MachineError, OSError):
            return self._processes[target].mappings()
        return []

    def remarks(self) -> list[str]:
        """What a user should know of how it went."""
        found = []
        if self.without_address:
            found.append(f"{self.without_address} samples had no address of a program, and are left out")
        if self.throttled:
            found.append(
                f"the kernel stopped sampling {self.throttled} times for a moment: there were too many samples"
            )
        return found

    def close(self) -> None:
        """End the sampling."""
        self._sampling.close()
        self._let_go()

    def _let_go(self) -> None:
        for process in self._processes:
            process.close()


def probe() -> str:
    """The name of the event that samples loads here; raises MachineError with the reason where there is none."""
    event = perf_pmu.event()
    Sampling(event, [os.getpid()]).close()
    return event.name


def probe_page_faults() -> None:
    """Touch a page of ours and see its fault in the ring; raises MachineError with the reason why not."""
    import mmap

    sampling = Sampling(perf_pmu.PAGE_FAULTS, [os.getpid()])
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            memory[0] = 1
            address = np.frombuffer(memory, np.uint8).ctypes.data  # the array is gone before the mapping is closed
        if address not in sampling.read().address:
            raise MachineError("gives no addresses of page faults on this kernel", where="perf_event_open")
    finally:
        sampling.close()


def _table(nodes: dict[int, int]) -> NDArray[np.int32]:
    """Nodes by CPU number; `NOBODY` for what is not known, as the last is."""
    table = np.full(max(nodes, default=-1) + 2, NOBODY, np.int32)
    for cpu, node in nodes.items():
        table[cpu] = node
    return table
