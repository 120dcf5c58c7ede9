"""DAMON's trace events as text: line by line what ``perf script`` prints for the kernel's own.

The text of each event is that of its ``format`` file below ``/sys/kernel/tracing/events/damon``; what is before it is
perf's: command, thread, CPU, time in seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core.scheme_state import SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.records import hits
from pydamon.records.same_window import SameWindow
from pydamon.spec.statistics import OF_EVENT

AGGREGATED = "damon_aggregated"
BEFORE_APPLY = "damos_before_apply"
TUNED = "damon_monitor_intervals_tune"
ESZ = "damos_esz"
STAT = "damos_stat_after_apply_interval"
PROBED = "damon_region_aggregated"
EVENTS = (AGGREGATED, BEFORE_APPLY, TUNED, ESZ, STAT, PROBED)

_NO_LIMIT = 2**64 - 1  # the kernel's ULONG_MAX


@dataclass(frozen=True, slots=True)
class Writer:
    """Who is said to have traced: the command, its thread, the CPU. Each method gives whole lines."""

    command: str = "kdamond.0"
    pid: int = 0
    cpu: int = 0

    def _head(self, event: str, time_ns: int) -> str:
        time = f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000 // 1000:06d}"
        return f"{self.command:>16} {self.pid:5d} [{self.cpu:03d}] {time:>12}: damon:{event}: "

    def aggregated(self, snapshot: Snapshot) -> str:
        """``damon_aggregated``: a line for each region of the snapshot, at its end."""
        head = f"{self._head(AGGREGATED, snapshot.end_ns)}target_id={snapshot.target} nr_regions={len(snapshot.start)}"
        return _lines(head, snapshot.start, snapshot.end, snapshot.nr_accesses, snapshot.age)

    def probed(
        self,
        time_ns: int,
        target: int,
        start: NDArray[np.uint64],
        end: NDArray[np.uint64],
        nr_accesses: NDArray[Any],
        age: NDArray[Any],
        hits: NDArray[Any],
    ) -> str:
        """``damon_region_aggregated``: a line for each region, with the ``hits`` (probes, n) of its probes in hex.

        As in the kernel a count is a byte; here one beyond that is shown as the most.
        """
        head = f"{self._head(PROBED, time_ns)}target_id={target} nr_regions={len(start)}"
        tail = "probe_hits=" + " ".join(["%02x"] * len(hits))
        return _lines(head, start, end, nr_accesses, age, np.minimum(hits, 255), form=f" %d-%d: %d %d {tail}\n")

    def before_apply(
        self,
        time_ns: int,
        scheme: int,
        target: int,
        nr_regions: int,
        start: NDArray[np.uint64],
        end: NDArray[np.uint64],
        nr_accesses: NDArray[Any],
        age: NDArray[Any],
    ) -> str:
        """``damos_before_apply``: a line for each region that a scheme is tried on; ``nr_regions`` are the target's."""
        what = f"ctx_idx=0 scheme_idx={scheme} target_idx={target} nr_regions={nr_regions}"
        return _lines(self._head(BEFORE_APPLY, time_ns) + what, start, end, nr_accesses, age)

    def tuned(self, time_ns: int, sample_us: int) -> str:
        """``damon_monitor_intervals_tune``: the sampling interval was changed."""
        return f"{self._head(TUNED, time_ns)}sample_us={sample_us}\n"

    def esz(self, time_ns: int, scheme: int, esz: int | None) -> str:
        """``damos_esz``: the effective quota of a window in bytes; None is no limit."""
        return f"{self._head(ESZ, time_ns)}ctx_idx=0 scheme_idx={scheme} esz={_NO_LIMIT if esz is None else esz}\n"

    def stat(self, time_ns: int, scheme: int, stats: SchemeStats) -> str:
        """``damos_stat_after_apply_interval``; the kernel calls sz_applied "sz_tried", too (7.0), and so do we."""
        values = stats.by_name()
        told = " ".join(f"{row.event}={values[row.name]}" for row in OF_EVENT)
        return f"{self._head(STAT, time_ns)}ctx_idx=0 scheme_idx={scheme} {told}\n"


