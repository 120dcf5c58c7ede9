"""What a kdamond does as trace events: text as ``perf script`` prints it, and user events of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.regions import Regions
from pydamon.core.scheme_state import SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.linux.damon_trace import OF_SCHEMES
from pydamon.linux.user_events import UserEvent
from pydamon.records import trace_text
from pydamon.records.trace_text import AGGREGATED, BEFORE_APPLY, ESZ, PROBED, STAT, TUNED
from pydamon.spec.probes import MAX_PROBES

if TYPE_CHECKING:
    from pydamon.core.damos import Damos
    from pydamon.engines.kernel.engine import KernelKdamond
    from pydamon.engines.kernel.results import SchemeEvent
    from pydamon.ops.pace import Clock

OnApply = Callable[[int, int, Regions, NDArray[np.intp]], object]
OnPass = Callable[[int], object]

# What perf and trace-cmd see of each event: the kernel's own fields, without its padding.
_FIELDS = {
    AGGREGATED: "u64 target_id;u32 nr_regions;u64 start;u64 end;u32 nr_accesses;u32 age",
    BEFORE_APPLY: "u32 context_idx;u32 scheme_idx;u64 target_idx;u64 start;u64 end;u32 nr_accesses;u32 age;"
    "u32 nr_regions",
    TUNED: "u64 sample_us",
    ESZ: "u32 context_idx;u32 scheme_idx;u64 esz",
    STAT: "u32 context_idx;u32 scheme_idx;u64 nr_tried;u64 sz_tried;u64 nr_applied;u64 sz_applied;"
    "u64 sz_ops_filter_passed;u64 qt_exceeds;u64 nr_snapshots",
    # The kernel's own has an array of as many as there are probes.
    PROBED: "u64 target_id;u64 start;u64 end;u32 nr_regions;u32 nr_accesses;u32 age;"
    + ";".join(f"u8 probe_hits_{number}" for number in range(MAX_PROBES)),
}
_STATS = ("nr_tried", "sz_tried", "nr_applied", "sz_applied", "sz_ops_filter_passed", "qt_exceeds", "nr_snapshots")


class Sink(Protocol):
    """Where events go: arrays have one element per region, the rest is the same for all of them."""

    def __call__(self, event: str, time_ns: int, **values: Any) -> None:
        """One event, or one per region."""
        ...


def text_sink(write: Callable[[str], object], writer: trace_text.Writer) -> Sink:
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
            columns |= {name: getattr(values["stats"], name) for name in _STATS}
    names = [field.split() for field in _FIELDS[event].split(";")]
    dtype = np.dtype([(name, f"<u{int(kind[1:]) // 8}") for kind, name in names])
    rows = np.zeros(len(columns["start"]) if "start" in columns else 1, dtype)
    for _, name in names:
        rows[name] = columns[name]
    return rows


class Tracer:
    """Turns what a kdamond does into events, as far as they are ``wanted``."""

    def __init__(self, wanted: tuple[str, ...], sinks: list[Sink]) -> None:
        self.wanted = frozenset(wanted)
        self._sinks = sinks
        self._sample_us: int | None = None
        self._esz: dict[int, int | None] = {}

    def callbacks(self) -> Callbacks:
        """To be given to the engine."""
        return Callbacks(after_aggregation=self._aggregated, after_sampling=self._sampled)

    def follow(self, kdamond: Kdamond) -> None:
        """Hear of its schemes, too."""
        if kdamond.damos is not None:
            kdamond.damos.on_apply, kdamond.damos.on_pass = self.of_schemes(kdamond.clock, kdamond.damos)

    def of_schemes(self, clock: Clock, damos: Damos) -> tuple[OnApply, OnPass]:
        """What is to be called before schemes are applied, and after each of their passes."""

        def before_apply(scheme: int, target: int, regions: Regions, index: NDArray[np.intp]) -> None:
            if BEFORE_APPLY in self.wanted and len(index):
                self._emit(
                    BEFORE_APPLY, clock.now_ns(), scheme=scheme, target=target, nr_regions=len(regions),
                    start=regions.start[index], end=regions.end[index],
                    nr_accesses=regions.nr_accesses_bp[index] // 10_000, age=regions.age[index],
                )  # fmt: skip

        def after_pass(scheme: int) -> None:
            now_ns, state = clock.now_ns(), damos.states[scheme]
            if ESZ in self.wanted and state.scheme.quotas.limited and self._esz.get(scheme, -1) != state.quota.esz:
                self._esz[scheme] = state.quota.esz
                self._emit(ESZ, now_ns, scheme=scheme, esz=state.quota.esz)
            if STAT in self.wanted:
                self._emit(STAT, now_ns, scheme=scheme, stats=state.stats)

        return before_apply, after_pass

    def follow_kernel(self, kdamond: KernelKdamond) -> list[str]:
        """Hear of the schemes of the kernel's kdamond, too; returns the events that are not to be had of it."""
        wanted = sorted(self.wanted.intersection(OF_SCHEMES))
        had = kdamond.trace_schemes(wanted, self._of_scheme) if wanted else []
        return [event for event in wanted if event not in had]

    def _of_scheme(self, event: SchemeEvent) -> None:
        values = event.values
        told: dict[str, Any] = {"scheme": values["scheme_idx"]}
        if event.name == BEFORE_APPLY:
            told |= {"target": values["target_idx"], "nr_regions": values["nr_regions"]}
            told |= {name: np.array([values[name]], np.uint64) for name in ("start", "end", "nr_accesses", "age")}
        elif event.name == ESZ:
            told["esz"] = values["esz"]
        else:
            told["stats"] = SchemeStats(**{name: values[name] for name in _STATS})
        self._emit(event.name, event.time_ns, **told)

    def _aggregated(self, kdamond: Kdamond) -> None:
        self._sampled(kdamond)
        if AGGREGATED in self.wanted:
            for snapshot in kdamond.snapshots:
                if len(snapshot.start):
                    self._emit(AGGREGATED, snapshot.end_ns, snapshot=snapshot)
        if PROBED in self.wanted:
            for snapshot in kdamond.snapshots:
                if len(snapshot.start) and len(snapshot.probe_hits):
                    self._emit(PROBED, snapshot.end_ns, snapshot=snapshot)

    def _sampled(self, kdamond: Kdamond) -> None:
        sample_us = kdamond.intervals.sample_us
        if self._sample_us not in (None, sample_us) and TUNED in self.wanted:
            self._emit(TUNED, kdamond.clock.now_ns(), sample_us=sample_us)
        self._sample_us = sample_us

    def _emit(self, event: str, time_ns: int, **values: Any) -> None:
        for sink in self._sinks:
            sink(event, time_ns, **values)
