"""Batches of advice: the kernel's limits, and going on behind what is refused."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux import madvise

GIB = 1 << 30


class Target:
    pid = 0
    pidfd = -1

    def __init__(self) -> None:
        self.lives = True

    def alive(self) -> bool:
        return self.lives


class Kernel:
    """Does as process_madvise: advises ranges in order up to a refused one, and counts whole ranges only."""

    def __init__(self, refused: dict[int, int] | None = None) -> None:
        self.refused = refused or {}
        self.advised: list[tuple[int, int]] = []
        self.calls = 0

    def __call__(self, pidfd: int, starts: np.ndarray, lengths: np.ndarray, advice: int) -> tuple[int, int]:
        self.calls += 1
        assert len(starts) <= 1024
        assert int(lengths.sum()) <= 0x7FFF_F000
        done = 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            if start in self.refused:
                return (done, 0) if done else (-1, self.refused[start])
            self.advised.append((start, length))
            done += length
        return done, 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(madvise, "_call", made)
    return made


def ranges(*starts: int, size: int = 4096) -> np.ndarray:
    return np.array([(start, start + size) for start in starts], np.uint64).reshape(-1, 2)


def test_more_than_one_call_holds(kernel: Kernel) -> None:
    many = ranges(*range(0, 3000 * 8192, 8192))
    assert madvise.advise(Target(), many, 20).all()  # type: ignore[arg-type]
    assert kernel.calls == 3
    assert len(kernel.advised) == 3000


def test_a_call_takes_less_than_two_gib(kernel: Kernel) -> None:
    assert madvise.advise(Target(), ranges(0, 16 * GIB, size=5 * GIB), 20).tolist() == [True, True]  # type: ignore[arg-type]
    assert sum(length for _, length in kernel.advised) == 10 * GIB
    assert len({start for start, _ in kernel.advised}) == len(kernel.advised)  # nothing twice


def test_what_is_refused_is_left_out(kernel: Kernel) -> None:
    kernel.refused = {8192: errno.ENOMEM, 0: errno.ENOMEM, 65536: errno.EFAULT}
    accepted = madvise.advise(Target(), ranges(0, 8192, 16384, 65536), 20)  # type: ignore[arg-type]
    assert accepted.tolist() == [False, False, True, False]
    assert kernel.advised == [(16384, 4096)]


def test_the_rest_of_a_mapping_that_refuses_is_not_tried(kernel: Kernel) -> None:
    kernel.refused = {8192: errno.EINVAL}
    mapping = np.array([0, 1, 1, 2])
    accepted = madvise.advise(Target(), ranges(0, 8192, 16384, 65536), 20, mapping)  # type: ignore[arg-type]
    assert accepted.tolist() == [True, False, False, True]
    assert (16384, 4096) not in kernel.advised


def test_a_range_advised_in_part_does_not_stop_the_rest(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_part(pidfd: int, starts: np.ndarray, lengths: np.ndarray, advice: int) -> tuple[int, int]:
        return (100, 0) if starts[0] == 0 else kernel(pidfd, starts, lengths, advice)

    monkeypatch.setattr(madvise, "_call", in_part)
    assert madvise.advise(Target(), ranges(0, 8192), 20).tolist() == [False, True]  # type: ignore[arg-type]


def test_an_end_of_the_process_ends_it(kernel: Kernel) -> None:
    kernel.refused = {8192: errno.ESRCH}
    assert madvise.advise(Target(), ranges(0, 8192, 16384), 20).tolist() == [True, False, False]  # type: ignore[arg-type]


def test_no_permission_is_an_error_only_while_the_process_lives(kernel: Kernel) -> None:
    kernel.refused = {8192: errno.EPERM}
    target = Target()
    with pytest.raises(MachineError, match="CAP_SYS_NICE"):
        madvise.advise(target, ranges(0, 8192), 20)  # type: ignore[arg-type]
    target.lives = False
    assert madvise.advise(target, ranges(0, 8192), 20).tolist() == [True, False]  # type: ignore[arg-type]


def test_an_interrupted_call_is_made_again_but_not_for_ever(kernel: Kernel) -> None:
    kernel.refused = {0: errno.EINTR}
    assert madvise.advise(Target(), ranges(0, 8192), 20).tolist() == [False, True]  # type: ignore[arg-type]
