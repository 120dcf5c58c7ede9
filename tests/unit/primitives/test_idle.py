"""The idle bitmap and the primitives on it, over a sparse file, page flags and page tables made here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import idle_bitmap
from pydamon.linux.idle_bitmap import IDLE, LISTED, MARKED, OWN, UNLISTED, YOUNG, FrameWatch, IdleBitmap
from pydamon.linux.process import Process
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.idle import IdleFrames, IdlePrimitive
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, X86_4

PAGE = 4096
LRU, HEAD, TAIL = 1 << 5, 1 << 15, 1 << 16
MEMORY = 1 << 20  # frames that the bitmap covers: 4 GiB


class Flags:
    """Stands in for FrameInfo: every frame is on an LRU list unless it is named otherwise."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.reads = 0

    def folio(self, first: int, count: int, flags: int = LRU) -> None:
        self.of |= {first + n: flags | (TAIL if n else HEAD) for n in range(count)}

    def flags(self, frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
        self.reads += len(frames)
        return np.array([self.of.get(frame, LRU) for frame in frames.tolist()], np.uint64)

    def close(self) -> None: ...


def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "bitmap"
    with path.open("wb") as file:
        file.truncate(MEMORY // 8)
    return path


@pytest.fixture(autouse=True)
def _writing_sets_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the kernel: a 0 in what is written leaves the bit alone."""
    plain = os.pwrite

    def write(fd: int, data: bytes, at: int) -> int:
        old = np.frombuffer(os.pread(fd, len(data), at).ljust(len(data), b"\0"), np.uint8)
        return plain(fd, (old | np.frombuffer(data, np.uint8)).tobytes(), at)

    monkeypatch.setattr(os, "pwrite", write)


@pytest.fixture
def bitmap(tmp_path: Path) -> Iterator[IdleBitmap]:
    opened = IdleBitmap(str(sparse(tmp_path)))
    yield opened
    opened.close()


def frames(*numbers: int) -> NDArray[np.uint64]:
    return np.array(numbers, np.uint64)


def use(bitmap: IdleBitmap, *numbers: int) -> None:
    """What the kernel does to the bits of frames that are accessed, moved off the LRU lists, or freed."""
    path = Path(bitmap.path)
    data = bytearray(path.read_bytes())
    for frame in numbers:
        data[frame // 64 * 8 + frame % 64 // 8] &= ~(1 << frame % 8)
    with path.open("r+b") as file:
        file.write(data)


def test_only_the_asked_bits_are_set(bitmap: IdleBitmap) -> None:
    assert bitmap.mark(frames(64, 3, 130, 65, 3, 5000)).all()
    idle, known = bitmap.read(np.arange(6000, dtype=np.uint64))
    assert np.flatnonzero(idle).tolist() == [3, 64, 65, 130, 5000]
    assert known.all()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few frames there are, what is done for many is done."""
    monkeypatch.setattr(idle_bitmap, "_FEW", 0)


@pytest.mark.usefixtures("many")
def test_neighbouring_words_share_a_call(bitmap: IdleBitmap) -> None:
    bitmap.mark(frames(0, 64, 128, 200, 10_000, 700_000))
    assert bitmap.calls == 3  # words 0 to 3, word 156, word 10937
    bitmap.read(frames(10_000, 10_001, 5))
    assert bitmap.calls == 5


def test_a_few_frames_are_asked_one_by_one(bitmap: IdleBitmap) -> None:
    some = frames(3, 3, 64, 70_000)
    assert bitmap.mark(some).all()
    assert bitmap.read(frames(3, 4, 64, 70_000))[0].tolist() == [True, False, True, True]
    assert bitmap.calls == 8


@pytest.mark.usefixtures("many")
def test_writes_share_a_call_across_a_gap_and_reads_do_not(bitmap: IdleBitmap) -> None:
    bitmap.mark(frames(0, 8 * 64, 16 * 64 + 5, 25 * 64))
    assert bitmap.calls == 2
    idle, _ = bitmap.read(np.arange(26 * 64, dtype=np.uint64))
    assert np.flatnonzero(idle).tolist() == [0, 8 * 64, 16 * 64 + 5, 25 * 64]
    bitmap.read(frames(0, 8 * 64, 16 * 64 + 5, 25 * 64))
    assert bitmap.calls == 2 + 1 + 4


def test_no_call_is_longer_than_sysfs_takes(bitmap: IdleBitmap, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of sysfs moves one page at most, from where the call begins."""
    read, write = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read(fd, min(size, PAGE), at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:PAGE], at))
    every = np.arange(100 * 64, 2000 * 64, 64, dtype=np.uint64)
    assert bitmap.mark(every).all()
    idle, known = bitmap.read(every)
    assert idle.all()
    assert known.all()
    assert bitmap.calls == 8  # words 100 to 1999 lie in four pages


def test_the_word_is_the_machines(bitmap: IdleBitmap) -> None:
    bitmap.mark(frames(0, 63))
    assert np.fromfile(bitmap.path, np.uint64, 1)[0] == 1 | 1 << 63


def test_beyond_memory_nothing_is_known(bitmap: IdleBitmap) -> None:
    far = frames(MEMORY - 1, MEMORY, MEMORY + 64, 1 << 62)
    assert bitmap.read(far)[1].tolist() == [True, False, False, False]
    assert bitmap.trouble is None


@given(st.lists(st.integers(0, MEMORY - 1), max_size=90), st.lists(st.integers(0, MEMORY - 1), max_size=90))
def test_like_a_set(tmp_path_factory: pytest.TempPathFactory, marked: list[int], asked: list[int]) -> None:
    opened = IdleBitmap(str(sparse(tmp_path_factory.mktemp("idle"))))
    opened.mark(frames(*marked))
    idle, _ = opened.read(frames(*asked))
    assert idle.tolist() == [frame in marked for frame in asked]
    opened.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM, errno.EINVAL])
def test_a_bitmap_that_refuses(bitmap: IdleBitmap, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setattr(os, "pread", refuse)
    assert not bitmap.mark(frames(1, 1000)).any()
    said = bitmap.trouble
    assert said is not None
    assert "writing was refused" in said
    assert os.strerror(number) in said
    assert not bitmap.read(frames(1, 1000))[1].any()
    assert bitmap.trouble == said
    assert bitmap.refused == 4
    primitive = IdleFrames(FrameWatch(bitmap, Flags()))
    assert not primitive.prepare(frames(1, 1000) * np.uint64(PAGE)).any()
    assert primitive.check().tolist() == [UNKNOWN, UNKNOWN]
    assert primitive.trouble == said


def test_no_bitmap(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="CONFIG_IDLE_PAGE_TRACKING"):
        IdleBitmap(str(tmp_path / "none"))


def test_a_bitmap_that_may_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be opened: Is a directory"):
        IdleBitmap(str(tmp_path))  # a directory refuses to be written even for root


@pytest.mark.skipif(os.geteuid() != 0, reason="needs frame numbers and flags")
def test_probe_finds_a_bitmap_that_takes_no_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdleBitmap, "__init__", _opens(sparse(tmp_path), IdleBitmap.__init__))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: len(data))
    with pytest.raises(MachineError, match="takes no marks"):
        idle_bitmap.probe()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs frame numbers and flags")
def test_probe_says_that_a_bitmap_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(IdleBitmap, "__init__", _opens(sparse(tmp_path), IdleBitmap.__init__))
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(MachineError, match="writing was refused"):
        idle_bitmap.probe()


def _opens(path: Path, init: Any) -> Any:
    return lambda self: init(self, str(path))


class TestFolios:
    @pytest.mark.parametrize(("first", "count"), [(512, 512), (1024, 16), (96, 4), (64, 1)])
    def test_every_frame_answers_through_its_head(self, bitmap: IdleBitmap, first: int, count: int) -> None:
        info = Flags()
        info.folio(first, count)
        info.folio(0, 64)  # a folio at a rounder address is not taken for it
        watch = FrameWatch(bitmap, info)
        heads, listed = watch.locate(np.arange(first, first + count, dtype=np.uint64))
        assert set(heads.tolist()) == {first}
        assert listed.all()

    def test_many_of_one_folio_cost_little(self, bitmap: IdleBitmap) -> None:
        info = Flags()
        info.folio(512, 512)
        FrameWatch(bitmap, info).mark(np.arange(512, 1024, dtype=np.uint64))
        assert info.reads < 3 * 512
        assert np.flatnonzero(bitmap.read(np.arange(MEMORY, dtype=np.uint64))[0]).tolist() == [512]

    def test_states(self, bitmap: IdleBitmap) -> None:
        info = Flags()
        info.folio(512, 512, flags=0)  # hugetlb, slab: no LRU
        info.of[7] = 0
        heads, states = FrameWatch(bitmap, info).mark(frames(600, 7, 8, MEMORY + 9))
        assert heads.tolist() == [512, 7, 8, MEMORY + 9]
        assert states.tolist()[:3] == [UNLISTED, UNLISTED, MARKED]
        assert not bitmap.read(frames(7, 512))[0].any()

    def test_a_tail_without_a_head(self, bitmap: IdleBitmap) -> None:
        info = Flags()
        info.of |= dict.fromkeys(range(2048), LRU | TAIL)
        assert FrameWatch(bitmap, info).mark(frames(1234))[1].tolist() == [UNLISTED]


class Tables:
    """Stands in for PageTableWalk; addresses are page indices into ``entries``: (frame, level, young)."""

    def __init__(self, *entries: tuple[int, int, bool]) -> None:
        self.entries = list(entries)
        self.space = 1000

    def walk_space(self, pid: int, addresses: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any], int]:
        found = [self.entries[at] for at in addresses.tolist()]
        entries = [frame << 12 | 1 | (X86_4.accessed if young else 0) for frame, _, young in found]
        return np.array(entries, np.uint64), np.array([level for _, level, _ in found], np.uint8), self.space

    def accessed(self, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return X86_4.accessed_of(entries)

    def frames(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return entries >> np.uint64(12)

    def refresh(self) -> None: ...


ABSENT, FAULT = (0, LEVEL_ABSENT, False), (0, LEVEL_UNKNOWN, False)


def page(frame: int, young: bool = False) -> tuple[int, int, bool]:
    return frame, LEVEL_4K, young


class Setup:
    def __init__(self, bitmap: IdleBitmap, process: Process, *entries: tuple[int, int, bool], tables: bool = False):
        self.info = Flags()
        self.bitmap = bitmap
        self.tables = Tables(*entries)
        self.primitive = IdlePrimitive(process, self.tables, watch=FrameWatch(bitmap, self.info), tables=tables)
        self.all = np.arange(len(entries), dtype=np.uint64)

    def prepare(self) -> list[bool]:
        usable: list[bool] = self.primitive.prepare(self.all).tolist()
        return usable

    def check(self) -> list[int]:
        answers: list[int] = self.primitive.check().tolist()
        return answers


@pytest.fixture
def process() -> Iterator[Process]:
    opened = Process(os.getpid())
    yield opened
    opened.close()


class TestProcess:
    def test_used_and_unused(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, page(10), page(11), page(4000))
        assert setup.prepare() == [True] * 3
        use(bitmap, 11)
        assert setup.check() == [NOT_ACCESSED, ACCESSED, NOT_ACCESSED]
        assert setup.primitive.cost.checks == setup.primitive.cost.clears == 3

    def test_pages_that_come_and_go(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, ABSENT, ABSENT, page(5), page(6), page(7), FAULT)
        assert setup.prepare() == [True] * 5 + [False]
        # faulted in; still absent; swapped; moved (its old frame is free); looks the same
        setup.tables.entries[:4] = [page(20), ABSENT, ABSENT, page(21)]
        use(bitmap, 5, 6)
        assert setup.check() == [ACCESSED, NOT_ACCESSED, UNKNOWN, UNKNOWN, NOT_ACCESSED, UNKNOWN]

    def test_pages_without_a_bit_are_replaced(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, page(5), page(6), page(7))
        setup.info.of[5] = 0
        assert setup.primitive.prepare(frames(0, 1)).tolist() == [False, True]
        assert setup.primitive.replace(np.array([0]), frames(2)).tolist() == [True]
        assert setup.check() == [NOT_ACCESSED, NOT_ACCESSED]
        assert setup.primitive.prepare(frames(0, 1)).tolist() == [False, True]
        assert setup.check() == [UNKNOWN, NOT_ACCESSED]

    def test_a_huge_page_answers_through_its_first_frame(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, (1024 + 1, LEVEL_2M, False), page(2048 + 77))  # bit 12 of an entry is no frame
        setup.info.folio(1024, 512)
        setup.info.folio(2048, 512)  # a huge page that is mapped piece by piece
        assert setup.prepare() == [True, True]
        assert setup.check() == [NOT_ACCESSED] * 2
        use(bitmap, 1024, 2048)
        assert setup.check() == [ACCESSED] * 2

    def test_another_address_space_says_nothing(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, page(5), ABSENT)
        setup.prepare()
        setup.tables.space = 2000
        assert setup.check() == [UNKNOWN, UNKNOWN]

    def test_nothing_to_ask(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process)
        assert setup.prepare() == []
        assert setup.check() == []


class TestTables:
    """Answers from the page tables, cleared through the bitmap."""

    def test_only_young_pages_are_marked(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, page(5, young=True), page(6), page(7), tables=True)
        setup.info.of[6] = 0  # has no bit, needs none
        assert setup.prepare() == [True] * 3
        assert bitmap.read(frames(5, 6, 7))[0].tolist() == [True, False, False]
        setup.tables.entries[:] = [page(5), page(6, young=True), page(7)]
        assert setup.check() == [NOT_ACCESSED, ACCESSED, NOT_ACCESSED]
        assert setup.primitive.cost.clears == 1

    def test_a_young_page_that_cannot_be_cleared(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, page(5, young=True), tables=True)
        setup.info.of[5] = 0
        assert setup.prepare() == [False]
        assert setup.check() == [UNKNOWN]

    def test_pages_that_come_and_go(self, bitmap: IdleBitmap, process: Process) -> None:
        setup = Setup(bitmap, process, ABSENT, ABSENT, page(5), page(6), tables=True)
        setup.prepare()
        setup.tables.entries[:] = [page(20), ABSENT, ABSENT, page(21, young=True)]
        assert setup.check() == [ACCESSED, NOT_ACCESSED, UNKNOWN, UNKNOWN]

    def test_it_needs_a_walk(self, process: Process) -> None:
        with pytest.raises(ValueError, match="walk"):
            IdlePrimitive(process, tables=True)


class Pages:
    """Stands in for StructPages: every frame is plain memory of nobody's unless it is named otherwise."""

    def __init__(self) -> None:
        self.kinds: dict[int, int] = {}
        self.heads: dict[int, int] = {}

    def look(self, frames: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        numbers = frames.tolist()
        heads = np.array([self.heads.get(frame, frame) for frame in numbers], np.uint64)
        return heads, np.array([self.kinds.get(frame, LISTED) for frame in numbers], np.uint8)

    def refresh(self) -> None: ...


class TestOwnPages:
    """Pages whose only page-table entry is known."""

    def setup(self, bitmap: IdleBitmap, process: Process, *entries: tuple[int, int, bool]) -> tuple[Setup, Pages]:
        made, struct_pages = Setup(bitmap, process, *entries), Pages()
        made.primitive = IdlePrimitive(process, made.tables, watch=FrameWatch(bitmap, made.info, struct_pages))
        return made, struct_pages

    def test_the_bitmap_is_left_alone(self, bitmap: IdleBitmap, process: Process) -> None:
        setup, struct_pages = self.setup(bitmap, process, page(10), page(4000), page(9000))
        struct_pages.kinds |= dict.fromkeys((10, 4000, 9000), LISTED | OWN)
        assert setup.prepare() == [True] * 3
        setup.tables.entries[1:] = [page(4000, young=True), page(9001)]
        assert setup.check() == [NOT_ACCESSED, ACCESSED, UNKNOWN]
        assert bitmap.calls == 0
        assert setup.info.reads == 0

    def test_a_young_one_is_marked_but_not_asked(self, bitmap: IdleBitmap, process: Process) -> None:
        setup, struct_pages = self.setup(bitmap, process, page(10, young=True), page(4000, young=True))
        struct_pages.kinds |= {10: LISTED | OWN | YOUNG, 4000: OWN | YOUNG}  # the other one has no bit
        assert setup.prepare() == [True, False]
        assert bitmap.read(frames(10, 4000))[0].tolist() == [True, False]
        before = bitmap.calls
        setup.tables.entries[0] = page(10)
        assert setup.check() == [NOT_ACCESSED, UNKNOWN]
        assert bitmap.calls == before

    def test_those_of_several_are_asked_through_the_bitmap(self, bitmap: IdleBitmap, process: Process) -> None:
        setup, struct_pages = self.setup(bitmap, process, page(10), page(4000), page(4001))
        struct_pages.heads[4001] = 4000
        assert setup.prepare() == [True] * 3
        use(bitmap, 4000)  # by another process: the entry shows nothing
        assert setup.check() == [NOT_ACCESSED, ACCESSED, ACCESSED]

    def test_replaced_pages_keep_the_others_as_they_are(self, bitmap: IdleBitmap, process: Process) -> None:
        setup, struct_pages = self.setup(bitmap, process, page(10), page(11), page(12))
        struct_pages.kinds[11] = LISTED | OWN
        setup.primitive.prepare(frames(0, 2))
        assert setup.primitive.replace(np.array([1]), frames(1)).tolist() == [True]
        setup.tables.entries[1] = page(11, young=True)
        use(bitmap, 10)
        assert setup.check() == [ACCESSED, ACCESSED]

    def test_calls_for_a_sample(self, bitmap: IdleBitmap, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        """One for each page that is not its process's own to mark, and one to ask; none for the others."""
        entries = [page(1000 * at) for at in range(1, 131)]
        setup, struct_pages = self.setup(bitmap, process, *entries)
        struct_pages.kinds |= {1000 * at: LISTED | OWN for at in range(1, 101)}
        calls = _counted(monkeypatch)
        setup.prepare()
        assert calls == {"pread": 0, "pwrite": 30}
        setup.check()
        assert calls == {"pread": 30, "pwrite": 30}


def _counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts of calls from now on (what the stand-in for the kernel's writes reads is not counted)."""
    calls = dict.fromkeys(("pread", "pwrite"), 0)
    inside: list[str] = []

    def wrap(name: str) -> None:
        plain = getattr(os, name)

        def call(*words: Any) -> Any:
            calls[name] += not inside
            inside.append(name)
            try:
                return plain(*words)
            finally:
                inside.pop()

        monkeypatch.setattr(os, name, call)

    wrap("pread")
    wrap("pwrite")
    return calls


class TestFramesLookedAt:
    """Physical memory, by struct pages."""

    OLD, HOT, MARKABLE = LISTED | OWN, LISTED | OWN | YOUNG, LISTED

    def primitive(self, bitmap: IdleBitmap, kinds: dict[int, int]) -> tuple[IdleFrames, Pages]:
        struct_pages = Pages()
        struct_pages.kinds |= kinds
        return IdleFrames(FrameWatch(bitmap, Flags(), struct_pages)), struct_pages

    @pytest.mark.parametrize(
        ("before", "after", "used", "expected"),
        [
            (OLD, OLD, False, NOT_ACCESSED),
            (OLD, HOT, False, ACCESSED),
            (OLD, 0, False, NOT_ACCESSED),  # freed
            (OLD, LISTED, False, UNKNOWN),  # mapped by several by now, or allocated anew: the entry is not known
            (HOT, OLD | IDLE, False, NOT_ACCESSED),
            (HOT, HOT | IDLE, False, ACCESSED),
            (HOT, HOT, False, ACCESSED),
            (HOT, OLD, False, ACCESSED),  # the bitmap was read by somebody, or read(2) used the page
            (HOT, LISTED | IDLE, False, NOT_ACCESSED),  # mapped by several by now
            (HOT, LISTED | IDLE, True, ACCESSED),
            (HOT, 0, True, NOT_ACCESSED),
            (MARKABLE, LISTED | IDLE, False, NOT_ACCESSED),
            (MARKABLE, LISTED | IDLE, True, ACCESSED),
            (MARKABLE, LISTED, True, ACCESSED),
            (MARKABLE, 0, True, NOT_ACCESSED),
            (0, 0, False, NOT_ACCESSED),
            (0, LISTED, False, ACCESSED),  # allocated, or put on a list, since
            (0, OLD, False, ACCESSED),
        ],
    )
    def test_what_becomes_of_a_frame(
        self, bitmap: IdleBitmap, before: int, after: int, used: bool, expected: int
    ) -> None:
        primitive, struct_pages = self.primitive(bitmap, {7: before})
        assert primitive.prepare(frames(7) * np.uint64(PAGE)).all()
        struct_pages.kinds[7] = after
        if used:
            use(bitmap, 7)
        assert primitive.check().tolist() == [expected]

    def test_a_folio_that_was_put_together_meanwhile(self, bitmap: IdleBitmap) -> None:
        primitive, struct_pages = self.primitive(bitmap, {513: LISTED, 512: LISTED | IDLE})
        primitive.prepare(frames(513) * np.uint64(PAGE))
        struct_pages.heads[513], struct_pages.kinds[513] = 512, LISTED | IDLE
        assert primitive.check().tolist() == [ACCESSED]

    def test_calls_for_a_sample(self, bitmap: IdleBitmap, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = {1000 * at: self.OLD if at <= 60 else self.HOT if at <= 80 else LISTED for at in range(1, 131)}
        kinds |= {1000 * at: 0 for at in range(101, 131)}  # free
        primitive, struct_pages = self.primitive(bitmap, kinds)
        calls = _counted(monkeypatch)
        primitive.prepare(frames(*kinds) * np.uint64(PAGE))
        assert calls == {"pread": 0, "pwrite": 40}  # 20 that are young, 20 that are not one process's own
        for frame, kind in kinds.items():
            if kind:
                struct_pages.kinds[frame] = kind & ~YOUNG | IDLE
        assert (primitive.check() == NOT_ACCESSED).all()
        assert calls == {"pread": 20, "pwrite": 40}


class TestFrames:
    """Physical memory."""

    def test_free_frames_are_not_accessed(self, bitmap: IdleBitmap) -> None:
        info = Flags()
        info.of |= {2: 0, 3: 0, 4: LRU}
        primitive = IdleFrames(FrameWatch(bitmap, info))
        assert primitive.prepare(frames(1, 2, 3, 4, 5) * np.uint64(PAGE)).all()
        use(bitmap, 4, 5)
        info.of |= {3: LRU, 4: 0}  # 3 was allocated, 4 was freed
        assert primitive.check().tolist() == [NOT_ACCESSED, NOT_ACCESSED, ACCESSED, NOT_ACCESSED, ACCESSED]

    def test_replace(self, bitmap: IdleBitmap) -> None:
        primitive = IdleFrames(FrameWatch(bitmap, Flags()))
        primitive.prepare(frames(1, 2, 3) * np.uint64(PAGE))
        primitive.replace(np.array([1]), frames(9) * np.uint64(PAGE))
        use(bitmap, 2, 3)
        assert primitive.check().tolist() == [NOT_ACCESSED, NOT_ACCESSED, ACCESSED]

    def test_memory_that_is_gone(self, bitmap: IdleBitmap) -> None:
        primitive = IdleFrames(FrameWatch(bitmap, Flags()))
        primitive.prepare(frames(1, 2) * np.uint64(PAGE))
        os.truncate(bitmap.path, 0)
        assert primitive.check().tolist() == [UNKNOWN, UNKNOWN]
