"""What every foreign format is read as, and what was assumed while reading it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.learned import learned
from pydamon.records.decode import Rows
from pydamon.records.formats.damo_beside import Beside, text_beside
from pydamon.records.formats.damo_values import Value, time_us
from pydamon.records.formats.input_file import InputFile
from pydamon.records.hits import ProbedRegions
from pydamon.records.schema import FORMAT_VERSION, IMPORTED, RecordInfo, TargetInfo
from pydamon.spec.units import format_duration_ns
from pydamon.version import __version__

DEFAULT_AGGR_US = 100_000
DEFAULT_SAMPLES = 20
# More accesses than this in an interval are no sampling result, but damage.
_MOST_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Hints:
    """What is said about a text that does not say it itself, by ``source``; None where it shall be inferred."""

    sample_us: int | None = None
    aggr_us: int | None = None
    source: str = "as told"


class ReadAgain(Exception):
    """What was learned while reading makes it necessary to begin again; the reader remembers it."""


@dataclass(frozen=True, slots=True)
class ReadIntervals:
    """Sampling and aggregation interval in microseconds, and where each comes from (``told`` if in the file)."""

    sample_us: int
    aggr_us: int
    sample_from: str = "told"
    aggr_from: str = "told"

    def line(self) -> str:
        """What to tell the user; empty if nothing was assumed."""
        parts = [
            f"{what} interval {format_duration_ns(value * 1000)} ({source})"
            for what, value, source in (
                ("aggregation", self.aggr_us, self.aggr_from),
                ("sampling", self.sample_us, self.sample_from),
            )
            if source != "told"
        ]
        return ", ".join(parts)


def hints_beside(path: str) -> Hints:
    """The intervals that damo has put beside its record, in ``PATH.kdamonds``; no hints where there are none."""
    text = text_beside(path)
    if text is None:
        return Hints()
    try:
        told = msgspec.json.decode(text, type=learned(list[_Kdamond]))
        intervals = told[0].contexts[0].intervals
    except (msgspec.MsgspecError, ValueError, RecursionError, IndexError):
        return Hints()
    sample_us, aggr_us = time_us(intervals.sample_us), time_us(intervals.aggr_us)
    if not sample_us or not aggr_us or sample_us > aggr_us:
        return Hints()
    return Hints(sample_us, aggr_us, f"from {path.rpartition('/')[2]}.kdamonds")


class _Told(msgspec.Struct):
    sample_us: Value = None
    aggr_us: Value = None


class _Context(msgspec.Struct):
    intervals: _Told


class _Kdamond(msgspec.Struct):
    contexts: list[_Context]


def choose_intervals(hints: Hints, aggr_us: int | None, most_accesses: int) -> ReadIntervals:
    """Intervals for a text that does not tell them.

    ``aggr_us`` is what the times show, None if they do not; ``most_accesses`` the largest number of accesses seen. As
    long as that allows it there are 20 samples in an aggregation, as with DAMON's defaults. Raises RequestError if the
    user's sampling interval is longer than the aggregation interval.
    """
    if hints.aggr_us is not None:
        aggr, aggr_from = hints.aggr_us, hints.source
    elif aggr_us is not None:
        aggr, aggr_from = aggr_us, "from the time between snapshots"
    elif hints.sample_us is not None:
        aggr, aggr_from = hints.sample_us * max(DEFAULT_SAMPLES, most_accesses), "assumed: one snapshot tells none"
    else:
        aggr, aggr_from = DEFAULT_AGGR_US, "assumed: one snapshot tells none"
    if hints.sample_us is not None:
        if hints.sample_us > aggr:
            raise RequestError(
                f"is longer than the aggregation interval, {format_duration_ns(aggr * 1000)} ({aggr_from})",
                where="sample_us",
            )
        return ReadIntervals(hints.sample_us, aggr, hints.source, aggr_from)
    samples = max(DEFAULT_SAMPLES, most_accesses)
    source = "assumed: 20 in an aggregation" if samples == DEFAULT_SAMPLES else f"from {samples} accesses in a snapshot"
    return ReadIntervals(max(aggr // samples, 1), aggr, source, aggr_from)


def most_accesses(nr_accesses: NDArray[np.uint32]) -> int:
    """The largest number of accesses in an aggregation that is one."""
    if not len(nr_accesses):
        return 0
    most = int(nr_accesses.max())
    if most > _MOST_SAMPLES:
        likely = nr_accesses[nr_accesses <= _MOST_SAMPLES]
        most = int(likely.max(initial=0))
    return most


class Foreign(ABC):
    """A file of another format. ``format`` names it, ``targets`` grows while it is read; so does ``probed``, what
    probes have hit in the snapshots, in the order of time, and ``scheme_rows``, of the side table ``schemes``, from
    which the caller takes. ``beside`` is what damo has put beside the file.

    Use: `rows` once from start to end, or again after it raised `ReadAgain`; `left_out` and `intervals` at the end.
    """

    format = ""
    optional: tuple[str, ...] = ()  # the optional columns that it may have

    def __init__(self, source: InputFile, hints: Hints) -> None:
        self.source = source
        self.hints = hints
        self.targets: list[TargetInfo] = []
        self.probed: deque[ProbedRegions] = deque()
        self.scheme_rows: deque[dict[str, Any]] = deque()
        self.beside = Beside(source.path)
        self.intervals: ReadIntervals | None = None

    @abstractmethod
    def rows(self) -> Iterator[Rows]:
        """The regions, in pieces of whole snapshots. Raises RequestError if the file is not what it seems to be."""

    def left_out(self) -> list[str]:
        """What was passed over, a line for each kind."""
        return []

    def named(self, number: int, target_id: object, *more: str, place: tuple[int, int] = (0, 0)) -> TargetInfo:
        """The description of a target of the context at ``place``: of the process that it is, where that is told."""
        process = self.beside.process(*place, target_id)
        if process is None:
            return target_named(number, target_id, *more)
        name = process.name or target_named(number, target_id).command or ""
        return TargetInfo(number, process.pid, " ".join([name, *more]), process.start_ticks)

    def clock(self) -> tuple[str, int | None]:
        """Which clock the times are of, and its offset to the wall clock, as in a record's description."""
        return "monotonic", None

    def info(self) -> RecordInfo:
        """The description for the record, as far as it is known before `rows`."""
        name = "standard input" if self.source.path == "-" else self.source.path.rpartition("/")[2]
        imported: dict[str, Any] = {"format": self.format, "file": name}
        if self.source.packing is not None and self.format != "damo":
            imported["packing"] = self.source.packing
        reason = f"imported from {name} ({self.format})"
        if self.intervals is not None and (line := self.intervals.line()):
            imported["intervals"] = line
            reason += f"; {line}"
        clock, wall_offset_ns = self.clock()
        ops, spec = self.beside.ops(), {IMPORTED: imported} | (self.beside.spec or {})
        return RecordInfo(FORMAT_VERSION, __version__, clock, wall_offset_ns, ops, None, reason, (), spec, {})


def target_named(number: int, target_id: object, *more: str) -> TargetInfo:
    """The description of a target of which only an id is known, or not even that: physical memory has none."""
    name = f"target {number}" if target_id in (None, "None", "") else f"target_id={target_id}"
    return TargetInfo(number, command=" ".join([name, *more]))
