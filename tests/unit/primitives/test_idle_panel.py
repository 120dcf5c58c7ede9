"""A page panel beside the windows of regions on one idle bitmap: neither takes an access away from the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pydamon.linux.idle_bitmap import LISTED, OWN, FrameWatch, IdleBitmap
from pydamon.linux.process import Process
from pydamon.ops.panel import ProcessPanel
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED
from pydamon.primitives.idle import IdlePrimitive
from pydamon.primitives.page_tables import LEVEL_4K, X86_4
from pydamon.spec.primitives import facts

PAGES = 12
FOLIO = 4  # pages 0 to 3 are one folio


class Machine:
    """One process with `PAGES` pages; page n is in the frame 100 + n. The first `FOLIO` are one folio.

    It stands in for the bitmap, what looks at frames, and the walk of the page tables: a mark clears the accessed bits
    of all of a folio's pages, an access takes the folio's mark away.
    """

    trouble = None

    def __init__(self, own: bool) -> None:
        self.young = np.zeros(PAGES, np.bool_)
        self.idle = np.zeros(PAGES, np.bool_)  # by the first page of each folio
        self.frame = np.arange(PAGES, dtype=np.uint64) + np.uint64(100)
        self.kind = LISTED | (OWN if own else 0)
        self.space = 7

    def access(self, page: int) -> None:
        self.young[page] = True
        self.idle[self.head(page)] = False

    @staticmethod
    def head(page: int) -> int:
        return 0 if page < FOLIO else page

    def look(self, frames: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        heads = [100 + self.head(frame - 100) for frame in frames.tolist()]
        return np.array(heads, np.uint64), np.full(len(frames), self.kind, np.uint8)

    def refresh(self) -> None: ...

    def close(self) -> None: ...

    def mark(self, heads: NDArray[np.uint64]) -> NDArray[np.bool_]:
        for head in (heads - np.uint64(100)).tolist():
            pages = slice(0, FOLIO) if head == 0 else slice(head, head + 1)
            self.young[pages] = False
            self.idle[head] = True
        return np.ones(len(heads), np.bool_)

    def read(self, heads: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.idle[(heads - np.uint64(100)).astype(np.intp)], np.ones(len(heads), np.bool_)

    def walk_space(self, pid: int, addresses: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any], int]:
        pages = (addresses >> np.uint64(12)).astype(np.intp)
        entries = self.frame[pages] << np.uint64(12) | np.uint64(1)
        entries |= np.where(self.young[pages], np.uint64(X86_4.accessed), np.uint64(0))
        return entries, np.full(len(pages), LEVEL_4K, np.uint8), self.space

    def frames(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return entries >> np.uint64(12)

    def accessed(self, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return X86_4.accessed_of(entries)


def opened(process: Process, *, tables: bool, own: bool) -> tuple[Machine, IdlePrimitive]:
    machine = Machine(own)
    watch = FrameWatch(cast(IdleBitmap, machine), cast(Any, machine), pages=cast(Any, machine))
    return machine, IdlePrimitive(process, machine, watch=watch, tables=tables)


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    found = Process(os.getpid())
    yield found
    found.close()


def addresses(*pages: int) -> NDArray[np.uint64]:
    return np.array(pages, np.uint64) << np.uint64(12)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("access"), st.integers(0, PAGES - 1)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("sample"), st.sets(st.integers(0, PAGES - 1), min_size=1, max_size=4)),
        st.tuples(st.just("keep"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, tables=st.booleans(), own=st.booleans())
def test_both_see_each_access(process: Process, steps: list[tuple[str, Any]], tables: bool, own: bool) -> None:
    """By the bitmap all pages of a folio are one; by entries each is told apart, and nothing is missed by either."""
    machine, primitive = opened(process, tables=tables, own=own)
    panel = primitive.open_panel()
    asked = [1, 2, 5, 8]
    panel.look(addresses(*asked))
    drawn = [0, 5, 9]
    primitive.prepare(addresses(*drawn))
    by_panel: set[int] = set()
    by_regions: set[int] = set()
    apart = tables or own

    def same(page: int, accessed: set[int]) -> bool:
        return page in accessed or (not apart and any(Machine.head(one) == Machine.head(page) for one in accessed))

    for what, which in [*steps, ("look", 0), ("keep", 0)]:
        if what == "access":
            machine.access(which)
            by_panel.add(which)
            by_regions.add(which)
        elif what == "look":
            found, unknown = panel.look(addresses(*asked))
            assert not unknown.any()
            assert found.tolist() == [same(page, by_panel) for page in asked]
            by_panel.clear()
        else:
            expected = [ACCESSED if same(page, by_regions) else NOT_ACCESSED for page in drawn]
            assert primitive.check().tolist() == expected
            drawn = sorted(which) if what == "sample" else drawn
            primitive.prepare(addresses(*drawn))
            by_regions.clear()


def test_pages_come_and_go_and_another_program_is_unknown(process: Process) -> None:
    machine, primitive = opened(process, tables=False, own=False)
    panel = primitive.open_panel()
    panel.look(addresses(5, 6))
    machine.access(5)
    machine.access(7)
    found, unknown = panel.look(addresses(7, 5))
    assert (found.tolist(), unknown.tolist()) == ([False, True], [False, False])  # nobody has asked about 7 before
    machine.frame[7] = np.uint64(110)  # moved
    assert panel.look(addresses(7, 5))[1].tolist() == [True, False]
    machine.space += 1
    assert panel.look(addresses(7, 5))[1].all()


def test_an_action_is_told_before_it_clears(process: Process) -> None:
    machine, primitive = opened(process, tables=True, own=False)
    panel = primitive.open_panel()
    panel.look(addresses(5, 6))
    machine.access(5)
    panel.before_clear(addresses(4), np.array([2 << 12], np.uint64))
    machine.young[:] = False
    assert panel.look(addresses(5, 6))[0].tolist() == [True, False]


def test_the_panel_of_an_operations_set_asks_through_it(process: Process) -> None:
    machine, primitive = opened(process, tables=False, own=False)

    class Targets:
        primitives = (primitive,)

    panel = ProcessPanel(Targets(), None)
    panel.look(0, addresses(5, 6))
    machine.access(6)
    assert panel.look(0, addresses(5, 6))[0].tolist() == [False, True]
    primitive.close()
    assert primitive.panel is None


def test_who_sees_pages_has_a_panel() -> None:
    assert [name for name in ("bpf", "bpf+idle", "idle", "smaps", "soft-dirty") if facts(name).has_panel] == [
        "bpf", "bpf+idle", "idle",
    ]  # fmt: skip
