"""A recording in parts: a new file after so many bytes or so much time, readable as one (`records.joined`)."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from types import TracebackType
from typing import Any

import pyarrow as pa

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.linux.process import Mapping
from pydamon.records.writer import RecordWriter, check_output

_PATIENCE_NS = 10_000_000_000  # before the first try to go on after a pause
_MOST_PATIENCE_NS = 300_000_000_000


def part_name(path: str, number: int) -> str:
    """The name of a part, counted from 1: ``run.0001.damon`` for ``run.damon``."""
    stem, extension = os.path.splitext(path)
    return f"{stem}.{number:04d}{extension}"


def parts_of(path: str) -> str:
    """A pattern that matches the names of all parts of ``run.damon``, and nothing else that is recorded there."""
    stem, extension = os.path.splitext(path)
    return f"{glob.escape(stem)}.[0-9][0-9][0-9][0-9]*{glob.escape(extension)}"


class RotatingWriter:
    """Writes like a `RecordWriter`, into parts of at most about ``max_bytes`` or ``max_ns`` (of the snapshots' clock).

    Each part is a whole record: it begins with the description, all targets that live, and their mappings. With
    ``keep`` only the newest so many parts stay; ``keep_old`` is about those of an earlier series. Raises like
    `RecordWriter`; but with ``say`` a part that cannot be written to any more, as on a full disk, only makes a pause,
    which is said: later a new part is begun, what came meanwhile is missing.
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
        say: Callable[[str], object] | None = None,
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
        self._say = say
        self._paused = False
        self._patience_ns = _PATIENCE_NS
        self._pause_ns: int | None = None  # the time of the last try, once it is known
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
        path = part_name(self._base, self._number + 1)
        check_output(path, keep_old=self._keep_old)
        metadata = self._metadata | {"targets": list(self._targets.values())}
        writer = RecordWriter(path, metadata=metadata, keep_old=self._keep_old)
        self._number += 1
        if self._keep is not None:
            self._parts.append(path)
            while len(self._parts) > self._keep:
                with contextlib.suppress(OSError):  # somebody else may have taken it away
                    os.unlink(self._parts.popleft())
        return writer

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Record one snapshot."""
        if self._paused:
            return
        with self._pausing():
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
            self._begin_next(now_ns)

    def _begin_next(self, now_ns: int) -> None:
        writer = self._next()
        self._written += self._writer.bytes_written
        self._writer = writer
        self._began_ns = now_ns
        for target, mappings in self._mappings.items():
            self._writer.add_mappings(now_ns, target, mappings)

    # -- where nothing can be written ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _pausing(self) -> Iterator[None]:
        """What cannot be written in here makes a pause, where there may be one."""
        try:
            yield
        except PydamonError as error:
            if self._say is None:
                raise
            with contextlib.suppress(PydamonError):  # it has said what is wrong
                self._writer.close()
            if not self._paused:
                self._say(f"recording pauses: {error}")
            self._paused, self._pause_ns = True, None

    def _go_on(self, now_ns: int) -> None:
        """Try to begin a new part, now and then; less often, the more often that was in vain."""
        if self._pause_ns is None:
            self._pause_ns = now_ns
        if not 0 <= now_ns - self._pause_ns < self._patience_ns:
            self._pause_ns = now_ns
            self._patience_ns = min(2 * self._patience_ns, _MOST_PATIENCE_NS)
            try:
                self._begin_next(now_ns)
            except PydamonError:  # that is known
                with contextlib.suppress(PydamonError):
                    self._writer.close()
                return
            self._paused = False
            if self._say is not None:
                self._say(f"recording goes on in {self.path}")

    # -- the rest of a writer -----------------------------------------------------------------------------------------

    def add_mappings(self, time_ns: int, target: int, mappings: Sequence[Mapping]) -> None:
        """Record the mappings of a target from that time on."""
        if mappings:
            self._mappings[target] = mappings
        if self._paused:
            return
        with self._pausing():
            self._writer.add_mappings(time_ns, target, mappings)

    def forget_except(self, targets: Iterable[int]) -> None:
        """Drop what is kept about targets but these: the others have ended, and later parts do not name them."""
        keep = set(targets)
        self._mappings = {target: kept for target, kept in self._mappings.items() if target in keep}
        self._targets = {target: kept for target, kept in self._targets.items() if target in keep}
        self._writer.forget_except(keep)

    def add_table(self, name: str, table: pa.Table, *, time_ns: int | None = None, target: int | None = None) -> None:
        """Record a piece of a declared side table."""
        if not self._paused:
            self._writer.add_table(name, table, time_ns=time_ns, target=target)

    def add_rows(self, name: str, rows: Sequence[AnyMapping[str, Any]], *, time_ns: int | None = None) -> None:
        """Record rows of a side table; targets that join are named in all later parts, too, as long as they live."""
        if name == "targets":
            for row in rows:
                self._targets[row["target"]] = {key: value for key, value in row.items() if key != "time_ns"}
        if not self._paused:
            self._writer.add_rows(name, rows, time_ns=time_ns)

    def tick(self, now_ns: int) -> None:
        """Flush if the last flush is a second ago; in a pause, try to go on."""
        if self._paused:
            self._go_on(now_ns)
            return
        with self._pausing():
            self._writer.tick(now_ns)
        if self._began_ns is not None and now_ns - self._began_ns > _MOST_PATIENCE_NS:
            self._patience_ns = _PATIENCE_NS

    def close(self) -> None:
        """Close the newest part."""
        with self._pausing():
            self._writer.close()

    def __enter__(self) -> RotatingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._pausing():
            self._writer.__exit__(kind, error, trace)
