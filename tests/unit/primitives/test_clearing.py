"""Clearing accessed bits, with the kernel's part played by functions here (the real one: test_bpf.py)."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.frames import FrameInfo, is_large, is_ordinary
from pydamon.linux.process import Mapping, Process
from pydamon.primitives import clearing
from pydamon.primitives.base import PrimitiveCost
from pydamon.primitives.clearing import ADVISED, NOT_CLEARED, WHOLE, Clearer, Estimate
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_2M, LEVEL_4K, LEVEL_UNKNOWN

LRU, MMAP, HEAD, TAIL, HUGETLB, ZERO = 1 << 5, 1 << 11, 1 << 15, 1 << 16, 1 << 17, 1 << 24
START = 0x7F00_0000_0000
PAGES = START + np.arange(2048, dtype=np.uint64) * np.uint64(4096)


class Kernel:
    """Frame n + ``shift`` is mapped at PAGES[n]; ``refuses`` gives the errno for a range's start, or 0."""

    def __init__(self) -> None:
        self.flags = dict.fromkeys(range(2 * len(PAGES)), MMAP | LRU)
        self.shift = 0
        self.counts: dict[int, int] = {}
        self.refuses: Callable[[int], int] = lambda start: 0
        self.advised: list[tuple[int, int]] = []
        self.calls = 0
        self.wholes = 0

    def process_madvise(self, number: int, pidfd: int, vectors: int, count: int, advice: int, flags: int) -> int:
        assert (number, advice, flags) == (440, 20, 0)
        assert count <= 1024
        self.calls += 1
        words = (ctypes.c_uint64 * (2 * count)).from_address(vectors)
        done = 0
        for start, length in zip(words[::2], words[1::2], strict=True):
            refused = self.refuses(start)
            if refused:
                ctypes.set_errno(refused)
                return done or -1
            self.advised.append((start, length))
            done += length
        return done

    def walk(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        frames = (addresses - np.uint64(START)) >> np.uint64(12)
        here = frames < len(PAGES)
        return frames + np.uint64(self.shift) << np.uint64(12), np.where(here, LEVEL_4K, LEVEL_UNKNOWN).astype(np.uint8)

    def folio(self, first: int, count: int) -> None:
        for frame in range(first, first + count):
            self.flags[frame] = MMAP | LRU | (HEAD if frame == first else TAIL)


class Frames(FrameInfo):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.close()
        self.kernel = kernel

    def flags(self, frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return np.array([self.kernel.flags.get(frame, 0) for frame in frames.tolist()], np.uint64)

    def _has(self, frame: int, flag: np.uint64) -> bool:
        return bool(self.kernel.flags.get(frame, 0) & int(flag))

    def mapped_once(self, frame: int, count: int) -> bool:
        return all(self.kernel.counts.get(at, 1) == 1 for at in range(frame, frame + count))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(clearing, "_syscall", kernel.process_madvise)

    def whole(fd: int) -> None:
        kernel.wholes += 1

    monkeypatch.setattr("pydamon.primitives.clearing.clear_refs.clear", whole)
    return kernel


@pytest.fixture
def clearer(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clearer]:
    process = Process(os.getpid())
    bounds = [START, START + (1 << 20), START + (4 << 20), START + (8 << 20)]
    mappings = [Mapping(low, high, "rw-p", 0, 0, "") for low, high in pairwise(bounds)]
    monkeypatch.setattr(process, "mappings", lambda: mappings)
    clearer = Clearer(process, kernel.walk, lambda entries: entries >> np.uint64(12), PrimitiveCost())
    clearer._info = Frames(kernel)
    clearer.per_byte.value = 1e9  # clear_refs looks expensive
    yield clearer
    clearer.close()
    process.close()


def clear(clearer: Clearer, pages: NDArray[np.uint64], level: int = LEVEL_4K) -> list[int]:
    entries = clearer._walk(pages)[0]
    return clearer.clear(pages, entries, np.full(len(pages), level, np.uint8)).tolist()


def test_single_pages_go_in_batches_of_1024(clearer: Clearer, kernel: Kernel) -> None:
    assert clear(clearer, PAGES) == [ADVISED] * 2048
    assert kernel.advised == [(start, 4096) for start in PAGES.tolist()]
    assert (kernel.calls, clearer._cost.clears) == (2, 2048)
    assert clearer._cost.clear_ns > 0
    assert 0 < clearer._cost.disturb_ns <= clearer._cost.clear_ns


def test_a_huge_page_is_advised_once_and_as_a_whole(clearer: Clearer, kernel: Kernel) -> None:
    base = START + (2 << 20)
    pages = np.array([base + 4096, base + 8192, base + (2 << 20)], np.uint64)
    assert clear(clearer, pages, LEVEL_2M) == [ADVISED] * 3
    assert kernel.advised == [(base, 2 << 20), (base + (2 << 20), 2 << 20)]


def test_a_page_of_1_gib_is_not_advised(clearer: Clearer, kernel: Kernel) -> None:
    assert clear(clearer, PAGES[:1], LEVEL_1G) == [NOT_CLEARED]
    assert kernel.advised == []


def test_after_a_refusal_the_rest_of_that_mapping_is_left_out(clearer: Clearer, kernel: Kernel) -> None:
    locked = range(START + (1 << 20), START + (4 << 20))
    kernel.refuses = lambda start: errno.EINVAL if start in locked else 0
    pages = PAGES[::32]  # 64 pages: 8 before, 24 in, 32 behind the mapping
    assert clear(clearer, pages) == [ADVISED] * 8 + [NOT_CLEARED] * 24 + [ADVISED] * 32
    assert kernel.calls == 3  # up to the first that is refused, that one, the rest
    assert clear(clearer, pages) == [ADVISED] * 8 + [NOT_CLEARED] * 24 + [ADVISED] * 32
    assert kernel.calls == 4  # remembered


def test_a_page_that_is_unmapped_by_now_is_skipped_alone(clearer: Clearer, kernel: Kernel) -> None:
    kernel.refuses = lambda start: errno.ENOMEM if start in (int(PAGES[0]), int(PAGES[2])) else 0
    assert clear(clearer, PAGES[:4]) == [NOT_CLEARED, ADVISED, NOT_CLEARED, ADVISED]


def test_a_process_that_is_exiting_is_left_alone(clearer: Clearer, kernel: Kernel) -> None:
    kernel.refuses = lambda start: errno.ESRCH
    assert clear(clearer, PAGES[:100]) == [NOT_CLEARED] * 100
    assert kernel.calls == 1


def test_without_permission_to_advise_clear_refs_is_used(clearer: Clearer, kernel: Kernel) -> None:
    kernel.refuses = lambda start: errno.EPERM
    assert clear(clearer, PAGES[:3]) == [WHOLE] * 3
    assert clear(clearer, PAGES[:3]) == [WHOLE] * 3
    assert (kernel.calls, kernel.wholes) == (1, 2)


def test_without_any_permission_it_says_so(clearer: Clearer, kernel: Kernel) -> None:
    kernel.refuses = lambda start: errno.EPERM
    os.close(clearer._whole_fd)
    clearer._whole_fd = -1
    with pytest.raises(MachineError, match=r"^bpf: no permission to clear accessed bits of process \d+; run as root"):
        clear(clearer, PAGES[:3])


@pytest.mark.parametrize(
    ("first", "count", "page", "expected"),
    [
        (16, 16, 20, (16, 16)),  # 64 KiB, asked for by a page in the middle
        (64, 32, 64, (64, 32)),  # by its first page
        (128, 64, 191, (128, 64)),  # by its last
        (512, 512, 700, (512, 512)),
        (40, 2, 41, (40, 2)),
    ],
)
def test_a_page_of_a_larger_folio_is_advised_with_all_of_it(
    clearer: Clearer, kernel: Kernel, first: int, count: int, page: int, expected: tuple[int, int]
) -> None:
    kernel.folio(first, count)
    for other in (first - 8, first + count):  # neighbours that are folios as well
        kernel.folio(other, 8)
    assert clear(clearer, PAGES[[page, 5]]) == [ADVISED, ADVISED]
    start, size = expected
    assert sorted(kernel.advised) == sorted([(int(PAGES[start]), size * 4096), (int(PAGES[5]), 4096)])


def test_two_pages_of_a_folio_are_one_range(clearer: Clearer, kernel: Kernel) -> None:
    kernel.folio(16, 16)
    assert clear(clearer, PAGES[[17, 18, 33]]) == [ADVISED] * 3
    assert kernel.advised == [(int(PAGES[16]), 16 * 4096), (int(PAGES[33]), 4096)]


def test_a_folio_that_advice_would_split_is_left_alone(clearer: Clearer, kernel: Kernel) -> None:
    kernel.folio(192, 128)  # reaches out of the mapping that ends at page 256
    kernel.folio(2032, 32)  # its second half is not mapped
    assert clear(clearer, PAGES[[200, 2040, 300]]) == [NOT_CLEARED, NOT_CLEARED, ADVISED]
    assert kernel.advised == [(int(PAGES[300]), 4096)]


def test_a_folio_across_two_page_tables_is_left_alone(clearer: Clearer, kernel: Kernel) -> None:
    kernel.shift = 8
    kernel.folio(1552, 16)  # at pages 1544 to 1559
    kernel.folio(1536, 16)  # at pages 1528 to 1543: page 1536 begins another page table
    assert clear(clearer, PAGES[[1530, 1550]]) == [NOT_CLEARED, ADVISED]
    assert kernel.advised == [(int(PAGES[1544]), 16 * 4096)]


def test_a_page_on_no_lru_list_is_advised_but_not_surely_cleared(clearer: Clearer, kernel: Kernel) -> None:
    kernel.flags[7] = MMAP
    assert clear(clearer, PAGES[6:9]) == [ADVISED, NOT_CLEARED, ADVISED]
    assert len(kernel.advised) == 3


def test_clear_refs_is_used_once_it_is_cheaper(clearer: Clearer, kernel: Kernel) -> None:
    clearer.per_range.value = 1000.0
    clearer.per_byte.value = 0.0  # then clear_refs takes 20 µs
    assert clear(clearer, PAGES[:10]) == [ADVISED] * 10
    clearer.per_range.value, clearer.per_byte.value = 10_000.0, 0.0
    assert clear(clearer, PAGES[:10]) == [WHOLE] * 10
    assert (kernel.wholes, clearer._cost.clears) == (1, 11)


def test_while_clear_refs_is_preferred_advice_is_measured_now_and_then(clearer: Clearer, kernel: Kernel) -> None:
    clearer.per_range.value, clearer.per_byte.value = 1e6, 0.0
    assert clear(clearer, PAGES) == [WHOLE] * 2048
    assert kernel.advised == []
    clearer.per_range.at -= 11_000_000_000
    clearer.per_byte.value = 0.0
    assert clear(clearer, PAGES) == [WHOLE] * 2048
    assert len(kernel.advised) == 16
    assert clearer.per_range.value < 1e6


def test_an_old_measurement_of_clear_refs_is_forgotten(clearer: Clearer, kernel: Kernel) -> None:
    clearer.per_range.value = 1e9
    clearer.per_byte.value = 1e15
    assert clear(clearer, PAGES[:10]) == [ADVISED] * 10
    clearer.per_range.value = 1e9
    clearer.per_byte.at -= 61_000_000_000
    assert clear(clearer, PAGES[:10]) == [WHOLE] * 10


class SlowWhole:
    """Time, which passes by hand, and while a whole process is cleared."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000
        self.takes_ns = 1_000_000

    def clear(self, fd: int) -> None:
        self.ns += self.takes_ns


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SlowWhole:
    made = SlowWhole()
    monkeypatch.setattr("pydamon.primitives.clearing.time.perf_counter_ns", lambda: made.ns)
    monkeypatch.setattr("pydamon.primitives.clearing.clear_refs.clear", made.clear)
    return made


def test_stuck_pages_get_clear_refs_for_one_percent_of_the_time(clearer: Clearer, now: SlowWhole) -> None:
    assert not clearer.clear_stuck(1, 100)  # too few to be worth it
    assert clearer.clear_stuck(2, 100)
    now.ns += 99_000_000
    assert not clearer.clear_stuck(100, 100)
    now.ns += 2_000_000
    assert clearer.clear_stuck(100, 100)
    clearer.stuck_helped(5, 100)  # of no use: waits twice as long the next time
    now.ns += 101_000_000
    assert clearer.clear_stuck(100, 100)
    now.ns += 101_000_000
    assert not clearer.clear_stuck(100, 100)
    now.ns += 101_000_000
    assert clearer.clear_stuck(100, 100)
    clearer.stuck_helped(100, 100)
    assert clearer._backoff == 1.0


def test_the_fewer_pages_are_stuck_the_less_time_they_get(clearer: Clearer, now: SlowWhole) -> None:
    assert clearer.stuck_due_ns(1, 100) is None
    assert clearer.clear_stuck(5, 100)
    assert clearer.stuck_due_ns(5, 100) == now.ns + 1_000_000_000  # a tenth of 1 %
    assert clearer.stuck_due_ns(50, 100) == clearer.stuck_due_ns(100, 100) == now.ns + 100_000_000
    now.ns += 999_000_000
    assert not clearer.clear_stuck(5, 100)
    assert clearer.clear_stuck(50, 100)


def test_stuck_pages_of_a_large_process_get_half_of_that(clearer: Clearer, now: SlowWhole) -> None:
    now.takes_ns = 10_000_000  # about 400 MiB
    assert clearer.clear_stuck(100, 100)
    now.ns += 1_999_000_000
    assert not clearer.clear_stuck(100, 100)
    now.ns += 2_000_000
    assert clearer.clear_stuck(100, 100)


def test_stuck_pages_of_many_processes_together_get_no_more_than_two_percent(
    clearer: Clearer, now: SlowWhole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearer, "_together", lambda: 20)
    assert clearer.clear_stuck(100, 100)
    now.ns += 999_000_000  # 1 ms each of 20 in 2 % of the time
    assert not clearer.clear_stuck(100, 100)
    now.ns += 2_000_000
    assert clearer.clear_stuck(100, 100)


@pytest.mark.parametrize(
    ("done", "flags", "count", "expected"),
    [
        (ADVISED, MMAP, 1, True),  # an ordinary page of this process alone: it was cleared, and accessed again
        (ADVISED, MMAP, 2, False),  # mapped elsewhere, too: MADV_COLD skips it
        (ADVISED, MMAP | ZERO, 1, False),
        (NOT_CLEARED, MMAP, 1, False),
        (WHOLE, MMAP, 2, True),  # clear_refs does not mind
        (WHOLE, MMAP | HUGETLB, 1, False),
        (WHOLE, 0, 0, False),  # device memory
    ],
)
def test_when_a_bit_that_shows_again_is_an_access(
    clearer: Clearer, kernel: Kernel, done: int, flags: int, count: int, expected: bool
) -> None:
    kernel.flags[7], kernel.counts[7] = flags, count
    entry, level = np.array([7 << 12], np.uint64), np.array([LEVEL_4K], np.uint8)
    assert clearer.certain(entry, level, np.array([done], np.uint8)).tolist() == [expected]


def test_a_folio_shared_in_part_is_shared(clearer: Clearer, kernel: Kernel) -> None:
    kernel.folio(16, 16)
    entry, done = np.array([20 << 12], np.uint64), np.array([ADVISED], np.uint8)
    small, huge = np.array([LEVEL_4K], np.uint8), np.array([LEVEL_2M], np.uint8)
    assert clearer.certain(entry, small, done).all()
    kernel.counts[30] = 2
    assert not clearer.certain(entry, small, done).any()
    assert not clearer.certain(entry, huge, done).any()
    kernel.counts[30] = 1
    assert clearer.certain(entry, huge, done).all()
    kernel.counts[3] = 2
    assert not clearer.certain(entry, huge, done).any()  # a huge page begins at a multiple of 512 frames


def test_an_estimate_follows_but_not_every_outlier() -> None:
    estimate = Estimate(1000.0)
    estimate.add(1e9)
    assert 1000 < estimate.value < 3000
    for _ in range(200):
        estimate.add(50_000.0)
    assert estimate.value == pytest.approx(50_000.0, rel=0.01)
    estimate.at = time.perf_counter_ns() - 60_000_000_000
    estimate.add(100.0)
    assert estimate.value == pytest.approx(100.0)


def test_flags_of_frames() -> None:
    flags = np.array([MMAP, MMAP | HEAD, MMAP | TAIL, MMAP | HUGETLB, ZERO, 1 << 20, 0], np.uint64)
    assert is_large(flags).tolist() == [False, True, True, False, False, False, False]
    assert is_ordinary(flags).tolist() == [True, True, True, False, False, False, False]


def test_without_permission_frames_are_unknown() -> None:
    info = FrameInfo()
    info.close()
    assert info.flags(np.arange(3, dtype=np.uint64)).tolist() == [0, 0, 0]
    assert info.folio(5) == (5, 1)
    assert not info.mapped_once(5, 1)
