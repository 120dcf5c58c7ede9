"""A recording in parts: a new file after so many bytes or so much time, readable as one (`records.joined`)."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as AnyMapping
from types import TracebackType
from typing import Any

import pyarrow as pa

from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.writer import RecordWriter, check_output


def part_name(path: str, number: int) -> str:
    """The name of a part, counted from 1: ``run.0001.damon`` for ``run.damon``."""
    stem, extension = os.path.splitext(path)
    return f"{stem}.{number:04d}{extension}"


class RotatingWriter:
    """Writes like a `RecordWriter`, into parts of at most about ``max_bytes`` or ``max_ns`` (of the snapshots' clock).

    Each part is a whole record: it begins with the description, all targets that have joined, and their mappings. With
    ``keep`` only the newest so many parts stay; ``keep_old`` is about those of an earlier series. Raises like
    `RecordWriter`.
    """

    def __init__(
        self,
        path: str,
        *,
        metadata: AnyMapping[str, Any],
        max_bytes: int | None = None,
        max_ns: int | None = None,
        keep: int | None = None,
        keep_old: bool = False,
    ) -> None:
        self._base = path
        self._metadata = dict(metadata)
        self._targets = {target["target"]: dict(target) for target in metadata["targets"]}
        self._max_bytes, self._max_ns, self._keep, self._keep_old = max_bytes, max_ns, keep, keep_old
        self._mappings: dict[int, Sequence[Mapping]] = {}
        self._parts: deque[str] = deque()
        self._number = 0
        self._began_ns: int | None = None
        self._written = 0
        self.before_next: Callable[[], object] = lambda: None  # called while the part that ends can be written to
        self._writer = self._next()

    @property
    def path(self) -> str:
        """The name of the newest part."""
        return self._writer.path

    @property
    def kept(self) -> str | None:
        """What the newest part has replaced is kept there, as `RecordWriter.kept`."""
        return self._writer.kept

    @property
    def bytes_written(self) -> int:
        """Bytes in all parts, also in those that were not kept."""
        return self._written + self._writer.bytes_written

    def _next(self) -> RecordWriter:
        self._number += 1
        path = part_name(self._base, self._number)
        check_output(path, keep_old=self._keep_old)
        metadata = self._metadata | {"targets": list(self._targets.values())}
        writer = RecordWriter(path, metadata=metadata, keep_old=self._keep_old)
        self._parts.append(path)
        while self._keep is not None and len(self._parts) > self._keep:
            with contextlib.suppress(OSError):  # somebody else may have taken it away
                os.unlink(self._parts.popleft())
        return writer

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Record one snapshot."""
        self._begin(snapshot.start_ns)
        self._writer.add_snapshot(snapshot)

    def _begin(self, now_ns: int) -> None:
        """A new part, if this one is large or long enough."""
        if self._began_ns is None:
            self._began_ns = now_ns
            return
        large = self._max_bytes is not None and self._writer.bytes_written >= self._max_bytes
        if large or (self._max_ns is not None and now_ns - self._began_ns >= self._max_ns):
            self.before_next()
            self._writer.close()
            self._written += self._writer.bytes_written
            self._writer = self._next()
            self._began_ns = now_ns
            for target, mappings in self._mappings.items():
                self._writer.add_mappings(now_ns, target, mappings)

    def add_mappings(self, time_ns: int, target: int, mappings: Sequence[Mapping]) -> None:
        """Record the mappings of a target from that time on."""
        if mappings:
            self._mappings[target] = mappings
        self._writer.add_mappings(time_ns, target, mappings)

    def forget_mappings_except(self, targets: Iterable[int]) -> None:
        """Drop what is kept about targets that have ended."""
        keep = set(targets)
        self._mappings = {target: kept for target, kept in self._mappings.items() if target in keep}
        self._writer.forget_mappings_except(keep)

    def add_table(self, name: str, table: pa.Table, *, time_ns: int | None = None, target: int | None = None) -> None:
        """Record a piece of a declared side table."""
        self._writer.add_table(name, table, time_ns=time_ns, target=target)

    def add_rows(self, name: str, rows: Sequence[AnyMapping[str, Any]], *, time_ns: int | None = None) -> None:
        """Record rows of a side table; targets that join are named in all later parts, too."""
        if name == "targets":
            for row in rows:
                self._targets[row["target"]] = {key: value for key, value in row.items() if key != "time_ns"}
        self._writer.add_rows(name, rows, time_ns=time_ns)

    def tick(self, now_ns: int) -> None:
        """Flush if the last flush is a second ago."""
        self._writer.tick(now_ns)

    def close(self) -> None:
        """Close the newest part."""
        self._writer.close()

    def __enter__(self) -> RotatingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
