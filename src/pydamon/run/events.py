"""What a kdamond does as trace events: text as ``perf script`` prints it, and user events of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Engine, Tell
from pydamon.linux.damon_trace import OF_SCHEMES
from pydamon.linux.user_events import UserEvent
from pydamon.records import trace_text
from pydamon.records.same_window import SameWindow
from pydamon.records.trace_text import AGGREGATED, BEFORE_APPLY, ESZ, PROBED, STAT, TUNED
from pydamon.spec.probes import MAX_PROBES
from pydamon.spec.statistics import OF_EVENT

# What perf and trace-cmd see of each event: the kernel's own fields, without its padding.
_FIELDS = {
    AGGREGATED: "u64 target_id;u32 nr_regions;u64 start;u64 end;u32 nr_accesses;u32 age",
    BEFORE_APPLY: "u32 context_idx;u32 scheme_idx;u64 target_idx;u64 start;u64 end;u32 nr_accesses;u32 age;"
    "u32 nr_regions",
    TUNED: "u64 sample_us",
    ESZ: "u32 context_idx;u32 scheme_idx;u64 esz",
    STAT: ";".join(["u32 context_idx", "u32 scheme_idx", *(f"u64 {row.name}" for row in OF_EVENT)]),
    # The kernel's own has an array of as many as there are probes.
    PROBED: "u64 target_id;u64 start;u64 end;u32 nr_regions;u32 nr_accesses;u32 age;"
    + ";".join(f"u8 probe_hits_{number}" for number in range(MAX_PROBES)),
}


def text_sink(write: Callable[[str], object], writer: trace_text.Writer) -> Tell:
    """Events as text."""

    def sink(event: str, time_ns: int, **values: Any) -> None:
        if event == AGGREGATED:
            write(writer.aggregated(values["snapshot"]))
        elif event == PROBED:
            found: Snapshot = values["snapshot"]
            columns = found.start, found.end, found.nr_accesses, found.age, found.probe_hits
            write(writer.probed(time_ns, found.target, *columns))
        elif event == BEFORE_APPLY:
            write(writer.before_apply(time_ns, **values))
        elif event == TUNED:
            write(writer.tuned(time_ns, values["sample_us"]))
        elif event == ESZ:
            write(writer.esz(time_ns, values["scheme"], values["esz"]))
        else:
            write(writer.stat(time_ns, values["scheme"], values["stats"]))

    return sink


class UserEvents:
    """Events as user events of the kernel; one that nobody listens to costs nothing. Raises MachineError."""

    def __init__(self, events: tuple[str, ...], root: str = "/sys/kernel/tracing") -> None:
        self._events: dict[str, UserEvent] = {}
        try:
            for event in events:
                self._events[event] = UserEvent(event, _FIELDS[event], root=root)
        except BaseException:
            self.close()
            raise

    def __call__(self, event: str, time_ns: int, **values: Any) -> None:
        """Write it, if somebody listens: one event per region, as the kernel does."""
        target = self._events.get(event)
        if target is None or not target.enabled:
            return
        rows = _rows(event, values)
        data, size = rows.tobytes(), rows.dtype.itemsize
        for at in range(0, len(data), size):
            target.write(data[at : at + size])

    def close(self) -> None:
        """Take them back."""
        for event in self._events.values():
            event.close()
        self._events.clear()


def _rows(event: str, values: dict[str, Any]) -> NDArray[np.void]:
    """The payloads of one or more events of one kind."""
    snapshot: Snapshot | None = values.get("snapshot")
    if snapshot is not None:
        columns: dict[str, Any] = {
            "target_id": snapshot.target,
            "nr_regions": len(snapshot.start),
            **{name: getattr(snapshot, name) for name in ("start", "end", "nr_accesses", "age")},
            **{f"probe_hits_{number}": 0 for number in range(MAX_PROBES)},
            **{f"probe_hits_{number}": np.minimum(hits, 255) for number, hits in enumerate(snapshot.probe_hits)},
        }
    else:
        columns = {"context_idx": 0, **values}
        columns["scheme_idx"] = columns.pop("scheme", 0)
        columns["target_idx"] = columns.pop("target", 0)
        if event == ESZ and columns["esz"] is None:
            columns["esz"] = 2**64 - 1
        if event == STAT:
            columns |= values["stats"].by_name()
    names = [field.split() for field in _FIELDS[event].split(";")]
    dtype = np.dtype([(name, f"<u{int(kind[1:]) // 8}") for kind, name in names])
    rows = np.zeros(len(columns["start"]) if "start" in columns else 1, dtype)
    for _, name in names:
        rows[name] = columns[name]
    return rows


class Tracer:
    """Turns what a kdamond does into events, as far as they are ``wanted``."""

    def __init__(self, wanted: tuple[str, ...], sinks: list[Tell]) -> None:
        self.wanted = frozenset(wanted)
        self._sinks = sinks
        self._sample_us: int | None = None
        self._whole = SameWindow()  # an event says no number of samples

    def callbacks(self) -> Callbacks:
        """To be given to the engine."""
        return Callbacks(after_aggregation=self._aggregated, after_sampling=self._sampled)

    def follow(self, engine: Engine) -> list[str]:
        """Hear of its schemes, too; returns the events that it does not have. To be called before it runs."""
        return engine.follow(self.wanted.intersection(OF_SCHEMES), self.tell)

    def _aggregated(self, loop: Loop) -> None:
        self._sampled(loop)
        if AGGREGATED in self.wanted:
            for snapshot in loop.snapshots:
                if len(snapshot.start):
                    self.tell(AGGREGATED, snapshot.end_ns, snapshot=self._whole.of(snapshot))
        if PROBED in self.wanted:
            for snapshot in loop.snapshots:
                if len(snapshot.start) and len(snapshot.probe_hits):
                    self.tell(PROBED, snapshot.end_ns, snapshot=snapshot)

    def _sampled(self, loop: Loop) -> None:
        sample_us = loop.intervals.sample_us
        if self._sample_us not in (None, sample_us) and TUNED in self.wanted:
            self.tell(TUNED, loop.clock.now_ns(), sample_us=sample_us)
        self._sample_us = sample_us

    def tell(self, event: str, time_ns: int, **values: Any) -> None:
        """Tell all sinks."""
        for sink in self._sinks:
            sink(event, time_ns, **values)
