"""An operations set that acts on nothing, for the tests of the core's schemes: it says what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.regions import Regions
from pydamon.errors import MachineError, RequestError
from pydamon.ops.base import Applied, sample_addresses
from pydamon.ops.sampling import StepSampler
from pydamon.spec import Intervals, Scheme

PAGE = 4096
MIB = 1 << 20
BASE = 0x7F00_0000_0000


@dataclass
class Call:
    """One application, as the operations set saw it."""

    action: str
    target: int
    spans: list[tuple[int, int]]
    allowed: list[bool]
    now_ns: int


class FakeActing(StepSampler):
    """Notes what is applied.

    ``share(start, end)`` says how many bytes of a region work out, ``passes`` how many the page filters let pass (all
    by default), ``resident(start, end)``, of arrays, how many are in memory. An application takes ``ns_per_byte`` of
    the clock; ``fails``: after how many an action fails for good.
    """

    name = "fake"

    def __init__(self, nr_targets: int = 1, clock: VirtualClock | None = None) -> None:
        self.nr_targets = nr_targets
        self.clock = clock or VirtualClock()
        self.calls: list[Call] = []
        self.ended: set[int] = set()
        self.share: Callable[[int, int], int] = lambda start, end: end - start
        self.passes: Callable[[int, int], int] = lambda start, end: end - start
        self.ns_per_byte = 0.0
        self.fails: dict[str, int] = {}
        self.node: Callable[[int, int, int], int] = lambda start, end, nid: 0
        self.refused: set[str] = set()
        self.ranges = [np.array([[BASE, BASE + 16 * MIB]], np.uint64)] * nr_targets
        self.hot: Callable[[Any], Any] = lambda addresses: np.zeros(len(addresses), np.uint8)
        self._sampled: dict[int, Any] = {}
        self._rng = np.random.default_rng(1)
        self.checks = 0
        self.resident: Callable[[Any, Any], Any] = lambda start, end: None

    # -- monitoring ---------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Any:
        return self

    def init(self) -> list[Any]:
        return list(self.ranges)

    def update(self) -> list[Any]:
        return list(self.ranges)

    def prepare_access_checks(self, target: int, start: Any, end: Any) -> None:
        self._sampled[target] = sample_addresses(start, end, self._rng)

    def check_accesses(self, target: int) -> Any:
        self.checks += 1
        return self.hot(self._sampled[target])

    def reset_aggregated(self) -> None: ...

    def target_valid(self, target: int) -> bool:
        return target not in self.ended

    def may_grow(self) -> bool:
        return False

    def mappings(self, target: int) -> list[Any]:
        return []

    def resident_bytes(self, target: int, start: Any, end: Any) -> Any:
        return self.resident(start, end)

    def cleanup(self) -> None: ...

    # -- acting -------------------------------------------------------------------------------------------------

    def check_scheme(self, scheme: Scheme) -> None:
        if scheme.action in self.refused:
            raise RequestError("cannot be done here", where="action")

    def apply_scheme(self, target: int, scheme: Scheme, start: Any, end: Any, allowed: Any) -> Applied:
        if scheme.action in self.fails and len(self.calls) >= self.fails[scheme.action]:
            raise MachineError("the permission was lost")
        spans = list(zip(start.tolist(), end.tolist(), strict=True))
        self.calls.append(Call(scheme.action, target, spans, allowed.tolist(), self.clock.now_ns()))
        self.clock.sleep_ns(int(self.ns_per_byte * sum(e - s for s, e in spans)))
        return Applied(
            applied=np.array([self.share(s, e) for s, e in spans], np.uint64),
            passed=np.array([self.passes(s, e) for s, e in spans], np.uint64),
        )

    def node_bytes(self, target: int, start: Any, end: Any, nid: int) -> int:
        return sum(self.node(s, e, nid) for s, e in zip(start.tolist(), end.tolist(), strict=True))

    # -- what was done ------------------------------------------------------------------------------------------

    def spans(self) -> list[tuple[int, int, int]]:
        """All regions that were acted on: target, start, end."""
        return [(call.target, start, end) for call in self.calls for start, end in call.spans]

    def tried_bytes(self) -> int:
        return sum(end - start for _, start, end in self.spans())


class FakeMetrics:
    """A machine whose values the test sets; None: the machine does not tell."""

    def __init__(self) -> None:
        self.free: int | None = 500
        self.psi: int | None = 0
        self.nodes: dict[tuple[int, bool], int] = {}
        self.memcgs: dict[tuple[int, str, bool], int] = {}
        self.active = 5000
        self.back: int | None = 0
        self.looks = 0

    def free_mem_permil(self) -> int:
        self.looks += 1
        if self.free is None:
            raise MachineError("no /proc/meminfo")
        return self.free

    def refaulted_bytes(self) -> int:
        if self.back is None:
            raise MachineError("nothing counts what comes back")
        return self.back

    def measure(self, metric: str, nid: int, memcg_path: str) -> int:
        if metric == "some_mem_psi_us":
            if self.psi is None:
                raise MachineError("no pressure stall information")
            return self.psi
        if metric.startswith("node_memcg_"):
            return self.memcgs[nid, memcg_path, "used" in metric]
        if metric.startswith("node_mem_"):
            return self.nodes[nid, "used" in metric]
        return {"active_mem_bp": self.active, "inactive_mem_bp": 10_000 - self.active}[metric]


INTERVALS = Intervals(sample_us=5_000, aggr_us=100_000)


def make_regions(spans: list[tuple[int, int]], nr: Any = 0, age: Any = 0) -> Regions:
    """Regions at the end of an aggregation, with these counts and ages."""
    regions = Regions(np.array([s for s, _ in spans], np.uint64), np.array([e for _, e in spans], np.uint64))
    regions.nr_accesses[:] = nr
    regions.count_samples(1, 1)
    regions.age[:] = age
    return regions


def spans_of(regions: Regions) -> list[tuple[int, int]]:
    return list(zip(regions.start.tolist(), regions.end.tolist(), strict=True))


class Bench:
    """Schemes over given regions, applied by hand: ``step`` is one aggregation interval and one look at the schemes."""

    def __init__(
        self,
        *schemes: Scheme,
        regions: list[Regions],
        ops: FakeActing | None = None,
        metrics: FakeMetrics | None = None,
        min_region: int = PAGE,
        hot: Any = None,
    ) -> None:
        self.ops = ops or FakeActing(len(regions))
        self.clock = self.ops.clock
        self.damos = Damos(ops=self.ops, clock=self.clock, metrics=metrics, min_region=min_region, hot=hot)
        self.regions = regions
        self.targets = list(range(len(regions)))
        self.passed = 0
        self.intervals = INTERVALS
        self._committed: tuple[Scheme, ...] | None = None
        self.damos.check(schemes)
        self.damos.start(schemes, self.intervals)
        self.damos.wait_ns()

    def step(self, samples: int = 20) -> list[tuple[int, int, int]]:
        """Let so many sampling intervals pass, look once; what was acted on: target, start, end."""
        before = len(self.ops.spans())
        self.clock.sleep_ns(samples * self.intervals.sample_us * 1000)
        self.passed += samples
        if self._committed is not None:
            self.damos.change(self._committed, self.passed, self.intervals)
            self._committed = None
        self.damos.wait_ns()
        self.damos.apply(self.passed, self.intervals, self.targets, self.regions)
        return self.ops.spans()[before:]

    def commit(self, *schemes: Scheme) -> None:
        """Go on with ``schemes`` from the next step on, as `Kdamond.commit` does."""
        self.damos.check(schemes)
        self._committed = schemes

    @property
    def state(self) -> Any:
        return self.damos.states[0]
