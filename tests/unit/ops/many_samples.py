"""A sampler of whole batches over memory of its own, as one inside the kernel is: it fits where `PageSampler` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pydamon.ops.base import Addresses, BatchEnd, Spans, sample_addresses
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.ops.sim.ops import SimOps
from pydamon.primitives.base import ACCESSED, UNKNOWN
from pydamon.spec import Probe

RECORD = np.dtype([("start", np.uint64), ("end", np.uint64), ("accessed", np.uint32), ("unknown", np.uint32)])


class ManySampler:
    """Samples simulated processes with the dice of `SimOps(seed=seed)`.

    One record per region of all targets lies in ``memory``: addresses are loaded when they are others, and counts with
    them; what was counted is read there, through strided views that it puts into `Counts`.
    """

    def __init__(self, ops: SimOps, seed: int) -> None:
        self.probes: Sequence[Probe] = ()
        self.memory = np.zeros(4096, RECORD)
        self.loads = 0
        self.batches: list[tuple[int, int, BatchEnd]] = []  # asked for, done, why no more
        self._ops = ops
        self._dice = [np.random.default_rng((seed, target)) for target in range(ops.nr_targets)]
        self._loaded: list[tuple[int, Addresses, Addresses, Any]] = []
        self._spans: list[Any] = []

    def sample(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        if not self._is_loaded(targets, regions, counts):
            self._load(targets, regions, counts)
        done, why = self._run(targets, counts, n, pace)
        self.batches.append((n, done, why))
        return done, why

    def _is_loaded(self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts]) -> bool:
        now = [
            (target, spans.start, spans.end, counted.accessed)
            for target, spans, counted in zip(targets, regions, counts, strict=True)
        ]
        return len(now) == len(self._loaded) and all(
            one[0] == other[0] and all(a is b for a, b in zip(one[1:], other[1:], strict=True))
            for one, other in zip(now, self._loaded, strict=True)
        )

    def _load(self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts]) -> None:
        self.loads += 1
        # First all that was counted: some of it may lie where other regions are about to be written.
        before = [(counted.accessed.copy(), counted.unknown.copy()) for counted in counts]
        self._loaded, self._spans, at = [], [], 0
        for target, spans, counted, (accessed, unknown) in zip(targets, regions, counts, before, strict=True):
            records = self.memory[at : at + len(spans.start)]
            records["start"], records["end"] = spans.start, spans.end
            records["accessed"], records["unknown"] = accessed, unknown
            counted.accessed, counted.unknown = records["accessed"], records["unknown"]
            self._loaded.append((target, spans.start, spans.end, counted.accessed))
            self._spans.append(records)
            at += len(records)

    def _run(self, targets: Sequence[int], counts: Sequence[Counts], n: int, pace: Pace) -> tuple[int, BatchEnd]:
        lived = [self._ops.target_valid(target) for target in targets]
        for done in range(n):
            if done and pace.over():
                return done, BatchEnd.INTERRUPTED
            if done and [self._ops.target_valid(target) for target in targets] != lived:
                return done, BatchEnd.TARGET_ENDED
            since_ns = pace.clock.now_ns()
            drawn = [
                sample_addresses(records["start"], records["end"], self._dice[target])
                for target, records in zip(targets, self._spans, strict=True)
            ]
            if not pace.sleep():
                return done, BatchEnd.WOKEN
            for target, records, addresses, counted in zip(targets, self._spans, drawn, counts, strict=True):
                answers = self._ops.answers(target, addresses, since_ns)
                records["accessed"] += answers == ACCESSED
                records["unknown"] += answers == UNKNOWN
                if self.probes:
                    counted.probed += 1
                    counted.hits += self._ops.apply_probes(target, addresses, self.probes)
        return n, BatchEnd.DONE
