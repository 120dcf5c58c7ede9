"""pagemap: batches over a file made here, and this process's own."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.pagemap import Pagemap

PAGE = 4096
PRESENT, SWAPPED, DIRTY = 1 << 63, 1 << 62, 1 << 55


def fake(tmp_path: Path, entries: list[int]) -> Pagemap:
    path = tmp_path / "pagemap"
    path.write_bytes(np.array(entries, np.uint64).tobytes())
    return Pagemap(1, path=str(path))


@pytest.mark.parametrize("pages", [[5], [5, 900, 17], [3, 4, 5, 6], [999, 0, 1, 500, 502, 501, 0], []])
def test_entries_come_in_the_order_of_the_question(tmp_path: Path, pages: list[int]) -> None:
    table = fake(tmp_path, [1000 + n for n in range(1000)])
    entries, known = table.entries(np.array(pages, np.uint64) * np.uint64(PAGE) + np.uint64(123))
    assert entries.tolist() == [1000 + n for n in pages]
    assert known.all()


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    table = fake(tmp_path, [7] * 10)
    for pages in ([2, 10, 5000], [8, 9, 10, 11], [1 << 50, 3]):  # behind the end, across it, nowhere
        entries, known = table.entries(np.array(pages, np.uint64) * np.uint64(PAGE))
        assert known.tolist() == [page < 10 for page in pages]
        assert entries[~known].tolist() == [0] * (~known).sum()


def test_a_span_is_as_long_as_what_could_be_read(tmp_path: Path) -> None:
    table = fake(tmp_path, list(range(200_000)))
    assert table.span(5 * PAGE, 8 * PAGE).tolist() == [5, 6, 7]
    assert len(table.span(0, 200_000 * PAGE)) == 200_000  # more than one read
    assert len(table.span(199_990 * PAGE, 200_100 * PAGE)) == 10
    table.close()
    assert len(table.span(0, PAGE)) == 0


def test_what_entries_say() -> None:
    entries = np.array([PRESENT | 0x1234, SWAPPED | 0x55, DIRTY | PRESENT | 1 << 61 | 0x77, DIRTY, 0], np.uint64)
    assert pagemap.frames_of(entries).tolist() == [0x1234, 0, 0x77, 0, 0]
    assert pagemap.is_present(entries).tolist() == [True, False, True, False, False]
    assert pagemap.is_swapped(entries).tolist() == [False, True, False, False, False]
    assert pagemap.is_soft_dirty(entries).tolist() == [False, False, True, True, False]


def test_own_pages_are_present_when_touched() -> None:
    with mmap.mmap(-1, 16 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        del view
        for page in (0, 3, 12):
            memory[page * PAGE] = 1
        table = Pagemap(os.getpid())
        entries = table.span(start, start + 16 * PAGE)
        assert np.flatnonzero(pagemap.is_present(entries)).tolist() == [0, 3, 12]
        table.close()


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="the process has ended"):
        Pagemap(2**22 + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="frame numbers are for root")
def test_root_sees_frame_numbers() -> None:
    pagemap.probe()
