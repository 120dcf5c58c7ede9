"""Which pages of this program's own memory were accessed: all of them, page by page, without sampling (Linux 7.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from pydamon import spans
from pydamon.errors import MachineError, RequestError
from pydamon.linux import pagemap_scan
from pydamon.linux.userfaultfd import ReadWriteProtection

if TYPE_CHECKING:
    from pydamon.ops.reported.reports import AccessReports

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
Ranges = NDArray[np.uint64]


class ProtectedPages:
    """Ranges of a process that a userfaultfd protects, and its pagemap; one interval at a time. Both are taken over.

    `begin` opens an interval, `accessed` and `cold` tell what was accessed in it so far, and what is populated and was
    not; `report` hands both to an `AccessReports` and begins the next one. Each first access to a page in an interval
    costs a fault. What is accessed just between two intervals is missed. A context manager.
    """

    def __init__(self, protection: ReadWriteProtection, pagemap_fd: int) -> None:
        self.ranges = protection.ranges
        self._protection = protection
        self._pagemap = pagemap_fd

    def begin(self) -> None:
        """An interval begins: nothing was accessed yet."""
        self._protection.protect()

    def accessed(self) -> Ranges:
        """What was accessed since the interval began, or populated in it: (n, 2), sorted."""
        return self._told(self._accessed())

    def cold(self) -> Ranges:
        """What is in memory or in swap, and was not accessed: (n, 2), sorted."""
        return self._told(spans.without(self._populated(), self._accessed()))

    def report(self, reports: AccessReports, target: int = 0) -> None:
        """Report this interval, accessed and surely not accessed, to ``target``; and begin the next one."""
        there = self._populated()  # first: what comes between the two looks is accessed
        hot = self._accessed()
        self.begin()
        cold, hot = self._told(spans.without(there, hot)), self._told(hot)
        if len(hot):
            reports.report_accesses(target, hot[:, 0], hot[:, 1] - hot[:, 0])
        for start, end in cold.tolist():
            reports.report_not_accessed(target, start, end)

    def _told(self, ranges: Ranges) -> Ranges:
        """Ranges of the process as whoever asks knows them."""
        return ranges

    def _accessed(self) -> Ranges:
        return _joined([pagemap_scan.accessed(self._pagemap, start, end) for start, end in self.ranges])

    def _populated(self) -> Ranges:
        def look(start: int, end: int) -> tuple[Ranges, int]:
            return pagemap_scan.populated(self._pagemap, start, end, 1 << 30)

        return _joined([pagemap_scan.in_parts(look, start, end) for start, end in self.ranges])

    def close(self) -> None:
        """Watch nothing any more; a second time does nothing."""
        self._protection.close()
        if self._pagemap >= 0:
            os.close(self._pagemap)
            self._pagemap = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OwnPages(ProtectedPages):
    """Watches ranges (n, 2) of this process's memory, in bytes, page-aligned (end exclusive); see `ProtectedPages`.

    Raises RequestError for what are no ranges, MachineError where this kernel cannot (`pydamon doctor` says so).
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        held = sorted((int(start), int(end)) for start, end in ranges)
        if not held:
            raise RequestError("must be at least one (start, end)", where="ranges")
        for start, end in held:
            if not 0 <= start < end < 1 << 63 or start % PAGE_SIZE or end % PAGE_SIZE:
                raise RequestError(f"{start:#x}-{end:#x} is not a range of whole pages", where="ranges")
        if any(start < before for (_, before), (start, _) in pairwise(held)):
            raise RequestError("overlap", where="ranges")
        protection = ReadWriteProtection(held)
        try:
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            protection.close()
            raise MachineError(f"cannot be opened: {error.strerror}", where="/proc/self/pagemap") from None
        super().__init__(protection, pagemap)


def _joined(parts: Sequence[Ranges]) -> Ranges:
    return spans.joined(np.concatenate(parts)) if parts else np.empty((0, 2), np.uint64)
