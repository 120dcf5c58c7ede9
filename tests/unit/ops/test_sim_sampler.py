"""All samples of an aggregation at once: the same counts as one sample after another, and what the pattern says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.ops.base import BatchEnd, Sampler
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.ops.sampling import PageSampler
from pydamon.ops.sim.ops import SimOps
from pydamon.workload import builtin, model

MS = 1_000_000
S = 1000 * MS
Result = tuple[list[tuple[list[int], list[int]]], tuple[int, BatchEnd], int]


@dataclass
class Spans:
    start: np.ndarray
    end: np.ndarray


@dataclass
class Until:
    end_ns: int | None = None
    after: int = 1 << 60  # it is interrupted at this question

    def interrupted(self) -> bool:
        self.after -= 1
        return self.after < 0


def cut(ops: SimOps, target: int, n: int) -> Spans:
    (span,) = ops.init()[target]
    edges = np.linspace(span[0], span[1], n + 1, dtype=np.uint64) & ~np.uint64(4095)
    return Spans(edges[:-1], edges[1:])


def counted(sampler: Sampler, ops: SimOps, clock: VirtualClock, spans: list[Spans], n: int, until: Until) -> Result:
    counts = [Counts.zeros(len(one.start)) for one in spans]
    pace = Pace(clock, until, 5 * MS)
    pace.restart()
    done = sampler.sample(range(len(spans)), spans, counts, n, pace)
    return [(one.accessed.tolist(), one.unknown.tolist()) for one in counts], done, clock.now_ns()


@pytest.mark.parametrize(
    ("at_ns", "n", "until"),
    [
        (2 * S, 20, Until()),
        (6 * S - 52 * MS, 40, Until()),  # over a change of phases
        (2 * S, 20, Until(end_ns=2 * S + 52 * MS)),  # the end cuts a sample short
        (2 * S, 20, Until(end_ns=2 * S + 50 * MS)),
        (2 * S, 20, Until(after=7)),
        (51 * S - 23 * MS, 20, Until()),  # both end
        (13 * S - 23 * MS, 20, Until()),  # one ends
    ],
)
@pytest.mark.parametrize("name", ["stairs", "random"])
def test_the_same_as_one_sample_after_another(at_ns: int, n: int, until: Until, name: str) -> None:
    results = []
    for kind in ("at once", "each"):
        clock = VirtualClock()
        short = model.parse("x, 4 MiB\n\np\n13000\nx, 1, 4096, 1\n", source="x")
        ops = SimOps([builtin.load(name), short], clock, seed=5, accesses_per_s=1_000_000)
        spans = [cut(ops, target, 100) for target in range(2)]
        clock.sleep_ns(at_ns)
        sampler: Sampler = ops.sampler if kind == "at once" else PageSampler(ops, ops.dice)
        results.append(counted(sampler, ops, clock, spans, n, Until(until.end_ns, until.after)))
    assert results[0] == results[1]


def test_why_no_more() -> None:
    clock = VirtualClock()
    ops = SimOps(builtin.load("stairs"), clock)
    spans = cut(ops, 0, 10)
    clock.sleep_ns(51 * S - 12 * MS)
    _, done, _ = counted(ops.sampler, ops, clock, [spans], 20, Until())
    assert done == (3, BatchEnd.TARGET_ENDED)


def test_counts_are_within_three_standard_errors_of_the_binomial() -> None:
    """A page is hit with the probability that a page-by-page count of it over all pages gives."""
    clock = VirtualClock()
    workload = model.parse("a, 16 MiB\nb, 16 MiB\n\np\n600000\na, 1, 4096, 1\nb, 0, 4096, 3\n", source="x")
    ops = SimOps(workload, clock, mapping="one", seed=3, accesses_per_s=500_000)
    spans = cut(ops, 0, 16)
    clock.sleep_ns(S)
    samples = 4000
    (result,), _, _ = counted(ops.sampler, ops, clock, [spans], samples, Until())
    pages = np.arange(spans.start[0], spans.end[-1], 4096, dtype=np.uint64)
    rounds = [ops.accessed(0, pages, S + at * 5 * MS, S + (at + 1) * 5 * MS) for at in range(400)]
    share = np.mean(rounds, axis=0).reshape(16, -1).mean(axis=1)
    # Of the page-by-page way itself the error is that of its rounds: random pages are independent of each other.
    error = np.sqrt(share * (1 - share) * (1 / samples + 1 / (400 * len(pages) / 16)))
    assert (np.abs(np.array(result[0]) / samples - share) < 3 * np.maximum(error, 1e-9)).all()
    assert share[:8] == pytest.approx(-np.expm1(625 * np.log1p(-1 / 4096)), rel=0.05)
