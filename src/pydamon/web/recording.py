"""One recording as the page shows it: read once in the background, followed while it grows, asked about by many."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon import messages
from pydamon.analysis.panel import look_of
from pydamon.analysis.pyramid import FINER, TILE, U8, Pyramid, divided_cells, exact
from pydamon.analysis.whatif.part import acted
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.library.whatif import what_if
from pydamon.plain import printable
from pydamon.records.batch import RegionBatch
from pydamon.records.joined import AnyReader, open_record
from pydamon.records.reader import RecordReader
from pydamon.views.names import mappings_over, source_line, target_line
from pydamon.web.kept import Kept, keep, kept
from pydamon.web.target import (
    Drawn,
    begun,
    footprint,
    held_by_mapping,
    moments,
    outside,
    panel,
    regions,
    told,
)
from pydamon.web.whatif import curves

MOST_TARGETS = 16  # that are drawn, the largest
_SURVEY_ROWS = 1 << 16
_COLUMNS = ("age", "age_ms", "resident", "unknown")
_LOOK_S = 1.0  # between two looks whether the file has grown
_PATIENCE = 10  # times as long as a look took: many parts are opened anew
_BETWEEN_PARTS_S = 60.0
_MOVED = 0.1  # of the memory lies elsewhere: the addresses are chosen anew
_AVERAGED = 12  # snapshots of a window
_WINDOW_ROWS = 1 << 15
_WORTH_KEEPING = 2_000_000  # rows: about a second of reading
_MOST_COLUMNS = 4096  # that are told at once
_LOOKED_BACK = 8  # messages, for the last snapshot before a time
_MOST_REGIONS = 20_000
_FRESH_S = 30.0  # for how long the answer of a recording that grows does
_FRESH = 20  # or so many times as long as it took


class Missing(PydamonError):
    """What was asked for is not there."""


class Recording:
    """A record, or several files as one. `close` ends its thread.

    ``version`` goes up with all that is new; ``progress`` (0..1) says how much of the file was read, ``error`` why it
    cannot be shown, ``growing`` whether more may come.
    """

    def __init__(
        self,
        path: str,
        *,
        follow: bool = True,
        status: Callable[[], list[str]] = list,
        note: str = "",
        kdamond: str | None = None,
    ) -> None:
        self.path = path
        self.kdamond = kdamond  # who records it
        self._note = note  # what is to be said of it
        self.status = status  # lines about who records it
        self.name = printable(os.path.basename(path))
        self.version = 0
        self.progress = 0.0
        self.error: str | None = None
        self.growing = False
        self.warnings: list[str] = []
        self.span = (0, 0)
        self.drawn: dict[int, Drawn] = {}
        self.sizes: dict[int, int] = {}
        self._what_if: dict[int, tuple[int, float, dict[str, Any]]] = {}  # version, until when it is fresh, answer
        self._follow = follow
        self._in_parts = glob.has_magic(path) and not os.path.lexists(path)
        self._seen = self._files()
        self._grown_s = time.monotonic()
        self._reader: AnyReader = open_record(path)
        self._retired: list[AnyReader] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name=f"reads {self.name}", daemon=True)

    def start(self) -> None:
        """Begin to read, in the background."""
        self._thread.start()

    def read_now(self) -> None:
        """Read it all here, instead; PydamonError if it holds nothing."""
        self._build()
        if not self.drawn:
            raise PydamonError("holds no snapshot: nothing was recorded", where=self.path)

    def close(self) -> None:
        """Stop reading and let go of the file."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for reader in (*self._retired, self._reader):
            reader.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_all(self) -> None:
        try:
            self._build()
            took_s = 0.0
            while self._follow and not self._stopped.wait(max(_LOOK_S, _PATIENCE * took_s)):
                began_s = time.monotonic()
                self._look_again()
                took_s = time.monotonic() - began_s
        except PydamonError as error:
            self.error = printable(str(error))
        except Exception as error:  # the other recordings and the page go on
            self.error = f"cannot be read: {type(error).__name__}"
            messages.tell(f"{self.path}: {self.error}: {error}")
        self.version += 1

    def _build(self) -> None:
        """Read the whole record; what was there before is shown until it is done."""
        reader = self._reader
        span = reader.time_range()
        self.growing = self._may_grow(reader)
        if span is None:
            self.progress = 1.0
            return
        self._describe(reader)
        drawn, sizes = self._begin(reader, span)
        whole = not self.drawn
        if whole:
            self.drawn, self.sizes, self.span = drawn, sizes, span
        if (known := self._kept()) is not None:
            self.drawn, self.sizes, self.span, self.progress = known.drawn, known.sizes, span, 1.0
            self.version += 1
            return
        done = 0
        for batch in reader.batches(columns=_COLUMNS):
            if self._stopped.is_set():
                return
            self._add(drawn, batch)
            done += len(batch.start)
            self.progress = done / max(reader.rows, 1)
        for one in drawn.values():
            one.finish()
        reader.frame_times()
        self.drawn, self.sizes, self.span, self.progress = drawn, sizes, span, 1.0
        self._describe(reader)
        self.version += 1
        if self._follow and self._is_one_file() and not reader.truncated and reader.rows >= _WORTH_KEEPING:
            keep(self.path, Kept(drawn, sizes, np.array(reader.frame_times())))

    def _is_one_file(self) -> bool:
        """Whether it is a record of ours in one file: parts, and what is converted, are read anew each time."""
        return type(self._reader) is RecordReader and not self._in_parts

    def _kept(self) -> Kept | None:
        """What an earlier run has kept of the same record."""
        if not self._is_one_file() or self._reader.truncated or self._reader.rows < _WORTH_KEEPING:
            return None
        found = kept(self.path)
        whole = found is not None and len(found.frame_times) == len(self._reader.frame_times(found.frame_times))
        return found if whole else None

    def _begin(self, reader: AnyReader, span: tuple[int, int]) -> tuple[dict[int, Drawn], dict[int, int]]:
        """(the largest targets, still empty; the bytes of each target at last), by a sample of the snapshots."""
        sample: dict[int, list[RegionBatch]] = {}
        for batch in reader.batches(columns=_COLUMNS, sample_rows=_SURVEY_ROWS):
            for number in batch.targets:
                sample.setdefault(number, []).append(batch.of_target(number))
        sizes = {number: int(parts[-1].per_snapshot(parts[-1].memory)[-1]) for number, parts in sample.items()}
        chosen = sorted(sizes, key=lambda number: -sizes[number])[:MOST_TARGETS]
        rows = reader.rows // max(len(sample), 1)
        return {number: begun(number, sample[number], span, rows, len(chosen)) for number in chosen}, sizes

    def _add(self, drawn: dict[int, Drawn], batch: RegionBatch) -> None:
        for number in batch.targets:
            if number in drawn:
                drawn[number].add(batch.of_target(number))

    def _look_again(self) -> None:
        """Take in what the file has grown by; begin anew if it is another one, or the memory lies elsewhere."""
        if not self.growing:
            return
        reader = self._reader
        files = self._files()
        if files == self._seen and not reader.truncated:
            self.growing = self._may_grow(reader)  # of parts it is for some time
            self.version += not self.growing
        if files == self._seen:
            return
        if not files:
            self.growing, self.version = False, self.version + 1  # it was removed: what was read stays
            return
        new = open_record(self.path)
        self._seen, self._grown_s = files, time.monotonic()
        grown = self._goes_on(reader, new)
        if grown and self.drawn and self._is_one_file():
            new.frame_times(reader.frame_times())
        with self._lock:
            self._retired.append(reader)  # somebody may be reading from it still
            self._reader = new
        for old in self._retired[:-2]:
            old.close()
        del self._retired[:-2]
        if grown and self.drawn and not self._take_in(new):
            return
        if not grown:
            self.drawn, self._what_if = {}, {}
        self._build()

    def _files(self) -> dict[str, int]:
        """The files of the record that there are, with their sizes."""
        found = {}
        for path in glob.glob(self.path) if self._in_parts else [self.path]:
            with contextlib.suppress(OSError):
                found[path] = os.stat(path).st_size
        return found

    def _may_grow(self, reader: AnyReader) -> bool:
        """Whether more may come: it was not closed, or it is in parts, of which the next one may just begin."""
        between_parts = self._in_parts and time.monotonic() - self._grown_s < _BETWEEN_PARTS_S
        return self._follow and (reader.truncated or between_parts)

    def _goes_on(self, reader: AnyReader, new: AnyReader) -> bool:
        """Whether it is the same recording, with more of it."""
        if not self._in_parts:
            return new.file_bytes > reader.file_bytes and len(getattr(reader, "paths", [])) == 0
        span = new.time_range()
        return span is not None and span[1] >= self.span[1] and new.info.clock == reader.info.clock

    def _take_in(self, reader: AnyReader) -> bool:
        """Add what is new; True if the whole record has to be read again."""
        after = min(one.pyramid.end_ns for one in self.drawn.values())
        last: dict[int, RegionBatch] = {}
        for batch in reader.batches(columns=_COLUMNS, between=(after, 2**63 - 1)):
            self._add(self.drawn, batch)
            for number in batch.targets:
                last[number] = batch.of_target(number)
        self.span = (self.span[0], max(one.pyramid.end_ns for one in self.drawn.values()))
        for one in self.drawn.values():
            one.finish()
        self.growing = self._may_grow(reader)
        self._describe(reader)
        self.version += 1
        new = last.keys() - self.drawn.keys()
        return bool(new and len(self.drawn) < MOST_TARGETS) or any(
            outside(self.drawn[number].pyramid.axis, RegionBatch.of([batch.snapshot(len(batch) - 1)])) > _MOVED
            for number, batch in last.items()
            if number in self.drawn
        )

    def _describe(self, reader: AnyReader) -> None:
        # One that we write ourselves is whole but for its end, and where it lies is nobody's concern.
        self.warnings = [self._note] if self._note else [printable(line) for line in reader.warnings()]

    # -- answers ------------------------------------------------------------------------------------------------------

    def reader(self) -> AnyReader:
        """The record as it was last opened."""
        with self._lock:
            return self._reader

    def summary(self) -> dict[str, Any]:
        """What the list of recordings says."""
        reader = self.reader()
        info = reader.info
        offset = info.wall_offset_ns
        order = sorted(self.drawn, key=lambda number: -self.sizes.get(number, 0))
        return {
            "name": self.name,
            "version": self.version,
            "progress": round(self.progress, 3),
            "error": self.error,
            "growing": self.growing,
            "warnings": self.warnings,
            "source": source_line(reader),
            "span_ns": self.span[1] - self.span[0],
            "wall_ms": None if offset is None or not self.drawn else (self.span[0] + offset) // 10**6,
            "rows": reader.rows,
            "left_out": max(len(self.sizes) - len(self.drawn), 0),
            "targets": [
                {"target": number, "title": target_line(reader, number), "bytes": self.sizes.get(number, 0)}
                for number in order
            ],
        }

    def target(self, number: int) -> dict[str, Any]:
        """All that the page needs of a target but its tiles."""
        drawn, reader = self._drawn(number), self.reader()
        start_ns = drawn.pyramid.start_ns
        rows = [row for row in reader.table_rows("footprint") if row["target"] == number]
        seen = [look for row in reader.table_rows("panel") if row["target"] == number and (look := look_of(row))]
        found = told(drawn, mappings_over(reader, number))
        return found | {"footprint": footprint(rows, start_ns), "panel": panel(seen, start_ns)}

    def pyramid(self, number: int) -> Pyramid:
        """The target's; `Missing` if it is not drawn."""
        return self._drawn(number).pyramid

    def plane(self, number: int, level: int) -> U8:
        """All cells of a level, uint8 [columns, cells]; `Missing` if there is none, or it has too many to be one."""
        drawn = self._drawn(number)
        levels = drawn.pyramid.levels
        if level >= len(levels) or len(levels[level]) > _MOST_COLUMNS:
            raise Missing("there is no such plane")
        with drawn.lock:
            return levels[level].copy()

    def tile(self, number: int, level: int, shrink: int, column: int, row: int) -> U8:
        """As `Pyramid.tile`; negative levels are finer than the finest, a negative ``shrink`` divides cells.

        Raises `Missing` where there is none.
        """
        drawn = self._drawn(number)
        pyramid = drawn.pyramid
        try:
            if level >= 0:
                with drawn.lock:
                    return pyramid.tile(level, shrink, column, row)
            return self._finer(pyramid, number, -level, -shrink, column, row)
        except ValueError as error:
            raise Missing(str(error)) from None

    def _finer(self, pyramid: Pyramid, number: int, finer: int, stretch: int, column: int, row: int) -> U8:
        width = pyramid.column_ns >> finer
        first = pyramid.start_ns + column * TILE * width
        if finer < FINER or not (0 <= stretch <= 12 and width and row >= 0 and column >= 0) or first >= pyramid.end_ns:
            raise ValueError("there is no such tile")
        time_ns = first + np.arange(TILE + 1, dtype=np.int64) * width
        cells = divided_cells(pyramid.axis, row, stretch)
        between = (int(time_ns[0]), int(time_ns[-1]))
        batches = self.reader().batches(columns=("unknown",), target=number, between=between)
        found = exact(batches, time_ns, *cells)
        whole = np.zeros((TILE, TILE), np.uint8)
        whole[:, : found.shape[1]] = found
        return whole

    def at(self, number: int, time_ns: int) -> dict[str, Any]:
        """The regions of the target at a time since the start: those of the snapshot then, or the last one before."""
        pyramid = self._drawn(number).pyramid
        when = pyramid.start_ns + time_ns
        snapshot = self._snapshot_at(number, when)
        found = regions(snapshot, pyramid.start_ns)
        del found["regions"][_MOST_REGIONS:]
        return found

    def _snapshot_at(self, number: int, when: int) -> Snapshot:
        reader = self.reader()
        times: NDArray[np.int64] = reader.frame_times()
        begun = times[(times[:, 0] <= when) & (times[:, 1] >= 0), 0]
        for low in (when, *sorted(set(begun[-_LOOKED_BACK:].tolist()), reverse=True)):
            found = None
            for batch in reader.batches(columns=_COLUMNS, target=number, between=(low, when + 1)):
                found = batch.snapshot(len(batch) - 1)
            if found is not None:
                return found
        raise Missing("there is no snapshot at that time")

    def window(self, number: int, between: tuple[int, int], low: int, high: int) -> dict[str, Any]:
        """What the mappings held in a window of time (ns since the start) and addresses: the mean over snapshots."""
        start_ns = self._drawn(number).pyramid.start_ns
        span = (start_ns + between[0], start_ns + between[1])
        snapshots = list(self._spread(number, span))
        if not snapshots:
            raise Missing("there is no snapshot in that window")
        mappings = self.reader().mappings_at(number, span[1])
        rows = held_by_mapping(snapshots, mappings, low, high)
        return {"snapshots": len(snapshots), "mappings": rows, "named": bool(mappings)}

    def _spread(self, number: int, span: tuple[int, int]) -> Iterator[Snapshot]:
        """Some snapshots of a time, evenly."""
        reader = self.reader()
        batches = reader.batches(columns=_COLUMNS, target=number, between=span, sample_rows=_WINDOW_ROWS)
        held = [batch.snapshot(at) for batch in batches for at in range(len(batch))]
        for low, high in moments((0, len(held)), _AVERAGED) if held else ():
            yield held[(low + high) // 2]

    def what_if(self, number: int) -> dict[str, Any]:
        """What taking idle memory of the target would save and bring back: a pass, whose answer is kept."""
        self._drawn(number)
        version, began_s = self.version, time.monotonic()
        known = self._what_if.get(number)
        if known is not None and (known[0] == version or (self.growing and began_s < known[1])):
            return known[2]
        # While it grows, the reader may be closed before this has come to its end.
        with open_record(self.path) if self.growing else contextlib.nullcontext(self.reader()) as reader:
            found = curves(what_if(reader, target=number), acted(reader))
        now_s = time.monotonic()
        self._what_if[number] = (version, now_s + max(_FRESH_S, _FRESH * (now_s - began_s)), found)
        return found

    def schemes(self) -> list[dict[str, Any]]:
        """The last statistics of each scheme; empty if none was running."""
        last: dict[int, dict[str, Any]] = {}
        for row in self.reader().table_rows("schemes"):
            last[row["scheme"]] = row
        return [
            {
                "name": printable(row["name"] or row["action"]),
                "action": printable(row["action"]),
                "active": row["active"],
                "tried_bytes": row["sz_tried"],
                "applied_bytes": row["sz_applied"],
                "quota_exceeded": row["qt_exceeds"],
                "quota_bytes": row["effective_bytes"],
            }
            for _, row in sorted(last.items())
        ]

    def _drawn(self, number: int) -> Drawn:
        found = self.drawn.get(number)
        if found is None:
            raise Missing("there is no such target")
        return found
