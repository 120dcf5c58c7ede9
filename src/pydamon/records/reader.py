"""Reading records: in batches, in memory that does not grow with the record, trusting nothing that is in the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from pydamon.core.snapshot import Snapshot
from pydamon.errors import RequestError
from pydamon.linux.process import Mapping
from pydamon.records.ahead import Ahead
from pydamon.records.allowance import Allowance, TooMuch
from pydamon.records.batch import RegionBatch
from pydamon.records.decode import Damage, Decoder, Grouper, Rows
from pydamon.records.framing import (
    BATCH,
    SCHEMA,
    BadMessage,
    Frame,
    check_sum,
    custom_metadata,
    frame_at,
)
from pydamon.records.schema import (
    METADATA_KEY,
    REGION_FIELDS,
    RecordInfo,
    TargetInfo,
    decode_metadata,
    is_sound,
    optional_in,
    region_fields,
)
from pydamon.records.seeking import Seeker
from pydamon.records.shown import Shown
from pydamon.records.side_tables import TABLES, conform, each_row, weight
from pydamon.records.tables import (
    DATA_KEY,
    MAPS,
    NAME_KEY,
    TARGET_KEY,
    TIME_KEY,
    decode_table,
    mappings_of,
)
from pydamon.records.walk import walk

# Messages are decoded together up to about these sizes.
_CHUNK_ROWS = 1 << 17
_CHUNK_BYTES = 1 << 24

# A record has at most so many targets: some, and one for each so many bytes.
_FEW_TARGETS, _TARGET_BYTES = 1024, 16


@dataclass(frozen=True, slots=True)
class TableEntry:
    """Where a piece of a side table is, and what it is about."""

    name: str
    time_ns: int | None
    target: int | None
    frame: Frame


class RecordReader(Shown):
    """A record file open for reading. Use as a context manager, or call `close`.

    ``optional`` names the optional columns that it has (of some snapshots they may be absent). ``truncated`` says that
    the record has no end mark (its recording was killed, or is still going on); ``left_out_bytes`` how many bytes at
    its end could not be read; ``has_checksums`` whether its messages have them, ``sound_description`` whether that of
    the description is right. ``rows`` is the number of region rows that its messages claim. Raises RequestError if the
    file is not a record.

    What a pass over the data finds damaged is left out and counted: see `warnings`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._fd = _open(self.path)
        try:
            self._size = os.fstat(self._fd).st_size
            schema_frame = self._first_frame()
            self._schema_bytes = self._read(0, schema_frame.end)
            schema = self._schema(self._schema_bytes)
            self._info: RecordInfo = decode_metadata(schema.metadata[METADATA_KEY], self.path)
            self._info_is_complete = False
            self.optional = optional_in(schema, self._info.version)
            self._check_types(schema, self.optional)
            # Each takes a row, and a line that describes it.
            self._most_targets = _FEW_TARGETS + self._size // _TARGET_BYTES
            self._batches: list[Frame] = []
            self._tagged: list[Frame] = []
            self._entries: list[TableEntry] | None = None
            self._last: dict[int, Snapshot] | None = None
            self._frame_times: NDArray[np.int64] | None = None
            self._damage = Damage()
            self.sound_description = is_sound(schema)
            self._bad_tables: set[int] = set()
            self._too_much: set[int] = set()
            self._allowance = Allowance(self._size)
            self._strange = 0  # messages of kinds that a record does not have
            self.truncated, self.left_out_bytes = self._walk(schema_frame.end)
            # Where one of the messages has a checksum, all have: other programs, and version 1, write none.
            self.has_checksums = self._info.version > 1 and any(f.tagged for f in (*self._batches, *self._tagged))
            self._decoder = Decoder(schema, self._schema_bytes, self.optional, self.has_checksums)
            self._seeker = Seeker(self.path, self._batches, self._decoder, self._read, self._most_targets)
            self.rows = sum(frame.rows for frame in self._batches)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def info(self) -> RecordInfo:
        """The description of the recording, with the targets that joined while it was made (side table ``targets``)."""
        if not self._info_is_complete:
            self._info_is_complete = True
            targets = {t.target: t for t in self._info.targets}
            for entry, piece in self.pieces("targets"):
                try:
                    targets |= {t.target: t for t in _targets_of(piece)}
                except BadMessage:
                    self._bad_tables.add(entry.frame.offset)
            self._info = replace(self._info, targets=tuple(targets.values()))
        return self._info

    def batches(
        self,
        *,
        columns: Collection[str] | None = None,
        target: int | None = None,
        sample_rows: int | None = None,
        between: tuple[int, int] | None = None,
    ) -> Iterator[RegionBatch]:
        """The snapshots in the order of the file, many at a time; a snapshot is never divided.

        ``columns``: which of ``age`` and the optional columns are wanted; None is all. To decode the others is saved
        (ages read as 0); what the record, or a part of it, does not have is absent. ``target`` leaves only that
        target's snapshots. ``sample_rows``: look at about so many rows only, taken evenly, the first and last part
        included. ``between`` (start and end in ns) yields the snapshots that reach into that time, and reads no more of
        the file than it needs. Batches without snapshots are not yielded. Damage is left out and counted (`warnings`);
        raises RequestError if a single snapshot is absurdly large.
        """
        damage = Damage()
        grouper = Grouper(self.path, damage, self._most_targets)
        chosen, step = self._batches, 1
        if between is not None:
            chosen = self._of_time(between)
        if sample_rows is not None and sum(frame.rows for frame in chosen) > sample_rows:
            chosen, step = _spread(chosen, sample_rows)
        _keep_freed_memory()
        for chunk, rows in self._decoded(list(_chunks(chosen)), columns, damage):
            for batch in grouper.add(rows, last=chunk[-1] is chosen[-1]):
                if target is not None:
                    batch = batch.of_target(target)
                if step > 1:
                    batch = _thin(batch, step)
                if between is not None:
                    batch = batch.select((batch.end_ns > between[0]) & (batch.start_ns < between[1]))
                if len(batch):
                    yield batch
        self._damage = max(self._damage, damage, key=lambda d: d.total)

    def frame_times(self, known: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The earliest start and the latest end (ns) of the snapshots in each message of regions: shape (messages, 2).

        Looked for once; of a damaged message, which is left out, (0, -1). ``known`` are those of this file when it was
        shorter.
        """
        if self._frame_times is None:
            known = np.empty((0, 2), np.int64) if known is None else known
            found = [self._decoder.times(self._read, frame) for frame in self._batches[len(known) :]]
            self._frame_times = np.concatenate([known, np.array(found, np.int64).reshape(-1, 2)])
        return self._frame_times

    def _of_time(self, between: tuple[int, int]) -> list[Frame]:
        """Those of the messages that have snapshots of that time, and neighbours, which may have parts of them."""
        times = self.frame_times()
        wanted = (times[:, 1] > between[0]) & (times[:, 0] < between[1])
        wanted = wanted | np.append(wanted[1:], False) | np.append(False, wanted[:-1])
        return [self._batches[place] for place in np.flatnonzero(wanted).tolist()]

    def snapshots(self, target: int | None = None) -> Iterator[Snapshot]:
        """The snapshots one by one, in the order of the file."""
        for batch in self.batches(target=target):
            yield from batch.snapshots()

    def time_range(self) -> tuple[int, int] | None:
        """(start of the first snapshot, end of the last one) in ns, without reading the rest; None if there is none."""
        found = []
        for frames_in_order in (self._batches, self._batches[::-1]):
            for frame in frames_in_order:
                rows = self._decoder.decode(self._read, [frame], (), Damage())
                batches = Grouper(self.path, Damage(), self._most_targets).add(rows, last=True)
                if batches:
                    found.append(batches[0])
                    break
        if not found:
            return None
        return int(found[0].start_ns.min()), int(found[1].end_ns.max())

    def last_snapshots(self) -> dict[int, Snapshot]:
        """The last snapshot of each target that the description names, by target number; empty if there is none.

        Targets that it does not name are found only if they are near the end. Reads from the end, so that the time it
        takes does not grow with the record unless a target stopped early. They are looked for once.
        """
        if self._last is None:
            damage = Damage()
            self._last = self._seeker.last({t.target for t in self.info.targets}, damage)
            self._damage = max(self._damage, damage, key=lambda d: d.total)
        return dict(self._last)

    def snapshots_around(self, time_ns: int) -> list[Snapshot]:
        """Some snapshots in the order of the file: the last that end by that time are among them, and the next ones.

        The time it takes hardly grows with the record. Damage is left out, and not counted.
        """
        return self._seeker.around(time_ns)

    def tables(self) -> list[TableEntry]:
        """The pieces of side tables, in the order of the file. Damaged ones are left out and counted."""
        if self._entries is None:
            self._entries = []
            for frame in self._tagged:
                try:
                    tags = self._tags(frame)
                    if NAME_KEY in tags:
                        time_ns, target = (int(tags[key]) if key in tags else None for key in (TIME_KEY, TARGET_KEY))
                        self._entries.append(TableEntry(tags[NAME_KEY], time_ns, target, frame))
                except (BadMessage, ValueError):
                    self._bad_tables.add(frame.offset)
        return self._entries

    @property
    def file_bytes(self) -> int:
        """The size of the file when it was opened."""
        return self._size

    def pieces(self, name: str, between: tuple[int, int] | None = None) -> Iterator[tuple[TableEntry, pa.Table]]:
        """The pieces of one side table, in the order of the file, each with what it is about.

        With the columns that it is declared with (`side_tables`); one that is not declared is opaque, and as it is.
        ``between``: only those that were written in that time (ns), or do not say when.
        """
        for entry in self.tables():
            wanted = between is None or entry.time_ns is None or between[0] <= entry.time_ns <= between[1]
            if wanted and entry.name == name and (piece := self._decode_table(entry)) is not None:
                yield entry, piece

    def table(self, name: str) -> Iterator[pa.Table]:
        """The pieces of one side table, in the order of the file."""
        for _, piece in self.pieces(name):
            yield piece

    def table_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of one declared side table, one by one."""
        for piece in self.table(name):
            yield from each_row(piece)

    def mappings_at(self, target: int, time_ns: int) -> list[Mapping]:
        """The target's mappings as last seen by that time (else as first seen after it), in address order."""
        entries = [e for e in self.tables() if e.name == MAPS and e.target == target and e.time_ns is not None]
        entries.sort(key=lambda entry: entry.time_ns or 0)
        before = [e for e in entries if (e.time_ns or 0) <= time_ns]
        after = entries[len(before) :]
        for entry in before[::-1] + after:
            if (piece := self._decode_table(entry)) is not None:
                return mappings_of(piece)
        return []

    def mapping_times(self, target: int) -> list[int]:
        """When the target's mappings were recorded, in ns."""
        return [e.time_ns for e in self.tables() if e.name == MAPS and e.target == target and e.time_ns is not None]

    def warnings(self) -> list[str]:
        """One line for each kind of thing that was left out so far; each names the file."""
        damage = replace(
            self._damage,
            messages=self._damage.messages + self._strange,
            tables=len(self._bad_tables),
            absurd=len(self._too_much),
            description=not self.sound_description,
        )
        found = []
        if self.left_out_bytes:
            found.append(
                f"the last {self.left_out_bytes} bytes are damaged or incomplete and were left out"
                if not self.truncated
                else f"was not closed (interrupted, cut or still being written); "
                f"its last {self.left_out_bytes} bytes were left out"
            )
        elif self.truncated:
            found.append("was not closed (interrupted, or still being written); this is all up to its last flush")
        return [f"{self.path}: {text}" for text in found + damage.lines()]

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise RequestError(f"cannot be read: {error.strerror}", where=self.path) from None

    def _decoded(
        self, chunks: list[list[Frame]], columns: Collection[str] | None, damage: Damage
    ) -> Iterator[tuple[list[Frame], Rows | None]]:
        """Each chunk with its rows. While the caller works on one, the next is decoded on another CPU."""
        if len(chunks) < 3:
            for chunk in chunks:
                yield chunk, self._decoder.decode(self._read, chunk, columns, damage)
            return
        coming = Ahead(self._decoder.decode, self._read, chunks[0], columns, damage)
        try:
            for chunk, after in zip(chunks, [*chunks[1:], None], strict=True):
                rows = coming.result()
                if after is not None:
                    coming = Ahead(self._decoder.decode, self._read, after, columns, damage)
                yield chunk, rows
        finally:
            coming.join()  # it reads from our descriptor

    def _first_frame(self) -> Frame:
        if self._size == 0:
            raise RequestError("is empty; it is not a pydamon record", where=self.path)
        try:
            frame = frame_at(self._read, self._size, 0)
        except BadMessage:
            frame = None
        if frame is None or frame.kind != SCHEMA:
            raise RequestError("is not a pydamon record", where=self.path)
        return frame

    def _schema(self, data: bytes) -> pa.Schema:
        try:
            schema = ipc.read_schema(pa.py_buffer(data))
            described = METADATA_KEY in (schema.metadata or {})
            names = schema.names
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            raise RequestError("is not a pydamon record, or its first bytes are damaged", where=self.path) from None
        if not described:
            raise RequestError("is an Arrow stream, but not a pydamon record", where=self.path)
        for name, _ in REGION_FIELDS:
            if names.count(name) != 1:
                raise RequestError(f"is damaged: it has no column {name!r}", where=self.path)
        self._check_types(schema, ())
        for field in schema:
            if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
                raise RequestError(f"is damaged: its column {field.name[:40]!r} is not a number", where=self.path)
        return schema

    def _check_types(self, schema: pa.Schema, optional: Collection[str]) -> None:
        for field in region_fields(optional):
            if schema.names.count(field.name) != 1 or schema.field(field.name).type != field.type:
                message = f"is damaged: its column {field.name!r} is not of type {field.type}"
                raise RequestError(message, where=self.path)

    def _walk(self, offset: int) -> tuple[bool, int]:
        """Collect the messages. Returns (no end mark found, bytes after the last good message)."""
        walked = walk(self._read, self._size, offset)
        self._strange += walked.gaps
        for frame in walked.frames:
            # We write none without rows that has a body: one bit of the number of rows makes it.
            self._strange += frame.kind != BATCH or (not frame.rows and frame.body_len > 0)
            if frame.kind == BATCH:
                (self._batches if frame.rows else self._tagged).append(frame)
        return not walked.complete, self._size - walked.end - (8 if walked.complete else 0)

    def _tags(self, frame: Frame) -> dict[str, str]:
        """The metadata of a message; BadMessage if it is damaged."""
        message = self._read(frame.offset, frame.end - frame.offset)
        check_sum(message, frame, self.has_checksums)
        return custom_metadata(message, frame)

    def _take(self, entry: TableEntry, size: int, count: int) -> None:
        self._allowance.take(entry.frame.offset, size, weight(entry.name, count))

    def _decode_table(self, entry: TableEntry) -> pa.Table | None:
        try:
            table = decode_table(self._tags(entry.frame).get(DATA_KEY, ""), partial(self._take, entry))
            return conform(entry.name, table) if entry.name in TABLES else table
        except TooMuch:
            self._too_much.add(entry.frame.offset)
            return None
        except BadMessage:
            self._bad_tables.add(entry.frame.offset)
            return None


def _targets_of(table: pa.Table) -> list[TargetInfo]:
    """The rows of a piece of the side table of targets; BadMessage if they cannot be."""
    found = []
    for row in each_row(table.select(["target", "pid", "command", "start_ticks"])):
        pid, start_ticks = row["pid"], row["start_ticks"]
        # Another tool's recording does not tell the process, or not when it began.
        if (pid is None and start_ticks is not None) or (pid or 0) < 0 or (start_ticks or 0) < 0:
            raise BadMessage("a table of targets with other values")
        found.append(TargetInfo(**row))
    return found


def _open(path: str) -> int:
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise RequestError("there is no such file; name a record with -i FILE", where=path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "embedded null byte")  # Pythons differ in what they call that
        raise RequestError(f"cannot be opened: {reason}", where=path) from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise RequestError(f"is {what}, not a pydamon record", where=path)
    return fd


def _keep_freed_memory() -> None:
    """Have malloc() reuse what it is given back, instead of returning it to the kernel between two batches.

    glibc keeps free memory in proportion to the largest block that was ever freed; faulting the pages in again takes
    longer than the arithmetic on them.
    """
    np.empty((1 << 25) - (1 << 16), dtype=np.uint8)


def _chunks(chosen: list[Frame]) -> Iterator[list[Frame]]:
    """Neighbouring messages, together of a size that is good to work on."""
    chunk: list[Frame] = []
    rows = size = 0
    for frame in chosen:
        if chunk and (rows + frame.rows > _CHUNK_ROWS or size + frame.body_len > _CHUNK_BYTES):
            yield chunk
            chunk, rows, size = [], 0, 0
        chunk.append(frame)
        rows += frame.rows
        size += frame.body_len
    if chunk:
        yield chunk


def _spread(chosen: list[Frame], sample_rows: int) -> tuple[list[Frame], int]:
    """(evenly spread messages, every which snapshot of theirs) that together are about ``sample_rows`` rows."""
    total = sum(frame.rows for frame in chosen)
    # At least 32 places in time, whatever the size of the messages; the snapshots in them are thinned instead.
    count = max(len(chosen) * sample_rows // total, min(32, len(chosen)), 2)
    picked = sorted({index * (len(chosen) - 1) // (count - 1) for index in range(count)})
    spread = [chosen[index] for index in picked]
    return spread, max(-(-sum(frame.rows for frame in spread) // sample_rows), 1)


def _thin(batch: RegionBatch, step: int) -> RegionBatch:
    """About every ``step``-th snapshot; not exactly every one, which might always be of the same target."""
    return batch.select(np.arange(len(batch)) * 0.6180339887498949 % 1 < 1 / step)
