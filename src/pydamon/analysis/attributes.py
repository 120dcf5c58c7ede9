"""How much memory has the attributes that probes counted, estimated from samples. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.hits import ProbedRegions


@dataclass(frozen=True, slots=True)
class AttributeShare:
    """Of one attribute and target, as means over the snapshots: bytes that have it, and bytes there are.

    ``accessed_*`` are of regions in which an access was found, ``idle_*`` of the others.
    """

    target: int
    attribute: str
    snapshots: int
    accessed_bytes: int
    accessed_total_bytes: int
    idle_bytes: int
    idle_total_bytes: int


def attribute_shares(parts: Iterable[ProbedRegions]) -> list[AttributeShare]:
    """The shares of each target and attribute: targets in order, attributes in the order in which they were met.

    A region's bytes count with the share of its samples that had the attribute: the estimate that DAMON's sampling
    gives. A region of which no sample was asked does not count.
    """
    sums: dict[tuple[int, str], NDArray[np.float64]] = {}  # snapshots; accessed and its total, idle and its total
    for part in parts:
        asked = part.samples > 0
        size = np.where(asked, part.end - part.start, np.uint64(0)).astype(np.float64)
        share = part.hits / np.maximum(part.samples, 1) * size
        accessed = part.nr_accesses > 0
        for number, attribute in enumerate(part.attributes):
            of_both = [1.0]
            for chosen in (accessed, ~accessed):
                of_both += [share[number, chosen].sum(), size[chosen].sum()]
            key = (part.target, attribute)
            sums[key] = sums.get(key, np.zeros(5)) + of_both
    found = []
    for target, attribute in sorted(sums, key=lambda key: key[0]):
        snapshots, *total = sums[target, attribute].tolist()
        means = (round(value / snapshots) for value in total)
        found.append(AttributeShare(target, attribute, round(snapshots), *means))
    return found
