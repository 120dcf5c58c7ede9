"""CPU samples: what ``perf script`` prints of a ``perf record``, one symbol a sample.

A sample is a line with command, thread, time and event, and either on that line or, with call chains, on the next ones
the instruction pointer, its symbol and file; the first is where the CPU was:

    redis 712/714 6618.271331:   5000000 cpu-clock:
            7f8a01766b70 memcpy+0x10 (/usr/lib/libc.so.6)
            55e8d62ae330 lookup+0x20 (/usr/bin/redis)

Times are those of perf's clock: only ``perf record -k CLOCK_MONOTONIC`` has the records' one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.ops.reported.sources.base import LineCounts, LineReader

UNKNOWN = "[unknown]"
OTHERS = "[others]"

# Blanks are taken possessively: a hostile line of many must not be tried in all partitions.
_HEAD = re.compile(
    rb"^[ \t]*+[^\n]{1,64}?[ \t]++(?:(\d{1,10})/)?(\d{1,10})[ \t]++(?:\[\d{1,5}\][ \t]++)?"
    rb"(\d{1,9})\.(\d{1,9}):[ \t]++(?:\d{1,20}[ \t]++)?[^\s:][^\s]{0,200}:(?:[ \t]++([^\n]*))?$"
)
_FRAME = re.compile(rb"^[ \t]*+[0-9a-f]{1,16}[ \t]++([^\n]{1,2000})$")
_OFFSET = re.compile(rb"\+0x[0-9a-f]{1,16}$")
# So many symbols are told apart.
_MOST_SYMBOLS = 1 << 16


@dataclass(slots=True)
class CpuSamples:
    """A piece of the samples: parallel ``time_ns`` (int64), ``pid`` (-1 unknown) and ``symbol`` (numbers of names)."""

    time_ns: NDArray[np.int64]
    pid: NDArray[np.int64]
    symbol: NDArray[np.int64]


@dataclass(slots=True)
class CpuSampleReader:
    """Reads samples from a file of ``perf script`` text. ``names`` grows while reading."""

    path: str
    names: list[str] = field(default_factory=lambda: [UNKNOWN, OTHERS])
    counts: LineCounts = field(default_factory=LineCounts)
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _open: tuple[int, int] | None = None  # time and pid of the sample whose symbol is still to come

    def pieces(self) -> Iterator[CpuSamples]:
        """All samples, many at a time. Raises RequestError if the file cannot be read."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", "embedded null byte")
            raise RequestError(f"{self.path} cannot be opened: {reason}", where="perf") from None
        reader = LineReader(fd, self.counts)
        try:
            while (data := reader.read()) is not None:
                yield self._parse(data)
        except OSError as error:
            raise RequestError(f"{self.path} cannot be read: {error.strerror}", where="perf") from None
        finally:
            reader.close()
        if self._open is not None:
            yield self._piece([(*self._open, 0)])

    def _parse(self, data: bytes) -> CpuSamples:
        rows: list[tuple[int, int, int]] = []
        for line in data.splitlines():
            head = _HEAD.match(line)
            if head is not None:
                if self._open is not None:
                    rows.append((*self._open, 0))
                pid, _, seconds, part, rest = head.groups()
                time_ns = int(seconds) * 10**9 + int(part.ljust(9, b"0"))
                self._open = (time_ns, -1 if pid is None else int(pid))
                line = rest or b""
            if self._open is not None and line and (frame := _FRAME.match(line)) is not None:
                rows.append((*self._open, self._number(frame[1])))
                self._open = None
            elif head is None and line.strip() and not line.startswith((b"#", b" ", b"\t")):
                self.counts.note_garbage(1, line)
        return self._piece(rows)

    def _piece(self, rows: list[tuple[int, int, int]]) -> CpuSamples:
        self.counts.accesses += len(rows)
        columns = np.array(rows, np.int64).reshape(-1, 3)
        return CpuSamples(columns[:, 0], columns[:, 1], columns[:, 2])

    def _number(self, text: bytes) -> int:
        """The number of the symbol in ``memcpy+0x10 (/usr/lib/libc.so.6)``: its name is ``memcpy (libc.so.6)``."""
        symbol, bracket, place = text.strip().rpartition(b" (")
        if not bracket:
            symbol, place = text.strip(), b""
        key = _OFFSET.sub(b"", symbol.rstrip()) + (b" (" + place.rpartition(b"/")[2] if place else b"")
        number = self._numbers.get(key)
        if number is None:
            if len(self.names) >= _MOST_SYMBOLS:
                return 1
            number = self._numbers[key] = len(self.names)
            self.names.append(key[:300].decode("utf-8", "replace"))
        return number
