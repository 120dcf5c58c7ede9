"""Probes of perf events: in which regions of processes an event has sampled an access since the last sample.

A probe ``perf_event=EVENT`` hits a region once per sample at most, however many samples of the event there are in it,
as an access does: so what a probe has hit compares with the number of samples, and with what other probes have hit. The
events are those of `pydamon.linux.perf_pmu`. What the kernel could not keep is counted, and says nothing.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from pydamon.errors import MachineError, located
from pydamon.linux import perf_pmu
from pydamon.linux.perf_event import Event, Sampling
from pydamon.ops.base import Addresses, Hits
from pydamon.ops.heard import Heard, in_regions
from pydamon.spec import Probe
from pydamon.spec.probes import event_of

_USER_LIMIT = np.uint64(1 << 63)


class _Counter(msgspec.Struct):
    """One event in all the targets."""

    sampling: Sampling
    heard: Heard


class EventHits:
    """Counts for the probes of events in the processes that ``pids`` tells (target → pid). Close it in the end.

    `fileno` is readable when there is much to read; `wake` reads it then, also in the middle of a sampling interval.
    """

    def __init__(
        self,
        pids: Callable[[], Mapping[int, int]],
        *,
        open_sampling: Callable[[Event, Sequence[int]], Sampling] = Sampling,
    ) -> None:
        self.lost = 0  # samples of which only their number is known
        self._pids = pids
        self._open = open_sampling
        self._wakes = select.epoll()
        self._followed: Sequence[Probe] = ()
        self._refused = ""
        self._counters: dict[str, _Counter] = {}
        self._target_of: dict[int, int] = {}  # pid → target
        self._served: set[int] = set()  # targets that were told what was read last
        self._left_out: dict[int, str] = {}  # target → why its events are not counted

    def check(self, probes: Sequence[Probe]) -> None:
        """Raise RequestError or MachineError, naming the probe, if such an event cannot be sampled here.

        Nothing of what is counted changes: another thread may be at it.
        """
        for number, probe in enumerate(probes):
            text = event_of(probe)
            if text is not None and text not in self._counters:
                with located(f"[{number}].filters[0].perf_event"):
                    self._open(perf_pmu.event(text), list(self._pids().values())).close()

    def follow(self, probes: Sequence[Probe]) -> None:
        """Count the events of these probes, and no others, from now on; what `check` has let pass, as a rule can be."""
        if probes is self._followed:
            return
        self._followed = probes
        wanted = {text for probe in probes if (text := event_of(probe)) is not None}
        for text in set(self._counters) - wanted:
            self._counters.pop(text).sampling.close()  # an epoll forgets what is closed
        if not self._counters:
            self._target_of = {pid: target for target, pid in self._pids().items()}
        for text in sorted(wanted - set(self._counters)):
            try:
                sampling = self._open(perf_pmu.event(text), list(self._target_of))
            except MachineError as error:
                self._refused = str(error)
                continue
            self._counters[text] = _Counter(sampling, Heard())
            self._wakes.register(sampling.fileno(), select.EPOLLIN)

    def join(self, target: int, pid: int) -> None:
        """One more process is a target."""
        self._target_of[pid] = target
        try:
            for counter in self._counters.values():
                counter.sampling.add(pid)
        except MachineError as error:
            self._left_out[target] = error.message

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._target_of = {pid: other for pid, other in self._target_of.items() if other != target}
        for counter in self._counters.values():
            counter.heard.forget(target)

    def fileno(self) -> int:
        """Readable when rings are half full; -1 once this is closed."""
        return -1 if self._wakes.closed else self._wakes.fileno()

    def wake(self) -> None:
        """Make room in the rings."""
        self.collect()
        for counter in self._counters.values():
            counter.sampling.wake()
        self._wakes.poll(0)

    def collect(self) -> None:
        """Read what has been sampled, so that there is room for more."""
        for counter in self._counters.values():
            found = counter.sampling.read()
            self.lost += found.lost
            pids, addresses = found.pid, found.address
            told = addresses < _USER_LIMIT
            for pid in np.unique(pids).tolist():
                target = self._target_of.get(pid)
                if target is not None:
                    counter.heard.add(target, addresses[told & (pids == pid)])

    def put(self, hits: Hits, target: int, start: Addresses, end: Addresses, probes: Sequence[Probe]) -> None:
        """Set in ``hits``, shape (probes, n), which regions [start, end) the probes of events have hit since the target
        was asked last; rows of other probes stay."""
        if target in self._served or not self._served:
            self.collect()
            self._served.clear()
        self._served.add(target)
        regions = {}
        for text, counter in self._counters.items():
            addresses, _ = counter.heard.take(target)
            regions[text], _ = in_regions(addresses, start, end)
        for row, probe in enumerate(probes):
            found = regions.get(event_of(probe) or "")
            if found is not None:
                hits[row, found] = True

    def remarks(self) -> list[str]:
        """What a user should know of how it went."""
        found = [f"{self.lost:,} samples of probes' events were lost"] if self.lost else []
        if self._refused:
            found.append(f"probes' events could not be counted: {self._refused}")
        if self._left_out:
            why = next(iter(self._left_out.values()))
            found.append(f"probes' events were not counted in {len(self._left_out):,} processes: {why}")
        return found

    def close(self) -> None:
        """End the sampling."""
        for counter in self._counters.values():
            counter.sampling.close()
        self._counters = {}
        self._wakes.close()
