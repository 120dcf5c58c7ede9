"""Memory traces: a program run under ``valgrind --tool=lackey --trace-mem=yes``.

Exact, unprivileged, works anywhere, and slow: about a million instructions a second. Lackey prints a line per
instruction and per data access (valgrind's manual, chapter Lackey; ``lk_main.c``)::

    I  04001ab7,5        fetch of an instruction: address (hex), size (bytes)
     L 1ffefff778,8      load
     S 1ffefff770,8      store
     M 04222a90,4        modify: load and store of the same address; we count one write

Time is instruction time: one instruction is ``ns_per_instruction`` (1) nanoseconds, so that a sampling interval of 5 ms
means 5 million instructions. The trace names neither CPU nor node; which thread runs is said by ``--trace-sched=yes``
(threads are numbered from 1 in the order of their start, as in valgrind's messages). Accesses that the kernel makes on
behalf of the program (system calls) are not in it, nor are those of other processes that it starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.ops.reported.reports import ADDRESS_LIMIT, NOBODY
from pydamon.ops.reported.sources.base import Block, LineCounts, LineReader

_PAD = 16  # the longest address, so that looking back from a line's end stays within the array
_INVALID = 0xFF
_HEX = np.full(256, _INVALID, np.uint8)
for _digit, _char in enumerate(b"0123456789abcdef"):
    _HEX[_char] = _digit
_HIGH_NIBBLES = np.uint64(0xF0F0_F0F0_F0F0_F0F0)
# "--123--   SCHED[2]:  acquired lock (…)": from here on thread 2 runs.
_ACQUIRED = re.compile(rb"--\d{1,10}--\s+SCHED\[(\d{1,6})\]:\s+acquired lock")
_MESSAGE_STARTS = np.frombuffer(b"=-*", np.uint8)  # ==pid== and so on: valgrind's own messages

Start = Callable[[list[str], Sequence[int]], "subprocess.Popen[bytes]"]


@dataclass(slots=True)
class Parsed:
    """The accesses of some lines, in their order. ``instruction`` counts from ``first_instruction``, shape (n,)."""

    address: NDArray[np.uint64]
    size: NDArray[np.uint64]
    is_write: NDArray[np.bool_]
    is_fetch: NDArray[np.bool_]
    thread: NDArray[np.int32]


class LackeyParser:
    """Turns whole lines into columns; keeps the thread that runs from call to call."""

    def __init__(self, counts: LineCounts) -> None:
        self._counts = counts
        self._thread = NOBODY

    def parse(self, data: bytes) -> Parsed:
        """``data`` consists of lines that all end with a newline. Lines of another form are counted as garbage."""
        text = np.frombuffer(bytes(_PAD) + data + bytes(_PAD), np.uint8)
        end = np.flatnonzero(text == ord("\n"))
        start = np.empty_like(end)
        start[:1] = _PAD
        start[1:] = end[:-1] + 1
        first, second, third = text[start], text[start + 1], text[start + 2]
        is_fetch = (first == ord("I")) & (second == ord(" "))
        is_data = (first == ord(" ")) & ((second == ord("L")) | (second == ord("S")) | (second == ord("M")))
        comma, size = _sizes(text, end)
        digits = comma - start - 3
        good = (is_fetch | is_data) & (third == ord(" ")) & (size > 0) & (digits >= 1) & (digits <= 16)
        # Nearly always all lines are good: then nothing has to be picked out.
        rows: slice | NDArray[np.intp] = slice(None) if good.all() else np.flatnonzero(good)
        address, valid = _addresses(text, comma[rows], digits[rows])
        valid &= address <= np.uint64(ADDRESS_LIMIT) - size[rows]
        if not valid.all():
            rows = np.flatnonzero(good)[valid]
            address = address[valid]
        thread = np.full(len(start), self._thread, np.int32)
        if len(address) < len(start):
            good = np.zeros(len(start), np.bool_)
            good[rows] = True
            self._understand_others(data, start - _PAD, end - _PAD, np.flatnonzero(~good), thread)
        self._counts.accesses += len(address)
        return Parsed(address, size[rows], second[rows] >= ord("M"), is_fetch[rows], thread[rows])

    def _understand_others(
        self,
        data: bytes,
        start: NDArray[np.intp],
        end: NDArray[np.intp],
        others: NDArray[np.intp],
        thread: NDArray[np.int32],
    ) -> None:
        """Messages of valgrind: some of them tell the thread, which is written into ``thread`` from there on."""
        text = np.frombuffer(data, np.uint8)
        is_message = np.isin(text[start[others]], _MESSAGE_STARTS)
        for line in others[is_message].tolist():
            match = _ACQUIRED.match(data, start[line], end[line])
            if match:
                self._thread = int(match[1])
                thread[line:] = self._thread
        self._counts.skipped += int(is_message.sum())
        garbage = others[~is_message]
        if len(garbage):
            self._counts.note_garbage(
                len(garbage), data[start[garbage[0]] : min(end[garbage[0]], start[garbage[0]] + 80)]
            )


def _sizes(text: NDArray[np.uint8], end: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Per line the place of its comma and the number of 1 to 4 digits behind it (0 if it is none)."""
    comma, size = end - 2, np.zeros(len(end), np.uint64)
    value = (text[end - 1] - np.uint8(ord("0"))).astype(np.uint64)  # what is no digit wraps to more than 9
    rows = np.flatnonzero((text[comma] != ord(",")) | (value > 9))
    size[:] = value
    # The few with more than one digit; what is still here after four keeps 0.
    size[rows] = 0
    value = value[rows]
    for width in range(2, 5):
        digit = text[end[rows] - width] - np.uint8(ord("0"))
        digits_only = (digit <= 9) & (value < 10 ** (width - 1))
        rows = rows[digits_only]
        value = value[digits_only] + digit[digits_only] * np.uint64(10 ** (width - 1))
        at_comma = text[end[rows] - width - 1] == ord(",")
        comma[rows[at_comma]] = end[rows[at_comma]] - width - 1
        size[rows[at_comma]] = value[at_comma]
        rows, value = rows[~at_comma], value[~at_comma]
    return comma, size


