"""Writing a record while it is being made.

What was flushed is a valid stream up to there: a reader needs no end mark. Each flush is handed to the kernel in one
piece, so that neither SIGKILL nor a full disk costs more than what came after the last flush.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from pydamon.core.columns import Array
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError, RequestError
from pydamon.linux.old_files import check_old, keep_old
from pydamon.linux.outputs import NewFile, Place, check_closing, lock_found, never
from pydamon.linux.process import Mapping
from pydamon.records import side_tables
from pydamon.records.batch import RegionBatch
from pydamon.records.framing import SCHEMA, BadMessage, frame_at, put_sums
from pydamon.records.index import INDEX_KEY, ROWS, write_index
from pydamon.records.region_rows import RegionBuffer, region_rows
from pydamon.records.schema import (
    BATCH_ROWS,
    END_OF_STREAM,
    HEADS,
    MAX_BATCH_ROWS,
    METADATA_KEY,
    encode_metadata,
    measured_names,
    region_schema,
)
from pydamon.records.tables import MAPS, encode_table, maps_table

FLUSH_NS = 1_000_000_000
GATHER_NS = 5_000_000_000  # how long rows that come each second wait for each other: a piece each costs 0.7 ms of CPU
_YOUNG_NS = 2 * FLUSH_NS  # a recording that has just begun: how long what comes next takes is not known yet
_PIECE = 1 << 20  # bytes of an old record that are looked through at a time
_WHERE = "output"


def check_output(path: str, *, keep_old: bool = False) -> None:
    """Raise RequestError if a record could not be written there, or (with ``keep_old``) what is there not be kept.

    Changes nothing. For use before a workload is launched; `RecordWriter` checks again.
    """
    with Place(path, _WHERE) as place:
        if _check_found(place) and keep_old:
            check_old(place, is_record)


class RecordWriter:
    """One record file being written. Use as a context manager, or call `close`.

    ``metadata`` is a description as `schema.build_metadata` makes it; ``optional`` names the optional columns that the
    record has (unless told, those that pydamon measures): what of them a snapshot lacks is null, what it has besides is
    left out. An existing file is replaced if it is empty or a pydamon record, refused otherwise. Raises RequestError
    (naming ``output``) if the file cannot be made, PydamonError if a write fails later; what was flushed before stays
    readable.

    The file appears with its description, whole, under its name; with ``whole`` only once the record is complete, and
    never if it is given up. A device or pipe is written to until ``stopped`` says that all is to end. With ``keep_old``
    a record with snapshots that was there stays, one generation of it, as ``kept`` (see `linux.old_files`).

    Call `add_snapshot` for every snapshot, and `tick` when those of a moment are added: a snapshot is in the file no
    later than a second after its end, by the clock whose time is given, as long as the time until the next tick is no
    more than twice what it was at most lately. The first one is there at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: AnyMapping[str, Any],
        optional: Iterable[str] | None = None,
        compression_level: int = 3,
        whole: bool = False,
        keep_old: bool = False,
        stopped: Callable[[], bool] = never,
    ) -> None:
        self.path = os.fspath(path)
        self.kept: str | None = None  # as soon as this record has its name
        self._schema = region_schema(encode_metadata(metadata), measured_names() if optional is None else optional)
        header = self._schema.serialize().to_pybytes()
        self._header_bytes = len(header)
        nothing = [pa.nulls(0, field.type) for field in self._schema]
        self._nothing = pa.RecordBatch.from_arrays(nothing, schema=self._schema)
        codec = pa.Codec("zstd", compression_level=compression_level)
        self._options = ipc.IpcWriteOptions(compression=codec, use_threads=False)
        self._snapshots: list[tuple[int, ...]] = []
        self._rows = 0
        self._regions = RegionBuffer(1024, self._schema.names[len(HEADS) :])
        self._side_tables: list[dict[str, str]] = []
        self._gathered: dict[str, list[AnyMapping[str, Any]]] = {}
        self._gathered_ns: int | None = None  # since when
        self._last_mappings: dict[int, Sequence[Mapping]] = {}
        self._last_flush_ns: int | None = None
        self._oldest_ns: int | None = None  # the end of the first snapshot that is not in the file
        self._last_tick_ns: int | None = None
        self._young_until_ns = 0
        self._between_ns = 0.0  # two ticks, at most lately
        self.bytes_written = 0
        self._whole = whole
        self._keep_old = keep_old
        self._old_fd: int | None = None
        self._file: NewFile | None = None
        self._fd, self._put = self._open(stopped)
        try:
            self._write(header)
            if not whole:
                self._appear()
        except BaseException:
            self.discard()
            raise

    def _open(self, stopped: Callable[[], bool]) -> tuple[int, Callable[[memoryview], int]]:
        """(descriptor, what writes to it): of a file beside the place, or of the device or pipe that is there."""
        place = Place(self.path, _WHERE)
        try:
            if _check_found(place) and self._keep_old:
                check_old(place, is_record)
            if place.is_stream:
                stream = place.open_stream(stopped)
                place.close()
                return stream.fd, stream.write
            self._old_fd = lock_found(place)  # as long as it is there, nobody else records to it
            self._file = place.make_beside()
        except BaseException:
            place.close()
            self._let_go()
            raise
        fd = self._file.fd
        return fd, lambda data: os.write(fd, data)

    def _appear(self) -> None:
        if self._file is not None:
            try:
                if self._keep_old and self._old_fd is not None and _has_snapshots(self._old_fd):
                    self.kept = keep_old(self._file.place, is_record)
                self._file.appear()
            except OSError as error:
                raise RequestError(f"cannot write {self.path}: {error.strerror}", where=_WHERE) from None
            self._let_go()

    def _let_go(self) -> None:
        """Of what was there before."""
        fd, self._old_fd = self._old_fd, None
        if fd is not None:
            os.close(fd)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Record one snapshot; its arrays are copied. One without regions leaves no trace."""
        count = len(snapshot.start)
        if count == 0:
            return
        self._regions.append(self._rows, snapshot)
        self._snapshots.append((count, *snapshot.head.values()))
        self._rows += count
        if self._oldest_ns is None:
            self._oldest_ns = snapshot.end_ns
        if self._rows >= BATCH_ROWS:
            self._hand_over()
        self._flush_each_second(snapshot.end_ns)

    def add_batch(self, batch: RegionBatch) -> None:
        """Record many snapshots at once, in messages of their own; what was added before is flushed first."""
        self.flush()
        if self._fd < 0 or not len(batch.start):
            return
        index = np.column_stack([batch.counts, *(batch.heads[name] for name in HEADS)])
        self._write(self._messages(index[index[:, ROWS] > 0], batch.columns))

    def add_mappings(self, time_ns: int, target: int, mappings: Sequence[Mapping]) -> None:
        """Record the mappings of a target from that time on; does nothing if they are as before, or none.

        The sequence is kept, and not to be changed: the same one again is known to be as before.
        """
        before = self._last_mappings.get(target)
        if not mappings or mappings is before:
            return
        self._last_mappings[target] = mappings
        if mappings != before:
            self.add_table(MAPS, maps_table(time_ns, target, mappings), time_ns=time_ns, target=target)

    def forget_except(self, targets: Iterable[int]) -> None:
        """Drop what is kept about targets but these: the others have ended. What is in the record stays there."""
        keep = set(targets)
        for target in [known for known in self._last_mappings if known not in keep]:
            del self._last_mappings[target]

    def add_table(self, name: str, table: pa.Table, *, time_ns: int | None = None, target: int | None = None) -> None:
        """Record a piece of the side table ``name``, with the columns and types that it is declared with.

        Raises KeyError for one that `side_tables` does not declare, BadMessage for other columns.
        """
        if name not in side_tables.TABLES:
            raise KeyError(name)
        self.add_opaque(name, side_tables.conform(name, table), time_ns=time_ns, target=target)

    def add_opaque(self, name: str, table: pa.Table, *, time_ns: int | None = None, target: int | None = None) -> None:
        """Record a piece of a side table as it is: one that was found in another record."""
        self._side_tables.append(encode_table(name, table, time_ns, target))

    def add_rows(self, name: str, rows: Sequence[AnyMapping[str, Any]], *, time_ns: int | None = None) -> None:
        """Record rows (objects) of the side table ``name``; raises as `side_tables.from_rows`.

        The rows of tables that are `gathered` are kept: they are not to be changed, and raise when they are flushed.
        """
        if not rows:
            return
        if time_ns is None or not side_tables.TABLES[name].gathered:
            self.add_opaque(name, side_tables.from_rows(name, rows), time_ns=time_ns)
            return
        self._gathered.setdefault(name, []).extend(rows)
        if self._gathered_ns is None:
            self._gathered_ns = time_ns

    def _put_gathered(self) -> None:
        """A piece of each table whose rows were gathered. Only the rows say when."""
        for name, rows in self._gathered.items():
            self.add_opaque(name, side_tables.from_rows(name, rows))
        self._gathered.clear()
        self._gathered_ns = None

    def tick(self, now_ns: int) -> None:
        """Flush if there may be a snapshot that would be older than a second at the next tick but one."""
        if self._last_tick_ns is None:
            self._young_until_ns = now_ns + _YOUNG_NS
        else:
            passed = max(now_ns - self._last_tick_ns, 0)
            # The longest time counts, and is forgotten slowly: one that was long may be so again.
            self._between_ns = max(passed, self._between_ns - passed / 16)
        self._last_tick_ns = now_ns
        if self._gathered_ns is not None and not 0 <= now_ns - self._gathered_ns < GATHER_NS:
            self._put_gathered()
        if self._oldest_ns is not None:
            in_time = 0 <= now_ns - self._oldest_ns + 2 * self._between_ns < FLUSH_NS
            if now_ns < self._young_until_ns or not in_time:
                self._hand_over()
                self._last_flush_ns = now_ns
        self._flush_each_second(now_ns)

    def _flush_each_second(self, now_ns: int) -> None:
        """Flush if the last flush is a second ago by this clock (or if the clock went back)."""
        if self._last_flush_ns is None:
            self._last_flush_ns = now_ns
        elif not 0 <= now_ns - self._last_flush_ns < FLUSH_NS:
            self._hand_over()
            self._last_flush_ns = now_ns

    def flush(self) -> None:
        """Hand everything added so far to the kernel; PydamonError if it does not take it."""
        self._put_gathered()
        self._hand_over()

    def _hand_over(self) -> None:
        if self._fd < 0 or not (self._snapshots or self._side_tables):
            return
        self._write(self._messages(np.array(self._snapshots, dtype=np.int64), self._regions.columns(self._rows)))
        self._snapshots.clear()
        self._side_tables.clear()
        self._rows = 0
        self._oldest_ns = None

    def close(self) -> None:
        """Flush, mark the end of the record and close the file. Closing again does nothing."""
        if self._fd < 0:
            return
        try:
            self.flush()
            self._write(END_OF_STREAM)
            if self._whole:
                self._appear()
            else:
                self._check_stored()
        except BaseException:
            if self._whole:
                self.discard()
            raise
        finally:
            self._close_fd()

    def _check_stored(self) -> None:
        try:
            check_closing(self._fd)
        except OSError as error:
            raise PydamonError(f"not all of the record may be stored: {error.strerror}", where=self.path) from None

    def discard(self) -> None:
        """Give the record up: close the file, and remove it if there was none before this writer's."""
        if self._file is not None:
            self._file.discard(everything=True)
        self._close_fd()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        if self._whole:
            self.discard()
            return
        # What went wrong matters more than what goes wrong because of it.
        with contextlib.suppress(PydamonError):
            self.close()

    def _messages(self, index: NDArray[np.int64], regions: AnyMapping[str, Array]) -> memoryview:
        """The bytes of the buffered tables and of these rows: messages without the schema and the end mark."""
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, self._schema, options=self._options) as writer:
            for tags in self._side_tables:
                writer.write_batch(self._nothing, custom_metadata=tags)
            for batch, described in self._batches(index, regions):
                writer.write_batch(batch, custom_metadata=write_index(described))
        data = bytearray(memoryview(sink.getvalue())[self._header_bytes : -len(END_OF_STREAM)])
        put_sums(data)
        return memoryview(data)

    def _batches(
        self, index: NDArray[np.int64], regions: AnyMapping[str, Array]
    ) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
        """These rows as one batch and its index; a snapshot beyond what a batch may hold is divided."""
        rows = len(regions["start"])
        if not rows:
            return
        batch = region_rows(self._schema, index, regions)
        if rows <= MAX_BATCH_ROWS:
            yield batch, index
            return
        ends = np.cumsum(index[:, ROWS])
        for first in range(0, rows, MAX_BATCH_ROWS):
            last = min(first + MAX_BATCH_ROWS, rows)
            counts = np.minimum(ends, last) - np.maximum(ends - index[:, ROWS], first)
            part = np.column_stack([counts, index[:, ROWS + 1 :]])[counts > 0]
            yield batch.slice(first, last - first), part

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._put(left) :]
        except BaseException as error:
            # Take back what was written of this piece, so that the file ends with a whole message.
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self.bytes_written)
                    os.lseek(self._fd, self.bytes_written, os.SEEK_SET)
            if not isinstance(error, OSError):
                raise
            kept = f"its first {self.bytes_written} bytes are kept"
            if self._file is not None and not self._file.appeared:
                kept = "nothing is left of it"
                self.discard()
            self._close_fd()
            reasons = {errno.ENOSPC: "the disk is full", errno.EFBIG: "the limit of the file size is reached"}
            reason = reasons.get(error.errno or 0, error.strerror)
            raise PydamonError(f"cannot write to the record: {reason}; {kept}", where=self.path) from None
        self.bytes_written += len(data)

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._let_go()
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _check_found(place: Place) -> bool:
    """Whether a record is there already; RequestError for a link to nothing, or a file of another kind with content."""
    if place.dangling and os.path.islink(place.path):
        raise RequestError(f"{place.path} is a symbolic link to nothing", where=_WHERE)
    if place.found is None or place.is_stream or not place.found.st_size:
        return False
    try:
        fd = place.open_found(os.O_RDONLY)
    except OSError as error:
        raise place.refused(error.strerror) from None
    try:
        if not is_record(fd):
            raise RequestError(f"{place.path} exists and is not a pydamon record; choose another name", where=_WHERE)
        return True
    finally:
        os.close(fd)


def _has_snapshots(fd: int) -> bool:
    """Whether the record holds any: one that does not is no reason to give up what was kept before."""
    key, at, before = INDEX_KEY.encode(), 0, b""
    while piece := os.pread(fd, _PIECE, at):
        if key in before + piece:
            return True
        at, before = at + len(piece), (before + piece)[1 - len(key) :]
    return False


def is_record(fd: int) -> bool:
    """Whether the file starts like a pydamon record: an Arrow stream whose schema has our description."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(fd, length, offset)

    try:
        frame = frame_at(read, os.fstat(fd).st_size, 0)
        if frame is None or frame.kind != SCHEMA:
            return False
        schema = ipc.read_schema(pa.py_buffer(read(0, frame.end)))
    except (BadMessage, pa.ArrowException, OSError, ValueError):
        return False
    return METADATA_KEY in (schema.metadata or {})
