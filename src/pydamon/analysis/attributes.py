"""How much memory has the attributes that probes counted, as far as samples tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.hits import ProbedRegions


@dataclass(frozen=True, slots=True)
class AttributeShare:
    """Of one probe and target, as means over the snapshots: bytes that have the attribute, and bytes there are.

    ``accessed_*`` are of regions in which an access was found, ``idle_*`` of the others.
    """

    target: int
    probe: int
    snapshots: int
    accessed_bytes: int
    accessed_total_bytes: int
    idle_bytes: int
    idle_total_bytes: int


def attribute_shares(parts: Iterable[ProbedRegions]) -> list[AttributeShare]:
    """The shares of each target and probe, in order.

    A region's bytes count with the share of its samples that had the attribute: the estimate that DAMON's sampling
    gives. Where the number of probes has changed, the last one counts.
    """
    sums: dict[int, NDArray[np.float64]] = {}  # target → (probes, 4): accessed, accessed total, idle, idle total
    counts: dict[int, int] = {}
    for part in parts:
        probes = len(part.hits)
        if part.target not in sums or len(sums[part.target]) != probes:
            sums[part.target], counts[part.target] = np.zeros((probes, 4)), 0
        size = (part.end - part.start).astype(np.float64)
        share = part.hits / part.samples * size
        for column, chosen in ((0, part.nr_accesses > 0), (2, part.nr_accesses == 0)):
            sums[part.target][:, column] += share[:, chosen].sum(axis=1)
            sums[part.target][:, column + 1] += size[chosen].sum()
        counts[part.target] += 1
    return [
        AttributeShare(target, probe, counts[target], *(round(value / counts[target]) for value in row))
        for target in sorted(sums)
        for probe, row in enumerate(sums[target].tolist())
    ]
