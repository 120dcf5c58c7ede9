"""Primitive ``smaps``: how much of each mapping was referenced since the kernel's accessed bits were last cleared.

Needs no privilege beyond owning the process: writing 1 to ``/proc/PID/clear_refs`` clears all accessed bits of the
process, and ``Referenced`` in ``/proc/PID/smaps`` counts them per mapping. Both walk the whole resident set, so the
cost grows with it, and a page's own state is not told: a sampled page counts as accessed with the probability that the
referenced share of its mapping gives. (On kernels with soft-dirty tracking see ``clear_refs`` for what is missed.)
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import clear_refs
from pydamon.linux.causes import cause
from pydamon.linux.process import Process
from pydamon.linux.texts import MISREAD, decode
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers, PrimitiveCost, Shared

_UNCOUNTED = re.compile(rb"\nVmFlags:[^\n]* (?:ht|pf)\b")
_GOLDEN_RATIO = (5**0.5 - 1) / 2


_Bytes = NDArray[np.uint64]


def parse_smaps(text: bytes) -> tuple[_Bytes, _Bytes, _Bytes, _Bytes]:
    """Start, end, referenced and resident bytes of each mapping in ``/proc/PID/smaps`` (proc_pid_smaps(5))."""
    spans: list[tuple[int, int]] = []
    referenced: list[int] = []
    resident: list[int] = []
    # Each mapping's block ends with its VmFlags line; a block begins with the rest of the flags before it.
    for block in (b"\n" + text).split(b"\nVmFlags:"):
        header = block[block.find(b"\n") + 1 : block.find(b" ", block.find(b"\n") + 1)]
        at = block.find(b"\nReferenced:")
        if at < 0:
            continue
        first, _, last = header.partition(b"-")
        try:
            start, end = int(first, 16), int(last, 16)
            used = int(block[at + 12 : block.index(b"kB", at)]) * 1024
            at = block.find(b"\nRss:")
            there = int(block[at + 5 : block.index(b"kB", at)]) * 1024 if at >= 0 else end - start
        except ValueError:
            MISREAD.note("/proc/PID/smaps", decode(header))
            continue
        spans.append((start, end))
        referenced.append(used)
        resident.append(there)
    bounds = np.array(spans, np.uint64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1], np.array(referenced, np.uint64), np.array(resident, np.uint64)


def uncounted(text: bytes) -> _Bytes:
    """Where those mappings begin whose pages ``Referenced`` leaves out: hugetlb, frames without struct pages."""
    starts = []
    for found in _UNCOUNTED.finditer(text):
        before = text.rfind(b"\nVmFlags:", 0, found.start())
        header = text.index(b"\n", before + 1) + 1 if before >= 0 else 0
        starts.append(int(text[header : text.index(b"-", header)], 16))
    return np.array(starts, np.uint64)


class SmapsPrimitive:
    """Watches one process through its ``smaps`` and ``clear_refs`` files. Raises MachineError if it may not.

    With ``resident_only`` the answers are those of pages in memory: not the share of the mapping that was referenced,
    but that of its resident part. smaps tells that as well.
    """

    name = "smaps"

    def __init__(self, process: Process, *, resident_only: bool = False) -> None:
        self.cost = PrimitiveCost()
        self._process = process
        self._addresses: Addresses = np.empty(0, np.uint64)
        self._phase = 0.0
        self._resident_only = resident_only
        self._smaps = -1
        self._clear_refs = -1
        try:
            self._open()
        except OSError as error:
            self.close()
            if not process.alive():
                return  # the files of a zombie are root's; that it has ended shows elsewhere
            raise MachineError(
                f"cannot use smaps on process {process.pid}: {cause(error, 'run as its owner or as root')}",
                where=error.filename,
            ) from None

    def _open(self) -> None:
        flags = os.O_CLOEXEC
        self._smaps = os.open(f"/proc/{self._process.pid}/smaps", os.O_RDONLY | flags)
        self._clear_refs = os.open(f"/proc/{self._process.pid}/clear_refs", os.O_WRONLY | flags)

    def update(self) -> None:
        """Open the files anew: after an exec the old ones show the address space that is gone."""
        self.close()
        try:
            self._open()
        except OSError:
            self.close()  # every check says "unknown" until the next update, or the process has ended

    def close(self) -> None:
        """Close the files."""
        for fd in (self._smaps, self._clear_refs):
            if fd >= 0:
                os.close(fd)
        self._smaps = self._clear_refs = -1

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Clear all accessed bits of the process; every page can be watched."""
        self._addresses = addresses
        begin = time.perf_counter_ns()
        with contextlib.suppress(OSError):  # ended or exec'ing: check will tell
            clear_refs.clear(self._clear_refs)
        spent = time.perf_counter_ns() - begin
        self.cost.clears += 1
        self.cost.clear_ns += spent
        self.cost.disturb_ns += spent  # the process cannot change its mappings meanwhile, and refills its TLB after
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        """Watch other pages; never needed, as every page can be watched."""
        self._addresses = self._addresses.copy()
        self._addresses[index] = addresses
        return np.ones(len(index), np.bool_)

    def check(self) -> Answers:
        """Accessed with the probability that the referenced share of the page's mapping gives.

        All pages of one mapping get one answer, drawn from a low-discrepancy sequence: over n checks the count is
        n × share to within about one, and neighbouring regions of a mapping do not differ by chance.
        """
        begin = time.perf_counter_ns()
        text = self._read()
        start, end, referenced, resident = parse_smaps(text)
        answers = np.full(len(self._addresses), UNKNOWN if not len(start) else NOT_ACCESSED, np.uint8)
        if len(start):
            self._phase = (self._phase + _GOLDEN_RATIO) % 1.0
            whole = np.maximum(resident, np.uint64(4096)) if self._resident_only else end - start
            share = referenced / whole
            row = np.searchsorted(end, self._addresses, "right")
            inside = row < len(start)
            row[~inside] = 0
            inside &= self._addresses >= start[row]
            # Each mapping has a phase of its own, so that they do not all answer alike in one sample.
            phase = (self._phase + (start // np.uint64(4096) % np.uint64(997)).astype(np.float64) / 997) % 1.0
            answers[inside & (phase < share)[row]] = ACCESSED
            unseen = uncounted(text)
            if len(unseen):
                answers[inside & np.isin(start, unseen)[row]] = UNKNOWN
        self.cost.checks += len(answers)
        self.cost.check_ns += time.perf_counter_ns() - begin
        return answers

    def _read(self) -> bytes:
        chunks = []
        offset = 0
        try:
            while chunk := os.pread(self._smaps, 1 << 20, offset):
                chunks.append(chunk)
                offset += len(chunk)
        except OSError:
            chunks = []
        return b"".join(chunks)


def probe() -> None:
    """Raise MachineError if this kernel does not offer the two files (CONFIG_PROC_PAGE_MONITOR); changes nothing."""
    for name in ("smaps", "clear_refs"):
        if not os.path.exists(f"/proc/self/{name}"):
            raise MachineError(
                f"/proc/self/{name} does not exist; it needs /proc and CONFIG_PROC_PAGE_MONITOR", where="smaps"
            )
    with open("/proc/self/smaps", "rb") as file:
        if b"\nReferenced:" not in file.read(4096):
            raise MachineError("this kernel's smaps does not tell what was referenced", where="smaps")


def opener(shared: Shared) -> Callable[[Process], SmapsPrimitive]:
    """What opens it for one process."""
    return lambda process: SmapsPrimitive(process, resident_only=shared.resident_only)
