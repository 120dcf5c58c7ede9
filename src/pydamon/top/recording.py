"""A record as a history that grows with it."""

from __future__ import annotations

import contextlib
import os
import time

from pydamon.errors import PydamonError
from pydamon.records.joined import AnyReader, open_record
from pydamon.views.moments import Moment
from pydamon.views.recorded import Recorded

_PATIENCE = 20  # it is opened again after so many times what opening it took


class Growing:
    """A `History` of the record at ``path``; what is appended is seen within a second or two. In one thread.

    Raises as `open_record` does, when it is made.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader, self._recorded = self._open()
        self._size = self._size_now()

    def _open(self) -> tuple[AnyReader, Recorded]:
        began = time.monotonic()
        reader = open_record(self._path)
        try:
            recorded = Recorded(reader)
        except BaseException:
            reader.close()
            raise
        took = time.monotonic() - began
        self._due = time.monotonic() + max(1.0, _PATIENCE * took)
        return reader, recorded

    def _size_now(self) -> int:
        with contextlib.suppress(OSError):
            return os.stat(self._path).st_size
        return -1  # a pattern, standard input, or it is gone: as it was

    def latest(self) -> Moment | None:
        """See `History`."""
        if time.monotonic() >= self._due:
            size = self._size_now()
            if size != self._size:
                self._again(size)
        return self._recorded.latest()

    def _again(self, size: int) -> None:
        before = self._reader
        try:
            self._reader, self._recorded = self._open()
        except PydamonError:  # it is being replaced: what was seen stays
            self._due = time.monotonic() + 1.0
            return
        self._size = size
        before.close()

    def at(self, time_ns: int) -> Moment | None:
        """See `History`."""
        return self._recorded.at(time_ns)

    def step(self, moment: Moment, by: int) -> Moment | None:
        """See `History`."""
        return self._recorded.step(moment, by)

    def span(self) -> tuple[int, int] | None:
        """See `History`."""
        return self._recorded.span()

    def close(self) -> None:
        """Close the record."""
        self._reader.close()
