"""Records of damo: JSON, mostly packed by zlib; a list of objects that each hold the snapshots of one target."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.core.columns import Array
from pydamon.errors import RequestError
from pydamon.plain import printable
from pydamon.records.batch import RegionBatch
from pydamon.records.decode import Rows, join
from pydamon.records.formats.damo_probes import hits_of, probed
from pydamon.records.formats.damo_schemes import scheme_row
from pydamon.records.formats.damo_values import (
    DamoRegion,
    SnapshotObject,
    accesses,
    ages,
    has_samples,
    number,
    numbers,
    time_ns,
    time_us,
)
from pydamon.records.formats.foreign import (
    Foreign,
    Hints,
    ReadAgain,
    ReadIntervals,
    choose_intervals,
    most_accesses,
)
from pydamon.records.formats.input_file import InputFile
from pydamon.records.formats.json_pieces import Head, Item, Tail, pieces
from pydamon.records.formats.trace_intervals import infer_aggr_us
from pydamon.records.hits import TABLE, HitsBeside, hits_table
from pydamon.records.index import END_NS
from pydamon.records.reader import RecordReader
from pydamon.records.schema import describe
from pydamon.records.writer import RecordWriter
from pydamon.spec.probes import Probe
from pydamon.spec.units import U64_MAX, parse_rounded_size

# Objects with snapshots; each is a target, and has a file of its own while they are put in order.
MAX_ENTRIES = 256
_PROBE_SNAPSHOTS = 100
_PIECE_ROWS = 1 << 14
_U32_MAX = (1 << 32) - 1
_MOST_US = 100 * 366 * 86400 * 10**6
_OURS = ("kdamond_idx", "context_idx", "scheme_idx", "target_id", "intervals")
_VERSIONS = ("damo_record_ver", "damo_reocrd_ver")
_DECODER = msgspec.json.Decoder(SnapshotObject)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What an object says about its snapshots."""

    number: int
    intervals: ReadIntervals | None
    probes: tuple[Probe, ...]
    scheme: tuple[int, str] | None  # its number among all, and its action, where it was asked for


