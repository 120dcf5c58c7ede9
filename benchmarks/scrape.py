"""What a scrape of metrics takes: many targets in as many containers, each with mappings, regions and a page panel.

Times are medians of CPU time, of which a scrape has two parts: the view of the moment with the metrics, and their text.
A real scrape over HTTP is by the clock, and finds something new each time. What the monitoring thread pays is what
keeping a moment takes (`pydamon.views.store.Store.note`), once per aggregation, whether anybody asks or not.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from prometheus_client.exposition import choose_encoder

from pydamon.core.panel import BOUNDS_S
from pydamon.core.snapshot import Snapshot
from pydamon.linux.containers import Container
from pydamon.linux.process import Mapping
from pydamon.run.found import Found, Origin
from pydamon.service.metrics import publish
from pydamon.views.live import Live, live
from pydamon.views.metrics import families
from pydamon.views.moments import Moment
from pydamon.views.store import Store

_Value = TypeVar("_Value")
SECOND = 10**9
PAGE = 4096
FORMATS = {"text": "", "OpenMetrics": "application/openmetrics-text; version=1.0.0"}


class Machine:
    """Targets that are found anew each second: each with ``regions`` regions over ``mappings`` mappings."""

    def __init__(self, targets: int, regions: int, mappings: int) -> None:
        self._rng = np.random.default_rng(1)
        self._regions = regions
        self._targets = range(targets)
        size = 400 * PAGE
        self._mappings = {
            target: [
                Mapping(n * size, (n + 1) * size, "rw-p", 0, 0, f"/usr/lib/lib{n // 4}.so" if n % 5 else "")
                for n in range(mappings)
            ]
            for target in self._targets
        }
        self._span = mappings * size // PAGE
        self.store = Store()
        rows = [
            {"target": target, "pid": 1000 + target, "command": f"worker --number {target}"} for target in self._targets
        ]
        self.store.begin(Origin("user", "the only one", "vaddr", "bpf", "the best", rows, 0))
        self._places = {target: self._place(target) for target in self._targets}

    def _place(self, target: int) -> Container:
        number, pod = f"{target:064x}", f"{target:032x}"
        path = (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-{number}.scope"
        )
        return Container(path, number, pod, f"team-{target % 10}", f"web-frontend-7f6f9c4d8-x{target:04d}", "server")

    def found(self, second: int) -> Found:
        """What is found in one aggregation."""
        return Found(
            second * SECOND,
            [self._snapshot(target, second) for target in self._targets],
            self._mappings,
            {"panel": [self._look(target, second) for target in self._targets]},
            True,
            self._places if second == 1 else {},
        )

    def _snapshot(self, target: int, second: int) -> Snapshot:
        edges = np.sort(self._rng.choice(self._span, self._regions + 1, replace=False)).astype(np.uint64)
        edges *= np.uint64(PAGE)
        counts = self._rng.integers(0, 3, self._regions).astype(np.uint32)
        age = self._rng.integers(0, 900, self._regions).astype(np.uint32)
        resident = (edges[1:] - edges[:-1]) // np.uint64(2)
        end_ns = second * SECOND
        head = (target, end_ns - SECOND, end_ns, 10_000, 1_000_000)
        return Snapshot(*head, edges[:-1], edges[1:], counts, age, resident=resident)

    def _look(self, target: int, second: int) -> dict[str, Any]:
        idle, unseen = ([0] * len(BOUNDS_S) for _ in range(2))
        for bound in self._rng.integers(0, len(BOUNDS_S), 64).tolist():
            idle[bound] += 1
        return {
            "time_ns": second * SECOND, "target": target, "resident_bytes": self._span * PAGE // 2, "pages": 64,
            "unknown": 0, "idle": idle, "unseen": unseen, "ended": [0] * len(BOUNDS_S),
        }  # fmt: skip


class _Metrics:
    def __init__(self, view: Live) -> None:
        self._found = families([("web", view)])
        self.series = sum(len(family.samples) for family in self._found)

    def collect(self) -> Any:
        return self._found


def cpu_ms(call: Callable[[], _Value]) -> tuple[float, _Value]:
    """CPU time of this thread for one call, and what it returned."""
    before = time.thread_time_ns()
    result = call()
    return (time.thread_time_ns() - before) / 1e6, result


def _latest(store: Store) -> Moment:
    moment = store.latest()
    assert moment is not None
    return moment


def measure(targets: int, regions: int, mappings: int, rounds: int) -> None:
    """Print what a scrape of so many targets takes."""
    machine = Machine(targets, regions, mappings)
    store = machine.store
    notes, views = [], []
    texts: dict[str, list[float]] = {name: [] for name in FORMATS}
    sizes: dict[str, bytes] = {}
    series = 0
    for second in range(1, rounds + 1):
        found = machine.found(second * 600)
        notes.append(cpu_ms(partial(store.note, found))[0])
        took_ms, told = cpu_ms(lambda: _Metrics(live(_latest(store), mappings=())))
        views.append(took_ms)
        series = told.series
        for name, accept in FORMATS.items():
            took_ms, sizes[name] = cpu_ms(partial(choose_encoder(accept)[0], told))
            texts[name].append(took_ms)
    took = _scrapes(machine, rounds)
    middle = statistics.median
    print(f"{targets:>4} targets, {regions} regions and {mappings} mappings each: {series:,} series")
    print(f"     the monitoring thread keeps a moment in {middle(notes):.2f} ms")
    for name in FORMATS:
        size, packed = len(sizes[name]), len(gzip.compress(sizes[name], 1))
        view, text = middle(views), middle(texts[name])
        cost = f"view {view:.0f} ms + text {text:.0f} ms = {view + text:.0f} ms CPU"
        print(f"     {name:<11} {cost}, {size / 1e6:.2f} MB ({packed / 1e6:.2f} MB packed)")
    print(f"     a scrape over HTTP by the clock: median {middle(took):.0f} ms, most {max(took):.0f} ms")


def _scrapes(machine: Machine, rounds: int) -> Sequence[float]:
    """The times of real scrapes, as Prometheus does them, in ms; each of something new."""
    store = machine.store
    took = []
    headers = {"Accept": FORMATS["OpenMetrics"], "Accept-Encoding": "gzip"}
    with publish("127.0.0.1:0", lambda: [("web", live(_latest(store), mappings=()))]) as where:
        for second in range(rounds + 1, 2 * rounds + 1):
            store.note(machine.found(second * 600))
            began = time.perf_counter()
            with urllib.request.urlopen(urllib.request.Request(where, headers=headers), timeout=60) as answer:
                answer.read()
            took.append((time.perf_counter() - began) * 1e3)
    return took


def main() -> None:
    """Print; options say of how much."""
    parser = argparse.ArgumentParser(prog="benchmarks scrape", description=__doc__)
    parser.add_argument("--targets", type=int, nargs="+", default=[10, 200, 1000])
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--mappings", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    for targets in asked.targets:
        measure(targets, asked.regions, asked.mappings, asked.rounds)