def _lines(head: str, *columns: NDArray[Any], form: str = " %d-%d: %d %d\n") -> str:
    """One line per region, formatted all at once; each column has a number per region, or several rows of them."""
    table = np.vstack([np.asarray(column).astype(np.uint64) for column in columns])
    text: str = (head.replace("%", "%%") + form) * table.shape[1] % tuple(table.T.ravel().tolist())
    return text


class Reader(Protocol):
    """What is needed of a record, or of several that are read as one."""

    def snapshots(self, target: int | None = None) -> Iterator[Snapshot]:
        """All snapshots in the order of time."""
        ...

    def table(self, name: str) -> Iterator[pa.Table]:
        """A side table, piece by piece."""
        ...

    def table_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """A side table, row by row."""
        ...


def of_record(reader: Reader, events: Iterable[str] = (AGGREGATED,), writer: Writer | None = None) -> Iterator[str]:
    """The text of a record's events in the order of time; nothing but a few snapshots is kept in memory.

    A record holds of schemes what was noted once a second: their statistics and quotas then, and the regions of the
    last pass before that.
    """
    writer = writer if writer is not None else Writer()
    wanted = set(events)
    sources: list[Iterator[tuple[int, int, Any]]] = [
        ((snapshot.end_ns, 0, snapshot) for snapshot in map(SameWindow().of, reader.snapshots()))
    ]
    if wanted & {ESZ, STAT}:
        sources.append((row["time_ns"], 2, row) for row in reader.table_rows("schemes"))
    if BEFORE_APPLY in wanted:
        sources.append((_time_of(part), 1, part) for part in _passes(reader))
    if PROBED in wanted:
        probed = (part for piece in reader.table(hits.TABLE) for part in hits.probed_regions(piece))
        sources.append((part.time_ns, 3, part) for part in probed)
    state = _State(writer, wanted)
    for time_ns, kind, what in heapq.merge(*sources, key=lambda event: event[:2]):
        text = (state.snapshot, state.tried, state.scheme, state.probed)[kind](time_ns, what)
        if text:
            yield text


class _State:
    """What the next line depends on."""

    def __init__(self, writer: Writer, wanted: set[str]) -> None:
        self._writer = writer
        self._wanted = wanted
        self._sample_us: int | None = None
        self._nr_regions: dict[int, int] = {}
        self._esz: dict[int, int | None] = {}

    def snapshot(self, time_ns: int, snapshot: Snapshot) -> str:
        text = ""
        changed = self._sample_us not in (None, snapshot.sample_us)
        self._sample_us = snapshot.sample_us
        if changed and TUNED in self._wanted:
            text = self._writer.tuned(snapshot.start_ns, snapshot.sample_us)
        self._nr_regions[snapshot.target] = len(snapshot.start)
        return text + self._writer.aggregated(snapshot) if AGGREGATED in self._wanted else text

    def tried(self, time_ns: int, part: pa.Table) -> str:
        scheme, target = part["scheme"][0].as_py(), part["target"][0].as_py()
        columns = (part[name].to_numpy() for name in ("start", "end", "nr_accesses", "age"))
        return self._writer.before_apply(time_ns, scheme, target, self._nr_regions.get(target, part.num_rows), *columns)

    def scheme(self, time_ns: int, row: Mapping[str, Any]) -> str:
        number, text = row["scheme"], ""
        if ESZ in self._wanted and self._esz.get(number) != row["effective_bytes"]:
            self._esz[number] = row["effective_bytes"]
            text = self._writer.esz(time_ns, number, row["effective_bytes"])
        if STAT in self._wanted:
            stats = SchemeStats.of(row)
            text += self._writer.stat(time_ns, number, stats)
        return text

    def probed(self, time_ns: int, part: hits.ProbedRegions) -> str:
        columns = part.start, part.end, part.nr_accesses, part.age, part.hits
        return self._writer.probed(time_ns, part.target, *columns)


def _passes(reader: Reader) -> Iterator[pa.Table]:
    """The side table ``tried_regions``, one part per target of a pass."""
    for piece in reader.table("tried_regions"):
        keys = np.stack([piece[name].to_numpy() for name in ("time_ns", "scheme", "target")])
        if not keys.shape[1]:
            continue
        firsts = [0, *(np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1).tolist(), keys.shape[1]]
        for first, behind in pairwise(firsts):
            yield piece.slice(first, behind - first)


def _time_of(part: pa.Table) -> int:
    return int(part["time_ns"][0].as_py())
