"""The binary records that damo, and the first DAMON, wrote until 2023: versions 1 and 2.

They begin with ``damon_recfmt_ver`` and the version (u32). Each snapshot is its time (seconds, nanoseconds: u64 each)
and number of targets (u32); each target its id (u64), number of regions (u32), and regions (start, end: u64,
accesses: u32), all little-endian and without gaps. In version 1 the id is a pid (i32). There are no ages and no
intervals in it. What was written before version 1 has no mark, and nothing to know it by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from pydamon.errors import RequestError
from pydamon.records.decode import Rows
from pydamon.records.formats.damo_values import BINARY_MAGIC as MAGIC
from pydamon.records.formats.foreign import Foreign, Hints, choose_intervals, most_accesses
from pydamon.records.formats.input_file import InputFile
from pydamon.records.formats.trace_intervals import infer_aggr_us
from pydamon.records.formats.trace_lines import MAX_REGIONS, NO_LINES, NO_REGION, Lines
from pydamon.records.formats.trace_snapshots import MAX_TARGETS, SnapshotBuilder

_SNAPSHOT = struct.Struct("<QQI")
_TARGETS = {1: struct.Struct("<iI"), 2: struct.Struct("<QI")}  # by version
_REGION = np.dtype([("start", "<u8"), ("end", "<u8"), ("nr_accesses", "<u4")])
_U64 = (1 << 64) - 1
_MOST_SECONDS = 100 * 366 * 86400
_PIECE_ROWS = 1 << 14


class DamoBinary(Foreign):
    """The snapshots of such a record. The intervals are inferred, see `choose_intervals`."""

    format = "damo binary"

    def __init__(self, source: InputFile, hints: Hints) -> None:
        super().__init__(source, hints)
        told = source.head[len(MAGIC) : len(MAGIC) + 4]
        if len(told) < 4:
            raise RequestError(f"is a binary record of damo, cut off after {len(source.head)} bytes", where=source.path)
        version = int.from_bytes(told, "little")
        if version not in _TARGETS:
            known = " and ".join(map(str, _TARGETS))
            raise RequestError(f"is a binary record of damo, version {version}; known are {known}", where=source.path)
        self._target = _TARGETS[version]
        self._cut: int | None = None  # the byte from which on it is damaged, or at which it ends early
        ends: dict[int, list[int]] = {}
        most = 0
        for lines in self._targets():
            ends.setdefault(int(lines.target[0]), []).append(int(lines.time_ns[0]))
            most = max(most, most_accesses(lines.nr_accesses[lines.nr_accesses < NO_REGION]))
        self.intervals = choose_intervals(hints, infer_aggr_us(ends), most)

    def rows(self) -> Iterator[Rows]:
        """The snapshots. Raises RequestError if there is none."""
        assert self.intervals is not None
        builder = SnapshotBuilder(self.intervals.sample_us, self.intervals.aggr_us, self.source.path)
        self.targets = []
        held: list[Lines] = []
        yielded = False
        for lines in (*self._targets(), None):
            if lines is not None:
                held.append(lines)
                if sum(map(len, held)) < _PIECE_ROWS:
                    continue
            rows = builder.add(Lines.join(held) if held else NO_LINES, last=lines is None)
            held = []
            for number in range(len(self.targets), len(builder.targets)):
                self.targets.append(self.named(number, builder.targets[number]))
            if rows is not None:
                yielded = True
                yield rows
        if not yielded:
            ended = "" if self._cut is None else f": it ends early or is damaged ({self._where()})"
            raise RequestError(f"is a binary record of damo without a whole snapshot{ended}", where=self.source.path)

    def _targets(self) -> Iterator[Lines]:
        """The regions of each target of each snapshot, as far as the file goes."""
        held = _Held(self.source.chunks())
        held.take(len(MAGIC) + 4)
        self._cut = held.taken
        while head := held.take(_SNAPSHOT.size):
            if len(head) < _SNAPSHOT.size:
                return
            second, nanosecond, nr_targets = _SNAPSHOT.unpack(head)
            if second > _MOST_SECONDS or nanosecond >= 10**9 or nr_targets > MAX_TARGETS:
                return
            for _ in range(nr_targets):
                head = held.take(self._target.size)
                if len(head) < self._target.size:
                    return
                target, nr_regions = self._target.unpack(head)
                if nr_regions > MAX_REGIONS:
                    return
                data = held.take(nr_regions * _REGION.itemsize)
                if len(data) < nr_regions * _REGION.itemsize:
                    return
                if nr_regions:
                    yield _lines(second * 10**9 + nanosecond, target & _U64, np.frombuffer(data, _REGION))
            self._cut = held.taken
        if not self.source.cut_short:
            self._cut = None

    def _where(self) -> str:
        return self.source.cut_short or f"in the snapshot that begins at byte {self._cut:,}"

    def left_out(self) -> list[str]:
        """A file that ends early, or is damaged from some place on."""
        return [] if self._cut is None else [f"ends early or is damaged ({self._where()}); this is what came before"]


def _lines(time_ns: int, target: int, regions: np.ndarray[tuple[int], np.dtype[np.void]]) -> Lines:
    count = len(regions)
    return Lines(
        np.full(count, time_ns, np.int64),
        np.full(count, target, np.uint64),
        np.full(count, count, np.int64),
        regions["start"].copy(),
        regions["end"].copy(),
        regions["nr_accesses"].copy(),
        np.zeros(count, np.uint32),
    )


class _Held:
    """Bytes that come in chunks, taken in other lengths."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = b""
        self._at = 0
        self.taken = 0

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes, or what is left of them."""
        parts = []
        while length:
            if self._at == len(self._data):
                self._data, self._at = next(self._chunks, b""), 0
                if not self._data:
                    break
            part = self._data[self._at : self._at + length]
            self._at += len(part)
            length -= len(part)
            self.taken += len(part)
            parts.append(part)
        return b"".join(parts)
