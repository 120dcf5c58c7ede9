"""From a foreign file to a record: written to a file of the user's, or to an unnamed one that the reports read."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any

import numpy as np

from pydamon.errors import PydamonError
from pydamon.records.decode import Damage, Grouper, Rows, join
from pydamon.records.formats.foreign import Foreign, ReadAgain
from pydamon.records.hits import TABLE, ProbedRegions, hits_table
from pydamon.records.index import START_NS
from pydamon.records.reader import RecordReader
from pydamon.records.schema import BATCH_ROWS, TargetInfo, describe
from pydamon.records.writer import RecordWriter

# Makes the file to write, given the description and the optional columns.
MakeWriter = Callable[[Mapping[str, Any], tuple[str, ...]], AbstractContextManager[RecordWriter]]

_MOST_TARGETS = 1 << 20
_HITS_ROWS = 1 << 16
_SCHEME_ROWS = 1 << 12

# Each reason to begin again is met at most once.
_MOST_PASSES = 4


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a foreign file: ``notes`` are assumptions, ``left_out`` what was not taken over; lines of text."""

    format: str
    snapshots: int
    rows: int
    notes: list[str]
    left_out: list[str]
    not_read: list[str]  # files of damo's beside it that have no place in a record


def convert(foreign: Foreign, make_writer: MakeWriter) -> Converted:
    """Write the file's snapshots as a record, in memory that does not grow with it.

    ``make_writer`` is called with the record's description and optional columns, once more for each time that reading
    has to begin again.
    Raises PydamonError if there is no snapshot in it, RequestError if it is not what it seems to be.
    """
    # See `RecordReader.batches`: without this, freed blocks go back to the kernel and have to be cleared again.
    np.empty((1 << 25) - (1 << 16), dtype=np.uint8)
    for _ in range(_MOST_PASSES):
        try:
            with make_writer(describe(foreign.info()), foreign.optional) as writer:
                return _write(foreign, writer)
        except ReadAgain:
            continue
    raise PydamonError("changes while it is being read", where=foreign.source.path)


def _write(foreign: Foreign, writer: RecordWriter) -> Converted:
    damage = Damage()
    grouper = Grouper(foreign.source.path, damage, _MOST_TARGETS)
    named = snapshots = written = 0
    begun_ns: int | None = None
    with closing(_ahead(_gathered(foreign.rows()))) as pieces:
        for rows in pieces:
            # The reader is one piece ahead; a target is named no later than its first snapshot.
            new, named = foreign.targets[named:], len(foreign.targets)
            if new:
                first_ns = 0 if rows is None else int(rows.index[0, START_NS])
                writer.add_rows("targets", [{"time_ns": first_ns, **asdict(t)} for t in new], time_ns=first_ns)
            for batch in grouper.add(rows, last=rows is None):
                writer.add_batch(batch)
                snapshots += len(batch)
                written += len(batch.start)
                begun_ns = int(batch.start_ns.min()) if begun_ns is None else begun_ns
            _put_hits(foreign.probed, writer)
            _put_schemes(foreign.scheme_rows, writer)
    beside = [] if begun_ns is None else foreign.beside.write(writer, _processes(foreign.targets), begun_ns)
    left_out = damage.lines() + foreign.left_out() + foreign.beside.problems
    if not snapshots:
        problem = "; ".join(left_out)
        raise PydamonError("holds no snapshot" + (f": {problem}" if problem else ""), where=foreign.source.path)
    line = "" if foreign.intervals is None else foreign.intervals.line()
    notes = ([line] if line else []) + beside
    return Converted(foreign.format, snapshots, written, notes, left_out, foreign.beside.not_read())


def _processes(targets: Iterable[TargetInfo]) -> dict[int, list[int]]:
    """The numbers of the targets that are a process, by its pid: with several schemes there are several."""
    found: dict[int, list[int]] = {}
    for target in targets:
        if target.pid is not None:
            found.setdefault(target.pid, []).append(target.target)
    return found


def _put_schemes(rows: deque[dict[str, Any]], writer: RecordWriter) -> None:
    """Statistics of schemes, in tables that are not too large."""
    while rows:
        some = [rows.popleft() for _ in range(min(len(rows), _SCHEME_ROWS))]
        writer.add_rows("schemes", some)


def _put_hits(probed: deque[ProbedRegions], writer: RecordWriter) -> None:
    """What probes have hit in the snapshots that were read, in tables that are not too large."""
    while probed:
        parts = [probed.popleft()]
        rows = parts[0].hits.size
        while probed and rows + probed[0].hits.size <= _HITS_ROWS:
            parts.append(probed.popleft())
            rows += parts[-1].hits.size
        writer.add_table(TABLE, hits_table(parts), time_ns=parts[0].time_ns)


def _gathered(pieces: Iterator[Rows]) -> Generator[Rows, None, None]:
    """The same rows in pieces that make good messages."""
    held: list[Rows] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece.start)
        if count >= BATCH_ROWS:
            yield join(held) if len(held) > 1 else piece
            held, count = [], 0
    if held:
        yield join(held)


def _ahead(pieces: Iterator[Rows]) -> Generator[Rows | None, None, None]:
    """The pieces, and None at their end; while the caller works on one, the next is made on another CPU."""
    first, second = next(pieces, None), next(pieces, None)
    if first is not None:
        yield first
    if second is None:  # not worth a thread
        yield None
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        try:
            yield second
            while (piece := coming.result()) is not None:
                coming = pool.submit(next, pieces, None)
                yield piece
            yield None
        finally:
            coming.cancel()
            pool.submit(_close, pieces).result()


def _close(pieces: Iterator[Rows]) -> None:
    if isinstance(pieces, Generator):
        pieces.close()


class ImportedRecord(RecordReader):
    """A foreign file read as a record: it was converted into an unnamed file, which goes when this is closed."""

    def __init__(self, foreign: Foreign) -> None:
        path = foreign.source.path
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="pydamon-")  # noqa: SIM115 - lives as long as this
        except OSError as error:
            raise PydamonError(f"cannot make a file in {tempfile.gettempdir()}: {error.strerror}", where=path) from None
        name = f"/proc/self/fd/{self._file.fileno()}"
        try:
            self.converted = convert(foreign, partial(self._begin, name))
            super().__init__(name)
        except PydamonError as error:
            self._file.close()
            if error.where == name:
                raise PydamonError(f"{error.message} (converting to {tempfile.gettempdir()})", where=path) from None
            raise
        except BaseException:
            self._file.close()
            raise
        self.path = path
        self._foreign_bytes = foreign.source.size

    def _begin(self, name: str, about: Mapping[str, Any], optional: tuple[str, ...]) -> RecordWriter:
        self._file.seek(0)  # an earlier attempt may have written to it
        self._file.truncate()
        return RecordWriter(name, metadata=about, optional=optional, compression_level=1)

    @property
    def file_bytes(self) -> int:
        """The size of the foreign file."""
        return self._foreign_bytes

    def warnings(self) -> list[str]:
        """What was assumed and what was left out; each line names the file."""
        lines = [f"read as {self.converted.format}: {note}" for note in self.converted.notes]
        return [f"{self.path}: {text}" for text in lines + self.converted.left_out] + super().warnings()

    def close(self) -> None:
        """Close the file, which removes the converted one. Closing again does nothing."""
        super().close()
        self._file.close()
