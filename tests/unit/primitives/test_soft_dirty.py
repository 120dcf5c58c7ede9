"""Writes only: what is concluded from soft-dirty bits, and that one clear a window is enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process
from pydamon.primitives import soft_dirty
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.page_tables import LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN
from pydamon.primitives.soft_dirty import SoftDirtyPrimitive

PAGE = 4096
PRESENT, SWAPPED, DIRTY = 1 << 63, 1 << 62, 1 << 55
ENTRY_DIRTY = 1 << 11
ABSENT, CLEAN, WRITTEN, FAULT = (LEVEL_ABSENT, 0), (LEVEL_4K, 1), (LEVEL_4K, 1 | ENTRY_DIRTY), (LEVEL_UNKNOWN, 0)


class Tables:
    """Stands in for PageTableWalk; addresses are indices into ``pages``: (level, entry)."""

    def __init__(self, *pages: tuple[int, int]) -> None:
        self.pages = list(pages)
        self.space = 1000

    def walk_space(self, pid: int, addresses: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any], int]:
        found = [self.pages[at] for at in addresses.tolist()]
        return np.array([e for _, e in found], np.uint64), np.array([n for n, _ in found], np.uint8), self.space

    def frames(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        raise AssertionError

    def accessed(self, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
        raise AssertionError

    def refresh(self) -> None: ...


@pytest.fixture(autouse=True)
def _tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_dirty, "tracks_soft_dirty", lambda: True)


@pytest.fixture
def process() -> Iterator[Process]:
    opened = Process(os.getpid())
    yield opened
    opened.close()


class Watched:
    """A primitive whose clears clean the pages here instead of this process's."""

    def __init__(self, process: Process, monkeypatch: pytest.MonkeyPatch, *pages: tuple[int, int]) -> None:
        self.tables = Tables(*pages)
        self.primitive = SoftDirtyPrimitive(process, self.tables)
        self.clears = 0
        self.again: dict[int, tuple[int, int]] = {}  # pages that are written at once
        monkeypatch.setattr(os, "write", self.clear)

    def clear(self, fd: int, data: bytes) -> int:
        assert data == b"4"
        self.clears += 1
        self.tables.pages = [
            self.again.get(at, (level, entry & ~ENTRY_DIRTY)) for at, (level, entry) in enumerate(self.tables.pages)
        ]
        return 1

    def prepare(self, *at: int) -> list[bool]:
        usable: list[bool] = self.primitive.prepare(np.array(at, np.uint64)).tolist()
        return usable

    def check(self) -> list[int]:
        answers: list[int] = self.primitive.check().tolist()
        return answers


def test_writes(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, WRITTEN, WRITTEN, ABSENT, ABSENT, FAULT)
    assert watched.prepare(0, 1, 2, 3, 4) == [True] * 4 + [False]
    assert watched.clears == 1
    watched.tables.pages[1:4] = [WRITTEN, WRITTEN, CLEAN]  # written; faulted in by a write; by a read
    assert watched.check() == [NOT_ACCESSED, ACCESSED, ACCESSED, NOT_ACCESSED, UNKNOWN]


def test_clean_pages_need_no_clear(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, CLEAN, CLEAN, WRITTEN)
    watched.prepare(0, 1)
    assert watched.clears == 0
    watched.tables.pages[0] = WRITTEN
    assert watched.check() == [ACCESSED, NOT_ACCESSED]
    assert watched.primitive.cost.clears == 0
    watched.prepare(0, 1)
    assert watched.clears == watched.primitive.cost.clears == 1


def test_a_page_that_is_written_all_the_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, WRITTEN, CLEAN)
    watched.again[0] = WRITTEN
    assert watched.prepare(0, 1) == [True, True]
    assert watched.check() == [ACCESSED, NOT_ACCESSED]
    assert watched.clears == 1


def test_replacing_keeps_the_other_windows(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, WRITTEN, FAULT, CLEAN, WRITTEN)
    assert watched.prepare(0, 1) == [True, False]
    watched.tables.pages[0] = WRITTEN
    watched.tables.pages[3] = WRITTEN
    assert watched.primitive.replace(np.array([1]), np.array([3], np.uint64)).tolist() == [True]
    assert watched.clears == 1  # a second one would have taken page 0's write
    assert watched.check() == [ACCESSED, ACCESSED]


def test_pages_that_go(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, CLEAN, CLEAN)
    watched.prepare(0, 1)
    watched.tables.pages[:] = [ABSENT, FAULT]
    assert watched.check() == [UNKNOWN, UNKNOWN]


def test_an_exec(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, CLEAN)
    watched.prepare(0)
    watched.tables.space = 2
    assert watched.check() == [UNKNOWN]


def test_a_process_that_cannot_be_cleared(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(process, monkeypatch, WRITTEN, CLEAN)

    def gone(fd: int, data: bytes) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(os, "write", gone)
    assert watched.prepare(0, 1) == [False, True]


def test_by_pagemap(process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "pagemap"
    table = np.array([PRESENT, PRESENT, SWAPPED, DIRTY, SWAPPED | DIRTY, 0], np.uint64)
    path.write_bytes(table.tobytes())
    monkeypatch.setattr("pydamon.primitives.soft_dirty.pagemap.Pagemap", lambda pid: Pagemap(pid, path=str(path)))
    clears = []

    def clear(fd: int, data: bytes) -> int:
        clears.append(data)
        path.write_bytes((table & ~np.uint64(DIRTY)).tobytes())
        return 1

    monkeypatch.setattr(os, "write", clear)
    primitive = SoftDirtyPrimitive(process)
    at = np.arange(7, dtype=np.uint64) * np.uint64(PAGE)
    assert primitive.prepare(at).tolist() == [True] * 6 + [False]  # behind the end
    assert clears == [b"4"]
    table = np.array([PRESENT | DIRTY, SWAPPED, SWAPPED | DIRTY, DIRTY, PRESENT, PRESENT | DIRTY, 0], np.uint64)
    path.write_bytes(table.tobytes())
    # written; swapped unwritten; written and swapped again; a new mapping's hole; read back from swap; new; unreadable
    assert primitive.check().tolist() == [1, 0, 1, 0, 0, 1, UNKNOWN]
    primitive.close()
    primitive.close()


def test_a_kernel_without_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_dirty, "tracks_soft_dirty", lambda: False)
    with pytest.raises(MachineError, match="CONFIG_MEM_SOFT_DIRTY"):
        SoftDirtyPrimitive(process)