class DamoRecord(Foreign):
    """The snapshots of a record in the order of time, also where it holds one target after the other."""

    format = "damo"
    optional = ("sz_filter_passed",)

    def __init__(self, source: InputFile, hints: Hints) -> None:
        super().__init__(source, hints)
        self._late: list[dict[str, Any]] | None = None  # what the objects say behind their snapshots, too
        self._several = False
        self._numbers: dict[tuple[str, ...], int] = {}
        self._aggr_us: int | None = None
        self._most = 0
        self._guessed: ReadIntervals | None = None
        self._kdamonds: Any = None  # what damo's newest records say of them before the snapshots
        self._clear()
        self._probe()
        if self._kdamonds is not None:
            self.beside.kdamonds = self._kdamonds

    def _clear(self) -> None:
        self.targets = []
        self._numbers.clear()
        self.probed.clear()
        self.scheme_rows.clear()
        self._newest_ns: dict[int, int] = {}
        self._damaged = self._strange = self._strange_hits = self._strange_stats = 0
        self._cut = ""  # where it ends early, or is damaged
        self._empty = False
        self._more: list[str] = []

    def _probe(self) -> None:
        """Find out whether the intervals are told, and what they are if not."""
        ends: dict[int, list[int]] = {}
        seen = found = 0
        for piece in pieces(self.source.chunks(), self.source.path):
            if isinstance(piece, Head):
                content = _decoded(piece.text)
                self._kdamonds = self._kdamonds or _kdamonds(content)
                self.intervals = self.intervals or self._told_intervals(_current(content))
            if isinstance(piece, Item):
                found += 1
                if self.intervals is not None or found > _PROBE_SNAPSHOTS:
                    break
                if (one := self._decode(piece.text)) is not None:
                    seen += 1
                    ends.setdefault(0, []).extend(t for t in (time_ns(one.end_time),) if t is not None)
                    if seen == 1:
                        ends[0][:0] = [t for t in (time_ns(one.start_time),) if t is not None]
        self._aggr_us = infer_aggr_us(ends)
        if self.intervals is None:
            self.intervals = self._guessed = choose_intervals(self.hints, self._aggr_us, self._most)

    def rows(self) -> Iterator[Rows]:
        """The snapshots. `ReadAgain` where something that comes later in the file changes how it is to be read."""
        self._clear()
        parts = self._merged() if self._several else (rows for _, rows in self._entries())
        held: list[Rows] = []
        yielded = False
        for rows in parts:
            held.append(rows)
            if sum(len(one.start) for one in held) >= _PIECE_ROWS:
                yield join(held)
                held, yielded = [], True
        if held:
            yield join(held)
        elif not yielded:
            why = f": {_count(self._damaged, 'snapshot')} cannot be understood" if self._damaged else ""
            why += f": it ends before the first is whole ({self._cut})" if self._cut else ""
            if self._empty and not why:
                raise RequestError(
                    "is a record of damo without a snapshot: nothing was recorded", where=self.source.path
                )
            raise RequestError(f"is JSON, but not a record of damo with snapshots{why}", where=self.source.path)

    def _entries(self) -> Iterator[tuple[_Entry, Rows]]:
        """Each snapshot with the object that it is in, in the order of the file."""
        entry: _Entry | None = None
        with_snapshots: set[int] = set()
        place = -1
        for piece in pieces(self.source.chunks(), self.source.path):
            if isinstance(piece, Item):
                assert entry is not None
                rows = self._rows(piece.text, entry)
                if rows is None:
                    continue
                with_snapshots.add(place)
                if len(with_snapshots) > 1 and not self._several:
                    self._several = True
                    raise ReadAgain
                yield entry, rows
                continue
            content = _decoded(piece.text)
            if place >= 0 and self._late is None and {*_OURS} & {*_rest(content)}:
                self._late = self._told()
                raise ReadAgain
            _check_version(content, self.source.path)
            self._empty = isinstance(piece, Tail) and content == []
            if isinstance(piece, Tail):
                self._cut = self.source.cut_short
                if not piece.complete and not self._cut:
                    self._cut = f"cut off after {self.source.size:,} bytes"
                break
            place += 1
            about = _current(content)
            if self._late is not None and place < len(self._late):
                about = about | self._late[place]
            entry = self._entry(about)
        guessed = self._guessed
        if guessed is not None and self.hints.sample_us is None and self._most > guessed.aggr_us // guessed.sample_us:
            self.intervals = self._guessed = choose_intervals(self.hints, self._aggr_us, self._most)
            if self._guessed != guessed:
                raise ReadAgain

    def _told(self) -> list[dict[str, Any]]:
        """What each object says, before and behind its snapshots."""
        found: list[dict[str, Any]] = []
        for piece in pieces(self.source.chunks(), self.source.path):
            if isinstance(piece, Item):
                continue
            content = _decoded(piece.text)
            if found:
                found[-1] |= {key: value for key, value in _rest(content).items() if key in _OURS}
            if isinstance(piece, Head):
                found.append({key: value for key, value in _current(content).items() if key in _OURS})
            if len(found) > 1 << 16:
                raise RequestError("has too many targets", where=self.source.path)
        return found

    def _entry(self, about: dict[str, Any]) -> _Entry:
        key = tuple(str(about.get(name))[:40] for name in _OURS[:4])
        if key not in self._numbers:
            if len(self._numbers) >= MAX_ENTRIES:
                raise RequestError(f"has more than {MAX_ENTRIES} targets", where=self.source.path)
            self._numbers[key] = len(self._numbers)
            kdamond, context, scheme, target_id = key
            words = (("kdamond", kdamond), ("context", context), ("scheme", scheme))
            more = [f"{word}={value}" for word, value in words if value not in ("None", "0")]
            self.targets.append(self.named(len(self.targets), target_id, *more, place=_places(about)))
        places, scheme_idx = _places(about), about.get("scheme_idx")
        asked_for = self.beside.scheme(*places, scheme_idx) if isinstance(scheme_idx, int) else None
        return _Entry(self._numbers[key], self._told_intervals(about), self.beside.probes(*places), asked_for)

    def _told_intervals(self, about: dict[str, Any]) -> ReadIntervals | None:
        """What the object says of its intervals, or its context."""
        if (told := _intervals(about)) is not None:
            return told
        try:
            kdamond, context = _places(about)
            found = self._kdamonds[kdamond]["contexts"][context]
        except (TypeError, ValueError, LookupError, AttributeError):
            return None
        return _intervals(found) if isinstance(found, dict) else None

    def _decode(self, text: bytes) -> SnapshotObject | None:
        try:
            found = _DECODER.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._damaged += 1
            return None
        if has_samples(found.regions):
            counts, _ = numbers([region.nr_accesses.samples for region in found.regions])  # type: ignore[union-attr]
            self._most = max(self._most, most_accesses(counts.clip(max=_U32_MAX).astype(np.uint32)))
        return found

    def _rows(self, text: bytes, entry: _Entry) -> Rows | None:
        """One snapshot; None if it is none, or has no region."""
        found = self._decode(text)
        if found is None:
            return None
        start_ns, end_ns = time_ns(found.start_time), time_ns(found.end_time)
        intervals = entry.intervals or self._guessed or self.intervals
        if start_ns is None or end_ns is None or intervals is None:
            self._damaged += 1
            return None
        sample_us, aggr_us, told_us = _tuned(found, intervals)
        regions = found.regions
        start, good = numbers([region.start for region in regions])
        end, also = numbers([region.end for region in regions])
        good &= also
        nr_accesses, also = accesses(regions, sample_us, told_us)
        if told_us != aggr_us:
            nr_accesses = np.rint(nr_accesses * (aggr_us / told_us)).astype(np.uint64)
        good &= also & (nr_accesses <= _U32_MAX)
        age = ages(regions, aggr_us).clip(max=_U32_MAX)
        self._strange += len(regions) - int(good.sum())
        count = int(good.sum())
        if not count:
            return None
        index = np.array([[count, entry.number, start_ns, end_ns, sample_us, aggr_us]], np.int64)
        columns: dict[str, Array] = {
            "start": start[good],
            "end": end[good],
            "nr_accesses": nr_accesses[good].astype(np.uint32),
            "age": age[good].astype(np.uint32),
        }
        passed = _passed([region.sz_filter_passed for region in regions])
        rows = Rows(index, columns if passed is None else columns | {"sz_filter_passed": passed[good]})
        self._note_hits(regions, rows, good, aggr_us / told_us, entry)
        if found.damos_stats is not None and entry.scheme is not None:
            try:
                self.scheme_rows.append(scheme_row(end_ns, entry.scheme, found.damos_stats))
            except ValueError:
                self._strange_stats += 1
        return rows

    def _note_hits(
        self, regions: list[DamoRegion], rows: Rows, good: NDArray[np.bool_], scale: float, entry: _Entry
    ) -> None:
        """What probes have hit in a snapshot, unless it is out of order in time."""
        end_ns = int(rows.index[0, END_NS])
        if end_ns < self._newest_ns.get(entry.number, -1):
            return
        self._newest_ns[entry.number] = end_ns
        try:
            hits = hits_of(regions)
            if hits is not None:
                scaled = np.rint(hits[:, good] * scale).astype(np.uint64) if scale != 1 else hits[:, good]
                self.probed.append(probed(rows, scaled, entry.probes))
        except ValueError:
            self._strange_hits += 1

    def _merged(self) -> Iterator[Rows]:
        """All snapshots in the order of time: each object's are put into a file of its own first."""
        with ExitStack() as stack:
            files: dict[int, Any] = {}
            writers: dict[int, RecordWriter] = {}
            for entry, rows in self._entries():
                if entry.number not in writers:
                    file = stack.enter_context(tempfile.TemporaryFile(prefix="pydamon-"))
                    name = f"/proc/self/fd/{file.fileno()}"
                    writer = RecordWriter(
                        name, metadata=describe(self.info()), optional=self.optional, compression_level=1
                    )
                    files[entry.number], writers[entry.number] = name, stack.enter_context(writer)
                writers[entry.number].add_batch(rows.batch())
                while self.probed:
                    part = self.probed.popleft()
                    writers[entry.number].add_table(TABLE, hits_table([part]), time_ns=part.time_ns)
            for writer in writers.values():
                writer.close()
            readers = [stack.enter_context(RecordReader(name)) for name in files.values()]
            beside = dict(zip(files, map(HitsBeside, readers), strict=True))
            for one in merge(*(reader.snapshots() for reader in readers), key=lambda s: s.end_ns):
                if (found := beside[one.target].part(one)) is not None:
                    self.probed.append(found)
                yield Rows.of(RegionBatch.of([one]))
            lines = [line.partition(": ")[2] for reader in readers for line in reader.warnings()]
            self._more = list(dict.fromkeys(lines))

    def left_out(self) -> list[str]:
        """Damaged snapshots and regions, and a file that ends early."""
        found = list(self._more)
        if self._damaged:
            found.append(f"{_count(self._damaged, 'snapshot')} that cannot be understood left out")
        if self._strange:
            found.append(f"{_count(self._strange, 'region')} without usable numbers left out")
        if self._strange_hits:
            found.append(f"hits of probes in {_count(self._strange_hits, 'snapshot')} left out: they cannot be so")
        if self._strange_stats:
            found.append(
                f"statistics of schemes in {_count(self._strange_stats, 'snapshot')} left out: not all are there"
            )
        if self._cut:
            found.append(f"ends early ({self._cut}); this is what came before")
        return found


