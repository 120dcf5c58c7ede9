"""Several record files as one: the parts that a rotated recording leaves (``run.0001.damon`` and so on)."""

from __future__ import annotations

import glob
import os
import stat
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.errors import RequestError
from pydamon.linux.process import Mapping
from pydamon.records.batch import RegionBatch
from pydamon.records.reader import RecordReader, TableEntry
from pydamon.records.schema import RecordInfo, TargetInfo, optional_names
from pydamon.records.shown import Shown

if TYPE_CHECKING:
    from pydamon.records.formats.foreign import Hints

MAX_PARTS = 4096
_MARK = b"\xff\xff\xff\xff"  # what every message of an Arrow stream begins with, and no text


class JoinedRecords(Shown):
    """Reads like a `RecordReader`; the parts in the order of their times.

    A part that cannot be read at all (it is empty, cut within its description, or something else) is left out, and
    `warnings` says so. Raises RequestError if that is true of all, or if the files are not of one recording: another
    clock, or another process under the same target number.
    """

    def __init__(self, paths: Sequence[str], name: str) -> None:
        if len(paths) > MAX_PARTS:
            raise RequestError(f"{len(paths)} files are too many; the most is {MAX_PARTS}", where=name)
        self.path = name
        self.paths = list(paths)
        self._readers: list[RecordReader] = []
        self._left_out: list[str] = []
        try:
            spans = self._open_all(paths)
            filled = [reader for reader in self._readers if spans[id(reader)] is not None]
            filled.sort(key=lambda reader: spans[id(reader)] or (0, 0))
            self._filled = filled
            self._starts = [(spans[id(reader)] or (0, 0))[0] for reader in filled]
            self._info = self._join_infos()
        except BaseException:
            self.close()
            raise

    def _open_all(self, paths: Sequence[str]) -> dict[int, tuple[int, int] | None]:
        """Open the parts; the times of each that can be read, by its identity. Raises the first error if none can."""
        spans: dict[int, tuple[int, int] | None] = {}
        first: RequestError | None = None
        for path in paths:
            try:
                reader = RecordReader(path)
                self._readers.append(reader)
                spans[id(reader)] = reader.time_range()
            except RequestError as error:
                if self._readers and self._readers[-1].path == path:
                    self._readers.pop().close()
                first = first or error
                self._left_out.append(f"{path}: {error.message}; this part was left out")
        if first is not None and not self._readers:
            raise first
        return spans

    def _join_infos(self) -> RecordInfo:
        targets: dict[int, TargetInfo] = {}
        readers = self._filled or self._readers
        # What a damaged description says is not to be believed while there is another.
        readers = [reader for reader in readers if reader.sound_description] or readers
        first = readers[0].info
        for reader in readers:
            info = reader.info
            if (info.clock, info.wall_offset_ns is None) != (first.clock, first.wall_offset_ns is None):
                raise RequestError("is of another recording than the files before it", where=reader.path)
            for target in info.targets:
                known = targets.setdefault(target.target, target)
                if (known.pid, known.start_ticks) != (target.pid, target.start_ticks):
                    hint = "join different recordings with: pydamon record merge"
                    raise RequestError(f"its target {target.target} is another process; {hint}", where=reader.path)
        return replace(first, targets=tuple(targets[number] for number in sorted(targets)))

    @property
    def info(self) -> RecordInfo:
        """The description of the first part, with the targets of all."""
        return self._info

    @property
    def optional(self) -> tuple[str, ...]:
        """The optional columns that some part has, in the order of the table."""
        return tuple(name for name in optional_names() if any(name in reader.optional for reader in self._readers))

    @property
    def rows(self) -> int:
        """Region rows of all parts."""
        return sum(reader.rows for reader in self._readers)

    @property
    def truncated(self) -> bool:
        """Whether some part was not closed."""
        return any(reader.truncated for reader in self._readers)

    @property
    def has_checksums(self) -> bool:
        """Whether all parts have them."""
        return all(reader.has_checksums for reader in self._readers)

    @property
    def left_out_bytes(self) -> int:
        """Bytes at the ends of the parts that could not be read."""
        return sum(reader.left_out_bytes for reader in self._readers)

    @property
    def file_bytes(self) -> int:
        """The size of all files when they were opened."""
        return sum(reader.file_bytes for reader in self._readers)

    def batches(
        self,
        *,
        columns: Collection[str] | None = None,
        target: int | None = None,
        sample_rows: int | None = None,
        between: tuple[int, int] | None = None,
    ) -> Iterator[RegionBatch]:
        """As `RecordReader.batches`; each part is sampled in proportion to its rows."""
        total = max(self.rows, 1)
        for reader in self._filled:
            some = None if sample_rows is None else max(sample_rows * reader.rows // total, 1)
            yield from reader.batches(columns=columns, target=target, sample_rows=some, between=between)

    def frame_times(self, _known: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """As `RecordReader.frame_times`, of all parts; they are looked for anew."""
        return np.concatenate([reader.frame_times() for reader in self._readers])

    def snapshots(self, target: int | None = None) -> Iterator[Snapshot]:
        """The snapshots one by one, in the order of time."""
        for batch in self.batches(target=target):
            yield from batch.snapshots()

    def time_range(self) -> tuple[int, int] | None:
        """(start of the first snapshot, end of the last one) in ns; None if there is none."""
        spans = [span for reader in self._filled if (span := reader.time_range()) is not None]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None

    def last_snapshots(self) -> dict[int, Snapshot]:
        """The last snapshot of each target, by number."""
        found: dict[int, Snapshot] = {}
        for reader in reversed(self._filled):
            for target, snapshot in reader.last_snapshots().items():
                found.setdefault(target, snapshot)
            if {target.target for target in self._info.targets} <= found.keys():
                break
        return dict(sorted(found.items()))

    def snapshots_around(self, time_ns: int) -> list[Snapshot]:
        """As `RecordReader.snapshots_around`, of the part of that time and its neighbours."""
        place = bisect_right(self._starts, time_ns)
        near = self._filled[max(place - 2, 0) : place + 1]
        return [one for reader in near for one in reader.snapshots_around(time_ns)]

    def tables(self) -> list[TableEntry]:
        """The pieces of side tables of all parts."""
        return [entry for reader in self._filled for entry in reader.tables()]

    def pieces(self, name: str, between: tuple[int, int] | None = None) -> Iterator[tuple[TableEntry, pa.Table]]:
        """The pieces of one side table, each with what it is about; as `RecordReader.pieces`."""
        for reader in self._filled:
            yield from reader.pieces(name, between)

    def table(self, name: str) -> Iterator[pa.Table]:
        """The pieces of one side table."""
        for _, piece in self.pieces(name):
            yield piece

    def table_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of one declared side table, one by one."""
        for reader in self._filled:
            yield from reader.table_rows(name)

    def mappings_at(self, target: int, time_ns: int) -> list[Mapping]:
        """As `RecordReader.mappings_at`, from the newest part that has some by that time."""
        begun = [reader for reader in self._filled if (reader.time_range() or (0, 0))[0] <= time_ns]
        for reader in [*reversed(begun), *self._filled]:
            if found := reader.mappings_at(target, time_ns):
                return found
        return []

    def mapping_times(self, target: int) -> list[int]:
        """When the target's mappings were recorded, in ns."""
        return [time_ns for reader in self._filled for time_ns in reader.mapping_times(target)]

    def warnings(self) -> list[str]:
        """One line for each part that was left out, and for each kind of thing that was left out of the others."""
        return self._left_out + [line for reader in self._readers for line in reader.warnings()]

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> JoinedRecords:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


AnyReader = RecordReader | JoinedRecords


def open_record(path: str, *, hints: Hints | None = None) -> AnyReader:
    """The record at ``path``, or all that a pattern such as ``run.*.damon`` matches as one.

    A file of another format (`records.formats`; ``-`` is standard input) is converted on the way, with ``hints`` about
    what it does not say. Raises RequestError, and PydamonError where a foreign file holds no snapshot.
    """
    if path == "-" or os.path.lexists(path) or not glob.has_magic(path):
        return _open_one(path, hints)
    found = sorted(glob.glob(path))
    if not found:
        raise RequestError("matches no file", where=path)
    return _open_one(found[0], hints) if len(found) == 1 else JoinedRecords(found, path)


def _open_one(path: str, hints: Hints | None) -> RecordReader:
    if path != "-" and os.path.isdir(path):
        from pydamon.records.formats.damo_parts import parts_of

        if count := len(parts_of(path)):
            hint = "one record of them is made by pydamon import"
            raise RequestError(f"is a directory with parts of a recording of damo ({count}); {hint}", where=path)
    if path != "-" and not os.path.isfile(path) and not _is_pipe(path):
        return RecordReader(path)  # which says what is wrong with it
    if path != "-" and os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                first = file.read(len(_MARK))
        except OSError as error:
            raise RequestError(f"cannot be read: {error.strerror}", where=path) from None
        if not first or first == _MARK:
            return RecordReader(path)
    from pydamon.records.formats.convert import ImportedRecord
    from pydamon.records.formats.detect import open_foreign
    from pydamon.records.formats.input_file import InputFile

    with InputFile(path) as source:
        return ImportedRecord(open_foreign(source, hints))


def is_record(path: str) -> bool:
    """Whether a file begins as records do; False for what cannot be read."""
    try:
        if not os.path.isfile(path):  # reading from a pipe would take what is in it
            return False
        with open(path, "rb") as file:
            return file.read(len(_MARK)) == _MARK
    except (OSError, ValueError):
        return False


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
