"""Hits of probes: counted per region and probe, kept when regions are split and merged, reset with the aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.core.test_kdamond import BASE, MIB, ScriptedOps, hot_between

from pydamon.core import adjust
from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.errors import RequestError
from pydamon.ops.base import sample_addresses
from pydamon.spec import Context, Probe
from pydamon.spec.probes import parse_probe

PAGE = 4096


class ProbingOps(ScriptedOps):
    """The first probe is of addresses below ``edge``, the second of all others."""

    def __init__(self, ranges: list[tuple[int, int]], edge: int, **more: Any) -> None:
        super().__init__(ranges, **more)
        self.edge = edge
        self.checked: list[tuple[Probe, ...]] = []

    def check_probes(self, probes: tuple[Probe, ...]) -> None:
        self.checked.append(probes)

    def prepare_probes(self, target: int, start: Any, end: Any, probes: Sequence[Probe]) -> None:
        self._addresses[target] = sample_addresses(start, end, self.rng)

    def apply_probes(self, target: int, probes: Sequence[Probe]) -> Any:
        below = self._addresses[target] < np.uint64(self.edge)
        return np.stack([below, ~below])[: len(probes)]


TWO = (parse_probe("anon"), parse_probe("!anon"))


def kdamond(ops: Any, *, probes: tuple[Probe, ...] = TWO, callbacks: Callbacks | None = None) -> Kdamond:
    return Kdamond(
        ops=ops,
        context=Context(ops="sim", probes=probes, faithful=True),
        clock=VirtualClock(),
        callbacks=callbacks or Callbacks(),
        rng=np.random.default_rng(2),
    )


def test_each_sample_is_counted_for_the_probe_whose_attribute_it_has() -> None:
    edge = BASE + 40 * MIB
    ops = ProbingOps([(BASE, BASE + 100 * MIB)], edge, hot=hot_between(BASE, BASE + 10 * MIB))
    monitored = kdamond(ops)
    for number, (snapshot,) in enumerate(monitored.monitor()):
        assert snapshot.probe_hits.shape == (2, len(snapshot.start))
        assert (snapshot.probe_samples == 20).all()
        # Every sample has one of the two; what is merged of both is a mean that is rounded down.
        both = snapshot.probe_hits.sum(axis=0)
        assert ((both == 20) | (both == 19)).all()
        inside = snapshot.end <= np.uint64(edge)
        assert (snapshot.probe_hits[:, inside].T == [20, 0]).all()
        assert (snapshot.probe_hits[:, snapshot.start >= np.uint64(edge)].T == [0, 20]).all()
        size = (snapshot.end - snapshot.start).astype(float)
        # The estimate of how much memory has the attribute: 40 of 100 MiB.
        assert (size * snapshot.probe_hits[0]).sum() / 20 / MIB == pytest.approx(40, abs=8)
        if number == 20:
            monitored.stop()
    assert ops.checked == [TWO]


def test_merging_makes_the_mean_by_size() -> None:
    # By hand: 3 pages with 20 and 2 hits beside 1 page with 0 and 7: (60 + 0) / 4 = 15, (6 + 7) / 4 = 3.25 -> 3.
    start = np.array([0, 3 * PAGE, 8 * PAGE, 9 * PAGE], np.uint64)
    end = np.array([3 * PAGE, 4 * PAGE, 9 * PAGE, 10 * PAGE], np.uint64)
    regions = Regions(start, end)
    regions.counts.set_nr_probes(2)
    regions.counts.probed[:] = [20, 20, 20, 10]
    regions.counts.hits[:] = [[20, 0, 4, 4], [2, 7, 1, 5]]
    merged = adjust.merge(regions, 0, 100 * PAGE)
    assert merged.start.tolist() == [0, 8 * PAGE]
    assert merged.counts.probed.tolist() == [20, 15]
    assert merged.probe_hits.tolist() == [[15, 4], [3, 3]]


def test_splitting_keeps_the_hits_and_a_new_aggregation_begins_at_0() -> None:
    regions = Regions(np.array([0], np.uint64), np.array([100 * PAGE], np.uint64))
    regions.counts.set_nr_probes(1)
    regions.counts.probed += 1
    regions.counts.hits += 1
    pieces = adjust.split(regions, 3, PAGE, np.random.default_rng(1))
    assert len(pieces) > 1
    assert (pieces.probe_hits == 1).all()
    assert (pieces.counts.probed == 1).all()
    pieces.reset_aggregated()
    assert (pieces.counts.probed == 0).all()
    assert (pieces.counts.hits == 0).all()


def test_probes_can_be_changed_while_it_runs() -> None:
    ops = ProbingOps([(BASE, BASE + 100 * MIB)], BASE + 50 * MIB)
    shapes = []

    def after(k: Loop) -> bool:
        assert isinstance(k, Kdamond)
        shapes.append(k.snapshots[0].probe_hits.shape[0])
        if len(shapes) == 2:
            k.commit(replace(k.context, probes=TWO[:1]))
        elif len(shapes) == 4:
            k.commit(replace(k.context, probes=()))
        return len(shapes) == 6

    kdamond(ops, callbacks=Callbacks(after_aggregation=after)).run()
    assert shapes == [2, 2, 1, 1, 0, 0]


def test_probes_that_begin_within_an_aggregation_say_of_how_many_samples() -> None:
    ops = ProbingOps([(BASE, BASE + 100 * MIB)], BASE + 100 * MIB)
    samples: list[int] = []

    def sampled(k: Loop) -> None:
        assert isinstance(k, Kdamond)
        if k.passed_samples == 25:
            k.commit(replace(k.context, probes=TWO))

    def aggregated(k: Loop) -> bool:
        if len(k.snapshots[0].probe_hits):
            assert (k.snapshots[0].probe_hits[0] == k.snapshots[0].probe_samples).all()
            samples.append(int(k.snapshots[0].probe_samples[0]))
        return len(samples) == 2

    kdamond(ops, probes=(), callbacks=Callbacks(after_sampling=sampled, after_aggregation=aggregated)).run()
    assert samples == [15, 20]


def test_an_operations_set_that_cannot_tell_is_refused() -> None:
    with pytest.raises(RequestError, match="probes: cannot be applied"):
        kdamond(ScriptedOps([(BASE, BASE + MIB)]))
