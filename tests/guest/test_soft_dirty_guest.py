"""Writes are told from reads on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.unit.primitives.bpf_child import MIB, Child, pages, started_child

from pydamon.primitives import soft_dirty
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.bpf import PageTableWalk
from pydamon.primitives.soft_dirty import SoftDirtyPrimitive

pytestmark = pytest.mark.guest


@pytest.fixture
def child() -> Iterator[Child]:
    yield from started_child()


@pytest.fixture(params=["pagemap", "walk"])
def primitive(request: pytest.FixtureRequest, child: Child) -> Iterator[SoftDirtyPrimitive]:
    walk = PageTableWalk() if request.param == "walk" else None
    opened = SoftDirtyPrimitive(child.process, walk)
    yield opened
    opened.close()
    if walk is not None:
        walk.close()


def test_writes_are_told_from_reads(child: Child, primitive: SoftDirtyPrimitive) -> None:
    soft_dirty.probe()
    at = child.do("add", "a", MIB)
    child.do("touch", "a", *range(200))
    every = pages(at, 256)
    for _ in range(3):
        assert primitive.prepare(every).all()
        child.do("touch", "a", *range(10, 20))
        child.do("load", "a", *range(30, 210))
        answers = primitive.check()
        assert np.flatnonzero(answers == ACCESSED).tolist() == list(range(10, 20))
        assert UNKNOWN not in answers
    assert primitive.cost.clears == 3
    # The first writes to pages that were not there.
    primitive.prepare(every)
    child.do("touch", "a", 250)
    answers = primitive.check()
    assert np.flatnonzero(answers == ACCESSED).tolist() == [250]


def test_huge_pages(child: Child, primitive: SoftDirtyPrimitive) -> None:
    at = child.do("add", "h", 4 * MIB, "huge")
    child.do("touch", "h", "all")
    assert primitive.prepare(pages(at, 8, 128)).all()
    child.do("load", "h", "all")
    assert primitive.check().tolist() == [NOT_ACCESSED] * 8
    primitive.prepare(pages(at, 8, 128))
    child.do("touch", "h", 128)
    answers = primitive.check()
    # Clearing leaves a huge page one; the kernel may have taken it apart at the write.
    assert answers[1] == ACCESSED
    assert (answers[4:] == NOT_ACCESSED).all()


def test_an_exec_says_nothing(child: Child, primitive: SoftDirtyPrimitive) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    primitive.prepare(pages(at, 100))
    child.do("again")
    child.do("add", "z", 4096)  # the new program has answered
    assert (primitive.check() == UNKNOWN).all()
    primitive.update()
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    assert primitive.prepare(pages(at, 100)).all()
    child.do("touch", "a", *range(50))
    assert primitive.check().tolist() == [ACCESSED] * 50 + [NOT_ACCESSED] * 50
