"""Sampling and reports together: each sample has one answer, and it is known who gave it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.linux.process import Mapping
from pydamon.ops.base import Addresses, Hits
from pydamon.ops.beside import BesideSampler
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.ops.reported.reports import AccessFilter
from pydamon.ops.reported.sources.base import Block, LineCounts
from pydamon.ops.residency import Residency
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers, Primitive, PrimitiveCost
from pydamon.spec import Probe

PAGE = 4096
START = np.array([0x10_0000, 0x20_0000, 0x30_0000, 0x50_0000], np.uint64)
END = np.array([0x11_0000, 0x30_0000, 0x31_0000, 0x50_1000], np.uint64)  # the last is one page: it is always drawn


class Says:
    """A primitive that answers what it was told to."""

    name = "says"

    def __init__(self, *answers: int) -> None:
        self.cost = PrimitiveCost()
        self.answers = np.array(answers, np.uint8)

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        return np.ones(len(index), np.bool_)

    def check(self) -> Answers:
        return self.answers

    def update(self) -> None: ...

    def close(self) -> None: ...


class Ops:
    def __init__(self, *primitives: Primitive) -> None:
        self.primitives: Sequence[Primitive] = primitives

    def target_valid(self, target: int) -> bool:
        return True

    def residency(self, target: int) -> Residency | None:
        return None

    def prepare_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> None:
        raise AssertionError

    def apply_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        raise AssertionError


class Told:
    """A live source that gives what it was told to, block by block, and then has ended."""

    name = "told"
    complete = False
    nr_targets = 2

    def __init__(self, *blocks: Block) -> None:
        self.blocks = list(blocks)
        self.counts = LineCounts()

    def aim(self, until_ns: int) -> None: ...

    def read(self) -> Block | None:
        return self.blocks.pop(0) if self.blocks else None

    def mappings(self, target: int) -> list[Mapping]:
        return []

    def remarks(self) -> list[str]:
        return ["told"]

    def close(self) -> None: ...


def block(*rows: tuple[int, int, int, bool], lost: int = 0) -> Block:
    """Of (target, address, thread, is write)."""
    target, address, thread, write = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Block(
        address=np.array(address, np.uint64),
        size=np.ones(len(rows), np.uint64),
        when_ns=np.zeros(len(rows), np.int64),
        is_write=np.array(write, np.bool_),
        end_ns=0,
        target=np.array(target, np.uint16),
        thread=np.array(thread, np.int32),
        lost=lost,
    )


def sampler(source: Told, *primitives: Says, accept: AccessFilter | None = None) -> BesideSampler:
    dice = np.random.default_rng(1)
    return BesideSampler(Ops(*primitives), lambda target: dice, source, accept or AccessFilter())


def test_reports_answer_where_the_primitive_does_not() -> None:
    told = block((0, 0x10_8000, 1, False), (0, 0x10_9000, 1, False), (0, 0x2F_FFFF, 1, True), (0, 0x40_0000, 1, True))
    tried = sampler(Told(told), Says(UNKNOWN, UNKNOWN, UNKNOWN, ACCESSED))
    tried.prepare_access_checks(0, START, END)
    assert tried.check_accesses(0).tolist() == [ACCESSED, ACCESSED, UNKNOWN, ACCESSED]
    assert tried.take_rows(7) == [
        {"time_ns": 7, "target": 0, "by_primitive": 1, "by_reports": 2, "unknown": 1, "reports": 4}
    ]
    assert tried.take_rows(8) == []


def test_what_was_sampled_and_not_accessed_is_changed_only_by_a_report_of_that_page() -> None:
    """A hot page elsewhere in a large region does not make all of it hot."""
    told = block((0, 0x20_0000, 1, False), (0, 0x50_0FFF, 1, False))
    tried = sampler(Told(told), Says(NOT_ACCESSED, NOT_ACCESSED, NOT_ACCESSED, NOT_ACCESSED))
    tried.prepare_access_checks(0, START, END)
    tried._drawn[0][1] = 0x28_0000
    assert tried.check_accesses(0).tolist() == [NOT_ACCESSED, NOT_ACCESSED, NOT_ACCESSED, ACCESSED]


def test_a_report_counts_for_its_target_and_once() -> None:
    told = [block((1, 0x10_8000, 1, False), (0, 0x30_8000, 1, False)), block(), block()]
    says = Says(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN), Says(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    tried = sampler(Told(*told), *says)
    counts = [Counts.zeros(4), Counts.zeros(4)]
    clock = _Clock()
    pace = Pace(clock, clock, 1000)

    class Regions:
        start, end = START, END

    done, _ = tried.sample([0, 1], [Regions(), Regions()], counts, 2, pace)
    assert done == 2
    assert [c.accessed.tolist() for c in counts] == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert [c.unknown.tolist() for c in counts] == [[2, 2, 1, 2], [1, 2, 2, 2]]


class _Clock:
    """Time passes by sleeping only."""

    end_ns: int | None = None

    def __init__(self) -> None:
        self.time_ns = 0

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_ns(self, duration_ns: int) -> bool:
        self.time_ns += duration_ns
        return True

    def interrupted(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("accept", "accessed"),
    [
        (AccessFilter(threads=frozenset({7})), [True, False]),  # T23: threads 7 are let pass, 8 is not
        (AccessFilter(writes=True), [False, True]),
        (AccessFilter(writes=False), [True, False]),
        (AccessFilter(nodes=frozenset({0})), [False, False]),  # of which nothing was told
        (AccessFilter(), [True, True]),
    ],
)
def test_filters_hold_for_reports_beside_sampling(accept: AccessFilter, accessed: list[bool]) -> None:
    told = block((0, 0x10_8000, 7, False), (0, 0x20_8000, 8, True))
    tried = sampler(Told(told), Says(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN), accept=accept)
    tried.prepare_access_checks(0, START, END)
    assert (tried.check_accesses(0) == ACCESSED).tolist()[:2] == accessed


def test_a_source_that_ends_leaves_the_sampling_and_what_was_lost_is_said() -> None:
    tried = sampler(Told(block(lost=3)), Says(ACCESSED, UNKNOWN, UNKNOWN, NOT_ACCESSED))
    for _ in range(3):
        tried.prepare_access_checks(0, START, END)
        assert tried.check_accesses(0).tolist() == [ACCESSED, UNKNOWN, UNKNOWN, NOT_ACCESSED]
    assert tried.remarks() == ["told", "3 reports were lost: they came faster than they were read"]
    tried.forget(0)
