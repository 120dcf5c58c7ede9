"""Pages of one's own, on a fake of the kernel's interface as its documentation has it (no kernel here has it yet)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from pydamon import AccessReports, OwnPages
from pydamon.errors import MachineError, RequestError
from pydamon.linux import pagemap_scan, userfaultfd
from pydamon.ops.reported.reports import NOT_ACCESSED_RANGE

PAGE = 4096
AT = 0x7F00_0000_0000
END = AT + 64 * PAGE
RWP, ASYNC = 1 << 17, 1 << 18
PRESENT, ACCESSED = 1 << 3, 1 << 9


def test_the_numbers_are_the_kernels() -> None:
    """T24 of the notes on the interface; the others from include/uapi/linux/userfaultfd.h."""
    assert userfaultfd.UFFDIO_RWPROTECT == (3 << 30) | (24 << 16) | (0xAA << 8) | 9 == 0xC018AA09
    assert userfaultfd.UFFDIO_SET_MODE == (1 << 30) | (16 << 16) | (0xAA << 8) | 10 == 0x4010AA0A
    assert userfaultfd.UFFDIO_API == 0xC018AA3F
    assert userfaultfd.UFFDIO_REGISTER == 0xC020AA00
    assert userfaultfd.UFFDIO_UNREGISTER == 0x8010AA01
    assert struct.calcsize("=QQQ") == 24
    assert (userfaultfd.FEATURE_RWP, userfaultfd.FEATURE_RWP_ASYNC, pagemap_scan.ACCESSED) == (RWP, ASYNC, ACCESSED)


class Kernel:
    """Pages between AT and END: which there are, which are protected; errors as documented."""

    def __init__(self, offered: int = RWP | ASYNC) -> None:
        self.offered = offered
        self.agreed: dict[int, int] = {}
        self.registered: list[tuple[int, int]] = []
        self.there: set[int] = set()
        self.protected: set[int] = set()
        self.most_regions = 1 << 20

    def touch(self, *numbers: int) -> None:
        for number in numbers:
            self.there.add(AT + number * PAGE)
            self.protected.discard(AT + number * PAGE)

    def ioctl(self, fd: int, request: int, argument: bytearray) -> int:
        if request == 0xC0606610:  # PAGEMAP_SCAN
            return self._scan(argument)
        return {
            0xC018AA3F: self._api,
            0xC020AA00: self._register,
            0x8010AA01: self._unregister,
            0xC018AA09: self._protect,
        }[request](fd, argument)

    def _api(self, fd: int, argument: bytearray) -> int:
        version, wanted, _ = struct.unpack("=QQQ", argument)
        if version != 0xAA or wanted & ~self.offered or wanted & (RWP | ASYNC) == ASYNC:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.agreed[fd] = wanted
        argument[:] = struct.pack("=QQQ", version, self.offered, 0)
        return 0

    def _register(self, fd: int, argument: bytearray) -> int:
        start, length, mode, _ = struct.unpack("=QQQQ", argument)
        if mode != 1 << 3 or not self.agreed[fd] & RWP or start < AT or start + length > END:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.registered.append((start, start + length))
        return 0

    def _unregister(self, fd: int, argument: bytearray) -> int:
        start, length = struct.unpack("=QQ", argument)
        if (start, start + length) not in self.registered:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.registered.remove((start, start + length))
        self.protected -= set(range(start, start + length, PAGE))
        return 0

    def _protect(self, fd: int, argument: bytearray) -> int:
        start, length, mode = struct.unpack("=QQQ", argument)
        assert mode == 1
        if (start, start + length) not in self.registered:
            raise OSError(errno.ENOENT, "No such file or directory")
        self.protected |= self.there & set(range(start, start + length, PAGE))  # only what is present
        return 0

    def _scan(self, argument: bytearray) -> int:
        size, _, start, end, _, vector, length, _, inverted, mask, anyof, told = struct.unpack("=12Q", argument)
        assert (size, inverted & ACCESSED) == (96, 0)
        wanted = mask | anyof
        runs: list[list[int]] = []
        for page in range(start, end, PAGE):
            state = (PRESENT if page in self.there else 0) | (
                ACCESSED if page in self.there and page not in self.protected else 0
            )
            if not state & wanted:
                continue
            if runs and runs[-1][1] == page and runs[-1][2] == state & told:
                runs[-1][1] += PAGE
            elif len(runs) == min(length, self.most_regions):
                argument[32:40] = struct.pack("=Q", page)
                break
            else:
                runs.append([page, page + PAGE, state & told])
        else:
            argument[32:40] = struct.pack("=Q", end)
        flat = np.array(runs, np.uint64).tobytes()
        ctypes.memmove(vector, flat, len(flat))
        return len(runs)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    fake = Kernel()
    monkeypatch.setattr(userfaultfd, "fcntl", fake)
    monkeypatch.setattr(pagemap_scan, "fcntl", fake)
    yield fake
    assert fake.registered == []  # all of it was given back
    assert fake.protected == set()


def numbers(ranges: np.ndarray) -> list[tuple[int, int]]:
    return [((start - AT) // PAGE, (end - AT) // PAGE) for start, end in ranges.tolist()]


def test_each_page_tells_whether_it_was_accessed_in_an_interval(kernel: Kernel) -> None:
    kernel.touch(*range(16), 40)
    with OwnPages([(AT, AT + 32 * PAGE), (AT + 32 * PAGE, END)]) as pages:
        pages.begin()
        assert numbers(pages.accessed()) == []
        assert numbers(pages.cold()) == [(0, 16), (40, 41)]
        kernel.touch(3, 4, 40)
        kernel.touch(20)  # comes into memory: accessed
        assert numbers(pages.accessed()) == [(3, 5), (20, 21), (40, 41)]
        assert numbers(pages.cold()) == [(0, 3), (5, 16)]
        pages.begin()
        kernel.touch(5)
        assert numbers(pages.accessed()) == [(5, 6)]


def test_reports_say_what_was_accessed_and_what_was_not(kernel: Kernel) -> None:
    kernel.touch(*range(8))
    reports = AccessReports()
    with OwnPages([(AT, END)]) as pages:
        pages.begin()
        kernel.touch(2, 6, 7)
        pages.report(reports)
        assert numbers(pages.accessed()) == []  # the next interval has begun
    rows, _ = reports.take()
    told = sorted(zip(rows.address.tolist(), (rows.address + rows.size).tolist(), rows.flags.tolist(), strict=True))
    expected = [(0, 2, NOT_ACCESSED_RANGE), (2, 3, 0), (3, 6, NOT_ACCESSED_RANGE), (6, 8, 0)]
    assert told == [(AT + a * PAGE, AT + b * PAGE, flags) for a, b, flags in expected]


def test_what_comes_while_a_report_is_made_is_not_said_to_be_cold(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.touch(0)
    reports = AccessReports()
    look = kernel.ioctl

    def ioctl(fd: int, request: int, argument: bytearray) -> int:
        found = look(fd, request, argument)
        if len(argument) == 96:  # PAGEMAP_SCAN
            kernel.touch(5)
        return found

    with OwnPages([(AT, END)]) as pages:
        pages.begin()
        monkeypatch.setattr(kernel, "ioctl", ioctl)
        pages.report(reports)
        monkeypatch.setattr(kernel, "ioctl", look)
    rows, _ = reports.take()
    told = sorted(zip(rows.address.tolist(), rows.flags.tolist(), strict=True))
    assert told == [(AT, NOT_ACCESSED_RANGE), (AT + 5 * PAGE, 0)]


def test_more_ranges_than_fit_into_one_answer(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagemap_scan, "_REGIONS", 4)
    kernel.touch(*range(0, 40, 2))
    with OwnPages([(AT, END)]) as pages:
        assert numbers(pages.accessed()) == [(n, n + 1) for n in range(0, 40, 2)]
        pages.begin()
        kernel.touch(*range(0, 40, 4))
        assert numbers(pages.accessed()) == [(n, n + 1) for n in range(0, 40, 4)]


@pytest.mark.parametrize("offered", [0, RWP, 1 << 15])
def test_a_kernel_without_it_says_so_in_one_line(kernel: Kernel, offered: int) -> None:
    kernel.offered = offered
    with pytest.raises(MachineError, match="userfaultfd: this kernel's userfaultfd does not protect") as refused:
        OwnPages([(AT, END)])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([], "ranges: must be at least one"),
        ([(AT + 1, AT + PAGE)], "is not a range of whole pages"),
        ([(AT, AT)], "is not a range of whole pages"),
        ([(AT + PAGE, AT)], "is not a range of whole pages"),
        ([(-PAGE, AT)], "is not a range of whole pages"),
        ([(AT, AT + 2 * PAGE), (AT + PAGE, AT + 3 * PAGE)], "ranges: overlap"),
    ],
)
def test_what_are_no_ranges_is_refused(kernel: Kernel, ranges: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(RequestError) as refused:
        OwnPages(ranges)
    assert why in str(refused.value)


def test_a_range_without_memory_is_refused_and_the_others_are_given_back(kernel: Kernel) -> None:
    with pytest.raises(MachineError, match="cannot be watched: it must be mapped"):
        OwnPages([(AT, AT + PAGE), (END, END + PAGE)])


def test_mappings_that_went_away_are_said(kernel: Kernel) -> None:
    pages = OwnPages([(AT, END)])
    kernel.registered.clear()
    with pytest.raises(MachineError, match="cannot be protected: a part of it is not mapped any more"):
        pages.begin()
    kernel.registered.append((AT, END))
    pages.close()
    pages.close()


def test_this_kernel_answers() -> None:
    """The real one: with the feature pages tell, without it the refusal is one line."""
    try:
        userfaultfd.probe()
    except MachineError as error:
        assert str(error).startswith("userfaultfd: ")
        assert "\n" not in str(error)
        return
    with mmap.mmap(-1, 16 * PAGE) as memory:
        memory.write(b"x" * 16 * PAGE)
        address = np.frombuffer(memory, np.uint8).ctypes.data
        with OwnPages([(address, address + 16 * PAGE)]) as pages:
            pages.begin()
            assert memory[5 * PAGE] == ord("x")
            assert pages.accessed().tolist() == [[address + 5 * PAGE, address + 6 * PAGE]]