def _tuned(found: SnapshotObject, intervals: ReadIntervals) -> tuple[int, int, int]:
    """(sampling interval, aggregation interval, the aggregation interval that the counts are of) in microseconds.

    A snapshot that says its own sampling interval was tuned: the number of samples in an aggregation stays that of the
    record, as in the kernel. One that says its own aggregation interval was written by `damo_export`.
    """
    sample_us = time_us(found.sample_interval_us)
    if not sample_us:
        return intervals.sample_us, intervals.aggr_us, intervals.aggr_us
    told_us = min(max(sample_us * intervals.aggr_us // intervals.sample_us, sample_us), _MOST_US)
    return sample_us, time_us(found.aggr_interval_us) or told_us, told_us


def _passed(told: list[Any]) -> NDArray[np.uint64] | None:
    """What passed filters, in bytes; None if nothing did: damo writes 0 where there are none, too."""
    if not any(value not in (None, 0, "0", "0 B") for value in told):
        return None
    sizes, good = numbers([0 if value is None else value for value in told], parse_rounded_size)
    return np.where(good, sizes, np.uint64(U64_MAX))  # not known


def _decoded(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _check_version(content: Any, path: str) -> None:
    """Raise RequestError for a container of a version that is not known; damo has misspelt its mark."""
    told = [content[name] for name in _VERSIONS if name in content] if isinstance(content, dict) else []
    for version in told:
        if number(version) not in (0, 1) if isinstance(version, int | float | str) else True:
            raise RequestError(
                f"is a record of damo in a container of version {printable(str(version)[:20])}; "
                "known are version 1, and the list without a container",
                where=path,
            )


def _current(content: Any) -> dict[str, Any]:
    """The object whose list of snapshots has just begun: the last one in all that is open."""
    while True:
        if isinstance(content, list) and content:
            content = content[-1]
        elif isinstance(content, dict) and "snapshots" not in content and content:
            content = list(content.values())[-1]
        else:
            return content if isinstance(content, dict) else {}


def _places(about: dict[str, Any]) -> tuple[int, int]:
    """The numbers of the kdamond and the context that an object is of; one that nobody has for what is no number."""
    told = [about.get(name) for name in ("kdamond_idx", "context_idx")]
    found = [0 if v is None else number(v) if isinstance(v, int | float | str) else None for v in told]
    kdamond, context = (U64_MAX if value is None else value for value in found)
    return kdamond, context


def _kdamonds(content: Any) -> Any:
    """The list of kdamonds that an object around the snapshots has; None if there is none."""
    while isinstance(content, (list, dict)) and content:
        if isinstance(content, dict) and isinstance(content.get("kdamonds"), list):
            return content["kdamonds"]
        content = content[-1] if isinstance(content, list) else list(content.values())[-1]
    return None


def _rest(content: Any) -> dict[str, Any]:
    """What the object whose list has ended says behind it: the first one in all that was open."""
    while True:
        if isinstance(content, list) and content:
            content = content[0]
        elif isinstance(content, dict) and isinstance(content.get(""), (list, dict)):
            content = content[""]
        else:
            return content if isinstance(content, dict) else {}


def _intervals(about: dict[str, Any]) -> ReadIntervals | None:
    told = about.get("intervals")
    if not isinstance(told, dict):
        return None
    values = [told.get(name) for name in ("sample_us", "aggr_us")]
    sample_us, aggr_us = (time_us(v) if isinstance(v, (int, float, str)) else None for v in values)
    return ReadIntervals(sample_us, aggr_us) if sample_us and aggr_us else None


def _count(amount: int, what: str) -> str:
    return f"{amount} {what}" + ("" if amount == 1 else "s")
