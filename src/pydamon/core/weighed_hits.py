"""Regions that follow what probes count, and not accesses: merging and ageing by weighted sums of hits.

As in Linux 7.3: once any probe has a weight, no access is looked for, and wherever two regions are compared, or one
with what it was, the weighted sums of the hits take the place of the access counts (docs/algorithms.md 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import I64, Regions
from pydamon.errors import RequestError, located
from pydamon.ops.base import OperationsSet, ProbingOperationsSet
from pydamon.ops.counts import Count
from pydamon.spec import Probe
from pydamon.spec.probes import attributes_only


def check(ops: OperationsSet, probes: Sequence[Probe]) -> None:
    """Raise RequestError or MachineError, naming what it is, if ``ops`` cannot ask these probes."""
    if not probes:
        return
    if not isinstance(ops, ProbingOperationsSet):
        raise RequestError("cannot be applied by this operations set", where="probes")
    with located("probes"):
        ops.check_probes(probes)


def ask(ops: OperationsSet, targets: Sequence[Regions], probes: Sequence[Probe], *, anew: bool = False) -> None:
    """Count for these probes in all regions; ``anew``: they are others than before."""
    for regions in targets:
        if anew:
            regions.counts.reset_probes()
        regions.counts.set_nr_probes(len(probes))
    ops.sampler.probes = probes


def weights_of(probes: Sequence[Probe]) -> I64 | None:
    """The weight of each probe; None if regions follow accesses."""
    return np.array([probe.weight for probe in probes], np.int64) if attributes_only(probes) else None


def weighed(hits: Count, weights: I64) -> I64:
    """The weighted sums of hits of shape (probes, n); shape (n,)."""
    result: I64 = weights @ hits.astype(np.int64, copy=False)
    return result


def levels(regions: Regions, weights: I64 | None) -> tuple[I64, I64]:
    """What regions are compared by, of this aggregation and of the one before: accesses, or weighted sums of hits."""
    if weights is None:
        return regions.nr_accesses, regions.last_nr_accesses
    return weighed(regions.counts.hits, weights), weighed(regions.counts.last_hits, weights)


def highest(targets: Sequence[Regions], weights: I64 | None) -> int:
    """The highest level of all regions."""
    return max((int(levels(regions, weights)[0].max()) for regions in targets if len(regions)), default=0)


def most(window: int, weights: I64 | None) -> int:
    """The highest level that there can be in ``window`` samples."""
    return window if weights is None else window * int(weights.sum())


def runs(
    regions: Regions, candidates: list[int], touches: NDArray[np.bool_], weights: I64, threshold: int, sz_limit: int
) -> tuple[list[int], list[int], list[int], I64]:
    """As `adjust`'s own, by weighted sums: firsts, firsts behind, ages, and hits (probes, runs).

    Hits become means that are rounded down at each region that is merged, as ages do.
    """
    heads: list[int] = []
    behinds: list[int] = []
    merged_ages: list[int] = []
    merged_hits: list[list[int]] = []
    starts, ends, beside = regions.start.tolist(), regions.end.tolist(), [*touches.tolist(), False]
    all_hits, ages = regions.counts.hits.T.tolist(), regions.age.tolist()
    sums, weight = weighed(regions.counts.hits, weights).tolist(), weights.tolist()
    behind = 0  # everything left of it has been dealt with
    for head in candidates:
        if head < behind:
            continue
        right, age, hits, total = ends[head], ages[head], all_hits[head], sums[head]
        size, i = right - starts[head], head + 1
        while True:  # region i is to be merged
            more = ends[i] - right
            whole = size + more
            age = (age * size + ages[i] * more) // whole
            hits = [(mine * size + its * more) // whole for mine, its in zip(hits, all_hits[i], strict=True)]
            total = sum(map(int.__mul__, weight, hits))
            size, right = whole, ends[i]
            i += 1
            if not beside[i - 1] or ends[i] - starts[head] > sz_limit or abs(sums[i] - total) > threshold:
                break
        behind = i
        heads.append(head)
        behinds.append(behind)
        merged_ages.append(age)
        merged_hits.append(hits)
    return heads, behinds, merged_ages, np.array(merged_hits, np.int64).reshape(-1, len(weights)).T