def _addresses(
    text: NDArray[np.uint8], comma: NDArray[np.intp], digits: NDArray[np.intp]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The hexadecimal numbers of ``digits`` characters before each comma, and which of them are numbers."""
    windows = np.lib.stride_tricks.sliding_window_view(text, 8)
    low, bad = _eight_digits(windows[comma - 8], digits)
    long = np.flatnonzero(digits > 8)
    if len(long):
        high, high_bad = _eight_digits(windows[comma[long] - 16], digits[long] - 8)
        low[long] |= high << np.uint64(32)
        bad[long] |= high_bad
    return low, ~bad


def _eight_digits(chars: NDArray[np.uint8], digits: NDArray[np.intp]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Numbers from the last ``digits`` of 8 characters each, shape (n, 8); and which of them are none."""
    values = _HEX[chars]
    short = np.flatnonzero(digits < 8)
    if len(short):
        before = np.arange(8) < 8 - digits[short][:, None]
        values[short] = np.where(before, np.uint8(0), values[short])
    # Eight nibbles, one per byte, are moved together in three steps, all numbers at once.
    packed = values.view(">u8").astype(np.uint64).ravel()
    bad = (packed & _HIGH_NIBBLES) != 0
    packed = (packed | packed >> np.uint64(4)) & np.uint64(0x00FF_00FF_00FF_00FF)
    packed = (packed | packed >> np.uint64(8)) & np.uint64(0x0000_FFFF_0000_FFFF)
    packed = (packed | packed >> np.uint64(16)) & np.uint64(0x0000_0000_FFFF_FFFF)
    return packed, bad


class LackeyTrace:
    """The trace as a source, from a descriptor that it then owns; ``process`` is ended and waited for on ``close``.

    Without ``fetches`` only data accesses are told; instructions still make the time.
    """

    name = "valgrind"
    complete = True
    nr_targets = 1

    def __init__(
        self,
        fd: int,
        *,
        process: subprocess.Popen[bytes] | None = None,
        ns_per_instruction: int = 1,
        fetches: bool = True,
    ) -> None:
        if not 1 <= ns_per_instruction <= 10**9:
            raise RequestError(f"is {ns_per_instruction}; it must be 1 to 10**9", where="ns_per_instruction")
        self.counts = LineCounts()
        self.process = process
        ended = None if process is None else lambda: process.poll() is not None
        self._reader = LineReader(fd, self.counts, ended=ended)
        self._parser = LackeyParser(self.counts)
        self._instructions = 0
        self._ns = ns_per_instruction
        self._fetches = fetches

    @property
    def instructions(self) -> int:
        """How many the trace has shown so far."""
        return self._instructions

    def read(self) -> Block | None:
        """The next block; None at the end of the trace."""
        data = self._reader.read()
        if data is None:
            return None
        rows = self._parser.parse(data)
        count = np.cumsum(rows.is_fetch)
        # A data access belongs to the instruction before it.
        when_ns = np.maximum(count + (self._instructions - 1), 0) * self._ns
        self._instructions += int(count[-1]) if len(count) else 0
        block = Block(
            address=rows.address,
            size=rows.size,
            when_ns=when_ns,
            is_write=rows.is_write,
            # The last instruction's data accesses may be in the next block.
            end_ns=max(self._instructions - 1, 0) * self._ns,
            thread=rows.thread,
        )
        return block if self._fetches else _without(block, rows.is_fetch)

    def close(self) -> None:
        """Close the trace. A command that still runs gets SIGTERM, then SIGKILL."""
        self._reader.close()  # a trace that nobody reads stops its writer
        if self.process is None:
            return
        if self._reader.at_end:  # it is about to exit by itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _without(block: Block, which: NDArray[np.bool_]) -> Block:
    keep = ~which
    assert block.thread is not None
    return Block(
        address=block.address[keep],
        size=block.size[keep],
        when_ns=block.when_ns[keep],
        is_write=block.is_write[keep],
        end_ns=block.end_ns,
        thread=block.thread[keep],
    )


def probe() -> str:
    """The path of valgrind; raises MachineError naming the package if it is not there."""
    path = shutil.which("valgrind")
    if path is None:
        raise MachineError("is not installed; on Debian and Ubuntu: apt-get install valgrind", where="valgrind")
    return path


def launch(
    command: Sequence[str], *, start: Start | None = None, ns_per_instruction: int = 1, fetches: bool = True
) -> LackeyTrace:
    """Start ``command`` under valgrind and read its trace from a pipe; its own output goes where ours does.

    ``start(command, pass_fds)`` starts a process (as another user, for example). Raises MachineError without valgrind,
    RequestError for a command that there is not.
    """
    valgrind = probe()
    if not command or "\0" in "".join(command):
        raise RequestError("is not a command", where=repr(command[0]) if command else "--")
    if shutil.which(command[0]) is None:  # valgrind itself would say so in three lines, with status 127
        raise RequestError("cannot be run: there is no such program", where=command[0])
    read_fd, write_fd = os.pipe()
    options = ["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", "--trace-sched=yes"]
    # Two processes in one trace could not be told apart: of a fork only the parent is traced.
    options += ["--child-silent-after-fork=yes", "--trace-children=no", f"--log-fd={write_fd}"]
    try:
        process = (start or _start)([valgrind, *options, "--", *command], (write_fd,))
    except BaseException as error:
        os.close(read_fd)
        if isinstance(error, OSError):
            raise MachineError(f"cannot be run: {error.strerror}", where=valgrind) from None
        raise
    finally:
        os.close(write_fd)
    return LackeyTrace(read_fd, process=process, ns_per_instruction=ns_per_instruction, fetches=fetches)


def open_trace(path: str, *, ns_per_instruction: int = 1, fetches: bool = True) -> LackeyTrace:
    """A trace that was written to a file before (``--log-file``); raises RequestError if it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read: {getattr(error, 'strerror', error)}", where=path) from None
    return LackeyTrace(fd, ns_per_instruction=ns_per_instruction, fetches=fetches)


def _start(command: list[str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, pass_fds=pass_fds)
