"""Fixed ranges stay what they are, whatever the process maps."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from pydamon.errors import RequestError
from pydamon.linux.process import Process
from pydamon.ops.fvaddr import FvaddrOps, whole_pages
from pydamon.ops.sampling import PageSampler
from pydamon.ops.vaddr import NO_RANGES
from pydamon.primitives.base import ACCESSED, PrimitiveCost


class FakePrimitive:
    """Every page counts as accessed."""

    name = "fake"

    def __init__(self, process: Process) -> None:
        self.cost = PrimitiveCost()
        self.updates = 0
        self.asked = np.empty(0, np.uint64)

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self.asked = addresses.copy()
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        raise AssertionError

    def check(self) -> np.ndarray:
        return np.full(len(self.asked), ACCESSED, np.uint8)

    def update(self) -> None:
        self.updates += 1

    def close(self) -> None: ...


@pytest.fixture
def process() -> Iterator[Process]:
    opened = Process(os.getpid())
    yield opened
    opened.close()


def ranges(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.uint64).reshape(-1, 2)


def test_ranges_stay_over_updates(process: Process) -> None:
    ops = FvaddrOps([process], FakePrimitive, ranges=[ranges((0x10000, 0x20000), (0x40000, 0x50000))])
    assert ops.init()[0].tolist() == [[0x10000, 0x20000], [0x40000, 0x50000]]
    for _ in range(3):
        assert ops.update() == [None]
    assert ops.primitives[0].updates == 3  # type: ignore[attr-defined]
    assert ops.mappings(0)
    assert ops.name == "fvaddr"


def test_samples_lie_in_the_ranges(process: Process) -> None:
    ops = FvaddrOps([process], FakePrimitive, ranges=[ranges((0x10000, 0x20000))])
    (own,) = ops.init()
    assert isinstance(ops.sampler, PageSampler)
    ops.sampler.prepare_access_checks(0, own[:, 0], own[:, 1])
    assert ops.sampler.check_accesses(0).tolist() == [ACCESSED]
    (asked,) = ops.primitives[0].asked.tolist()  # type: ignore[attr-defined]
    assert 0x10000 <= asked < 0x20000
    assert asked % 4096 == 0


def test_a_process_without_ranges(process: Process) -> None:
    with pytest.raises(RequestError, match="has no range to monitor"):
        FvaddrOps([process], FakePrimitive, ranges=[NO_RANGES])
    with pytest.raises(RequestError, match="0 of 1"):
        FvaddrOps([process], FakePrimitive, ranges=[])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(0x1001, 0x1fff)], [[0x1000, 0x2000]]),
        ([(0x5000, 0x6000), (0x1000, 0x2000), (0x2000, 0x3000)], [[0x1000, 0x3000], [0x5000, 0x6000]]),
        ([(0x1000, 0x9000), (0x2000, 0x3000)], [[0x1000, 0x9000]]),
        ([(0x1000, 0x1000), (0x3000, 0x2000)], []),
    ],
)  # fmt: skip
def test_whole_pages(given: list[tuple[int, int]], expected: list[list[int]]) -> None:
    assert whole_pages(ranges(*given)).tolist() == expected
