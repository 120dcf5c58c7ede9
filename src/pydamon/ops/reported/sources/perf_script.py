"""Address samples: what ``perf script`` prints of a ``perf mem record``, from a file or a pipe.

A line is one sample. With the fields that we ask for (``FIELDS``), and with perf's default ones::

    redis 712/714  [003]  6618.271331:  cpu/mem-loads,ldlat=30/P:  7f8a01766b70  68100142 |OP LOAD|LVL L1 hit|…  7
    redis 714 [003] 6618.271331:  1  mem-loads:u:  7f8a01766b70  68100142 |OP LOAD|LVL L1 …|…  7   401136 f+0x6 (a.out)

A single number after the command is the thread's id: of which process, such a line does not say. Loads and stores are
told apart by ``|OP STORE``, else by the event's name. Samples say nothing about what was not accessed: see
``ops/reported.py`` for what is made of them. The CPU is in brackets; the node is that of the CPU on this machine
(``nodes_of_cpus``), since perf does not print it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.linux.online_cpus import nodes_of_cpus
from pydamon.ops.reported.reports import NOBODY
from pydamon.ops.reported.sources.base import Block, LineCounts, LineReader

FIELDS = "comm,pid,tid,cpu,time,event,addr,data_src,weight"

# Blanks are taken possessively: a hostile line of many must not be tried in all partitions.
_SAMPLE = re.compile(
    rb"^[ \t]*+(?P<comm>[^\n]{1,64}?)[ \t]++(?:(?P<pid>\d{1,10})/)?(?P<tid>\d{1,10})[ \t]++"
    rb"(?:\[(?P<cpu>\d{1,5})\][ \t]++)?(?P<second>\d{1,9})\.(?P<part>\d{1,9}):[ \t]++"
    rb"(?:\d{1,20}[ \t]++)?(?P<event>[^\s:][^\s]{0,200}):(?:[ \t]++(?P<rest>[^\n]*))?$",
    re.MULTILINE,
)
_ADDRESS = re.compile(rb"([0-9a-f]{1,16})(?:[ \t]++(.*))?$")
# What follows an address: nothing, the data source, or the numbers of other fields. An instruction pointer alone, as
# perf prints it for all other events, is followed by a symbol (and "+0x10" and a file in parentheses).
_AFTER_ADDRESS = re.compile(rb"\|OP |(?:^|[ \t])(?:\d+|[0-9a-f]{8,16})(?:[ \t]|$)")
# Events whose lone number is an instruction pointer.
_NEVER = re.compile(rb"^(?:cpu[-_])?(?:cycles|instructions|clock|task-clock|branch|bus-cycles|context-switches)")
_WRITE = re.compile(rb"store|write", re.IGNORECASE)

_HOPELESS = 1000  # samples of other events, and none of ours, after which we give up
_LEAP_NS = 3600 * 10**9
_FEW = 100
_USER_LIMIT = 1 << 63  # addresses above are the kernel's
_SIZE = 1  # the width of an access is not printed; an unaligned one may touch the next page, which is rare


class PerfScript:
    """Samples as a source, from a descriptor that it then owns.

    ``pids`` are the processes that are targets 0, 1, …; without them all samples belong to one target, which must be
    one process: lines of a second process id are skipped and counted. ``event``: a regular expression that the event's
    name must match. Raises RequestError from ``read`` if there are samples but none with an address.
    """

    name = "perf-script"
    complete = False

    def __init__(
        self,
        fd: int,
        *,
        pids: Sequence[int] = (),
        event: str | None = None,
        nodes_of_cpus: Mapping[int, int] | None = None,
    ) -> None:
        try:
            self._event = re.compile(event.encode()) if event is not None else None
        except re.error as error:
            raise RequestError(f"is not a regular expression: {error}", where="event") from None
        self.nr_targets = max(len(pids), 1)
        self.counts = LineCounts()
        self.without_address = 0  # samples of which the hardware told no address, or the kernel's
        self._reader = LineReader(fd, self.counts)
        self._target_of: dict[int, int] = {pid: target for target, pid in enumerate(pids)}
        self._first_pid_is_it = not pids
        self._nodes = dict(nodes_of_cpus or {})
        self._other_event = ""
        self._nr_other = 0
        self._last_ns = 0

    def read(self) -> Block | None:
        """The next block; None at the end."""
        data = self._reader.read()
        if data is None:
            if self._other_event and not self.counts.accesses:
                raise self._wrong_event()
            return None
        block = self._parse(data)
        if self._nr_other >= _HOPELESS and not self.counts.accesses:
            raise self._wrong_event()
        return block

    def _wrong_event(self) -> RequestError:
        return RequestError(
            f"has samples of {self._other_event!r}, which carry no data address; record with perf mem record and "
            f"print with perf script -F {FIELDS}",
            where="perf script",
        )

    def _parse(self, data: bytes) -> Block:
        rows: list[tuple[int, int, int, int, int, bool]] = []  # target, thread, cpu, when, address, is_write
        understood = 0
        for match in _SAMPLE.finditer(data):
            understood += 1
            row = self._understand(match)
            if row is not None:
                rows.append(row)
        self._note_others(data, understood)
        table = np.array([row[:4] for row in rows], np.int64).reshape(-1, 4)
        address = np.array([row[4] for row in rows], np.uint64)
        is_write = np.array([row[5] for row in rows], np.bool_)
        keep = self._without_leaps(table[:, 3])
        order = keep[np.argsort(table[keep, 3], kind="stable")]
        table, address, is_write = table[order], address[order], is_write[order]
        self.counts.accesses += len(order)
        if len(order):
            self._last_ns = max(self._last_ns, int(table[-1, 3]))
        cpu = table[:, 2].astype(np.int32)
        return Block(
            address=address,
            size=np.full(len(address), _SIZE, np.uint64),
            when_ns=np.ascontiguousarray(table[:, 3]),
            is_write=is_write,
            end_ns=self._last_ns,
            target=table[:, 0].astype(np.uint16),
            cpu=cpu,
            node=np.array([self._nodes.get(c, NOBODY) for c in cpu.tolist()], np.int32),
            thread=table[:, 1].astype(np.int32),
        )

    def _understand(self, match: re.Match[bytes]) -> tuple[int, int, int, int, int, bool] | None:
        """One sample as a row, or None if it is none of ours."""
        event = match["event"]
        rest = _ADDRESS.match((match["rest"] or b"").rstrip())
        if rest is None or (self._event is not None and not self._event.search(event)):
            self._note_other(event)
            return None
        after = rest[2]
        if (after is None and _NEVER.match(event)) or (after is not None and not _AFTER_ADDRESS.search(after)):
            self._note_other(event)
            return None
        thread = int(match["tid"])
        target = self._target(None if match["pid"] is None else int(match["pid"]))
        if target is None or thread >= 2**31:
            self.counts.skipped += 1
            return None
        address = int(rest[1], 16)
        if not 4096 <= address < _USER_LIMIT:
            self.without_address += 1
            self.counts.skipped += 1
            return None
        when_ns = int(match["second"]) * 10**9 + int(match["part"].ljust(9, b"0"))
        operation = after if after is not None and b"|OP " in after else None
        is_write = b"|OP STORE" in operation if operation is not None else bool(_WRITE.search(event))
        cpu = NOBODY if match["cpu"] is None else int(match["cpu"])
        return target, thread, cpu, when_ns, address, is_write

    def _note_other(self, event: bytes) -> None:
        self.counts.skipped += 1
        self._nr_other += 1
        self._other_event = self._other_event or event.decode("ascii", "backslashreplace")

    def _target(self, pid: int | None) -> int | None:
        if pid is None:
            if self._first_pid_is_it:
                return 0
            raise RequestError(
                f"shows no process ids, so that {len(self._target_of)} cannot be picked out; print it with -F {FIELDS}",
                where="perf script",
            )
        if self._first_pid_is_it and not self._target_of:
            self._target_of[pid] = 0
        return self._target_of.get(pid)

    def _note_others(self, data: bytes, understood: int) -> None:
        """Count the lines that are no samples: empty ones and comments are part of the format."""
        if data.count(b"\n") == understood:
            return
        for line in data.split(b"\n"):
            if line.strip() and not line.startswith(b"#") and not _SAMPLE.match(line):
                self.counts.note_garbage(1, line)

    def _without_leaps(self, when_ns: NDArray[np.int64]) -> NDArray[np.intp]:
        """Indices of the samples, without those few whose time leaps by more than an hour away from the others.

        One damaged time would make all that follow late. When many leap, time has really passed.
        """
        if not len(when_ns):
            return np.arange(0)
        if self._last_ns:
            leaps = when_ns > self._last_ns + _LEAP_NS
        else:
            leaps = np.abs(when_ns - int(np.median(when_ns))) > _LEAP_NS
        count = int(leaps.sum())
        if not 0 < count < min(_FEW, len(when_ns) / 2):
            return np.arange(len(when_ns))
        self.counts.note_garbage(count, b"a time far from its neighbours")
        return np.flatnonzero(~leaps)

    def close(self) -> None:
        """Close the descriptor."""
        self._reader.close()


def open_script(path: str, *, pids: Sequence[int] = (), event: str | None = None) -> PerfScript:
    """What was printed to ``path``, a file or a named pipe (``-``: standard input); raises RequestError."""
    try:
        fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read: {getattr(error, 'strerror', error)}", where=path) from None
    try:
        return PerfScript(fd, pids=pids, event=event, nodes_of_cpus=nodes_of_cpus())
    except BaseException:
        os.close(fd)
        raise
