"""The text of ``perf script`` and ``trace-cmd report`` with ``damon_aggregated`` events, as a foreign format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydamon.errors import RequestError
from pydamon.records.decode import Rows
from pydamon.records.formats.foreign import (
    Foreign,
    Hints,
    ReadAgain,
    ReadIntervals,
    choose_intervals,
    most_accesses,
)
from pydamon.records.formats.input_file import InputFile
from pydamon.records.formats.trace_intervals import Tuning, infer_tuning
from pydamon.records.formats.trace_lines import AGGREGATED, NO_LINES, NO_REGION, PERF_TRACE, PROBED, LineParser, Lines
from pydamon.records.formats.trace_snapshots import SnapshotBuilder

# What is looked at before the first pass, to learn the intervals.
_PROBE_BYTES = 1 << 22
_MOST_PROBE_BYTES = 1 << 26
_WINDOWS = 8
_WINDOW_BYTES = 1 << 18

# What else DAMON traces, and what it is: none of it is what was monitored.
_OTHER_EVENTS = {
    b"damos_before_apply:": "what schemes were tried on",
    b"damos_esz:": "the effective quotas of schemes",
    b"damos_stat_after_apply_interval:": "statistics of schemes",
    b"damon_monitor_intervals_tune:": "how intervals were tuned",
}


class TraceText(Foreign):
    """Region lines of a trace. The intervals are not in the text: see `choose_intervals`."""

    format = "trace text"

    def __init__(self, source: InputFile, hints: Hints) -> None:
        super().__init__(source, hints)
        if source.tool is not None:
            self.format = {"perf": "perf.data", "trace-cmd": "trace.dat"}[source.tool[0]]
        head = source.head
        self._event = PROBED if PROBED + b":" in head and AGGREGATED + b":" not in head else AGGREGATED
        self._lines = LineParser(self._event)
        self._builder: SnapshotBuilder | None = None
        self._aggr_us: int | None = None
        self._tuning: Tuning | None = None
        self._most = 0
        self._probe()

    def _probe(self) -> None:
        """Infer the intervals from the beginning, and from a few more places if the file can be read anywhere."""
        parser = LineParser(self._event)
        builder = SnapshotBuilder(1, 1, self.source.path)
        ends: dict[int, list[int]] = {}
        seen = 0
        blocks = self.source.blocks()
        for block in blocks:
            seen += len(block)
            lines = parser.parse(block)
            self._note_most(lines)
            rows = builder.add(lines, last=False)
            if rows is not None:
                for target, end_ns in rows.index[:, [1, 3]].tolist():
                    ends.setdefault(target, []).append(end_ns)
            enough = any(len(of_target) > 2 for of_target in ends.values())
            if seen >= _MOST_PROBE_BYTES or (seen >= _PROBE_BYTES and (enough or self.hints.aggr_us is not None)):
                break
        else:
            if (rows := builder.add(NO_LINES, last=True)) is not None:
                for target, end_ns in rows.index[:, [1, 3]].tolist():
                    ends.setdefault(target, []).append(end_ns)
            for number, end_ns in builder.end_marks.items():
                ends.setdefault(number, []).append(end_ns)
        blocks.close()
        self._tuning, self._aggr_us = infer_tuning(list(parser.tuned), ends)
        hints = self.hints
        if parser.tuned and hints.sample_us and hints.aggr_us:
            self._tuning = Tuning(self._lines.tuned, max(hints.aggr_us // hints.sample_us, 1))
        if self.source.plain and self.source.size > 2 * max(_PROBE_BYTES, _WINDOW_BYTES):
            step = (self.source.size - _WINDOW_BYTES) // _WINDOWS
            for number in range(1, _WINDOWS + 1):
                data = self.source.read_at(number * step, _WINDOW_BYTES)
                begin, end = data.find(b"\n") + 1, data.rfind(b"\n") + 1
                if begin < end:
                    self._note_most(parser.parse(data[begin:end]))
        self.intervals = self._chosen()

    def _chosen(self) -> ReadIntervals:
        """The intervals before the first change; where they were tuned that shows how many samples there were."""
        if self._tuning is None or self.hints.sample_us is not None:
            return choose_intervals(self.hints, self._aggr_us, self._most)
        found = choose_intervals(self.hints, self._aggr_us, 0)
        sample_us = max(found.aggr_us // self._tuning.samples, 1)
        return replace(found, sample_us=sample_us, sample_from="from how the intervals were tuned")

    def _note_most(self, lines: Lines) -> None:
        counts = lines.nr_accesses
        self._most = max(self._most, most_accesses(counts[counts < NO_REGION]))

    def rows(self) -> Iterator[Rows]:
        """The snapshots; `ReadAgain` at the end if there are more accesses than the intervals allow."""
        intervals = self.intervals
        assert intervals is not None
        self._lines = LineParser(self._event)
        self._builder = builder = SnapshotBuilder(intervals.sample_us, intervals.aggr_us, self.source.path)
        if self._tuning is not None:
            builder.tuning = Tuning(self._lines.tuned, self._tuning.samples)
        self.targets = []
        limit = intervals.aggr_us // intervals.sample_us
        guessed = self.hints.sample_us is None and self._tuning is None
        yielded = False
        for block in self.source.blocks():
            lines = self._lines.parse(block)
            if guessed:
                self._note_most(lines)
            # Once it is known that this was for nothing, only the largest count is of interest.
            if self._most > limit and guessed:
                continue
            rows = builder.add(lines, last=False)
            self._name_targets(builder)
            if rows is not None:
                yielded = True
                yield rows
        if self._most > limit and guessed:
            self.intervals = self._chosen()
            if self.intervals != intervals:
                raise ReadAgain
        rows = builder.add(NO_LINES, last=True)
        self._name_targets(builder)
        if rows is not None:
            yield rows
        elif not yielded:
            ended = f"; it ends early: {self.source.cut_short}" if self.source.cut_short else ""
            raise RequestError(self._nothing() + ended, where=self.source.path)

    def _name_targets(self, builder: SnapshotBuilder) -> None:
        for number in range(len(self.targets), len(builder.targets)):
            self.targets.append(self.named(number, builder.targets[number]))

    def _nothing(self) -> str:
        counts = self._lines.counts
        if counts.regions:
            return f"holds no whole snapshot, only {counts.regions} region lines of incomplete ones"
        if counts.damaged:
            return f"its {self._event.decode()} lines cannot be understood: {counts.example!r}"
        head = self.source.head
        if PERF_TRACE.search(head):
            return "is what perf trace prints; what perf script prints of the same perf.data can be read"
        for event, what in _OTHER_EVENTS.items():
            if event in head:
                return f"holds {event[:-1].decode()} events, {what}; what was monitored is in damon_aggregated events"
        return "holds no damon_aggregated event; record with perf record -e damon:damon_aggregated"

    def left_out(self) -> list[str]:
        """Damaged lines, incomplete snapshots, lines of other events."""
        counts, found = self._lines.counts, []
        if counts.damaged:
            found.append(f"{_several(counts.damaged, 'damaged line')} left out, the first: {counts.example!r}")
        if self._builder is not None and self._builder.incomplete:
            what = _several(self._builder.incomplete, "incomplete snapshot")
            found.append(f"{what} ({_several(self._builder.incomplete_lines, 'line')}) left out")
        if self._builder is not None and self._builder.leaps:
            found.append(f"{_several(self._builder.leaps, 'snapshot')} of a time far from its neighbours left out")
        if counts.others:
            found.append(f"{_several(counts.others, 'line')} of other events passed over")
        if self.source.cut_short:
            found.append(self.source.came_before())
        return found


def _several(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
