"""What probes have hit, in records of damo: counts with each region; what they are about is told elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.records.decode import Rows
from pydamon.records.formats.damo_values import DamoRegion, numbers
from pydamon.records.hits import TABLE, ProbedRegions
from pydamon.records.side_tables import TABLES
from pydamon.spec.probes import MAX_PROBES, Probe, describe_probe


def hits_of(regions: Sequence[DamoRegion]) -> NDArray[np.uint64] | None:
    """The hits of the probes, shape (probes, n); None where there are none.

    Raises ValueError if they are no numbers, or of another number of probes from region to region.
    """
    told = [region.probe_hits for region in regions]
    if not any(told):
        return None
    count = len(told[0]) if isinstance(told[0], list) else 0
    if not 0 < count <= MAX_PROBES or not all(isinstance(each, list) and len(each) == count for each in told):
        raise ValueError("not as many hits for each region")
    flat = [value if isinstance(value, int | float | str) else None for each in told for value in each or ()]
    found, good = numbers(flat)
    if not good.all():
        raise ValueError("hits that are no numbers")
    return found.reshape(len(regions), count).T


def probed(rows: Rows, hits: NDArray[np.uint64], probes: Sequence[Probe]) -> ProbedRegions:
    """The hits of the regions of one snapshot. Raises ValueError if they cannot be those of such a snapshot."""
    _, target, start_ns, end_ns, sample_us, aggr_us = rows.index[0].tolist()
    samples = max(aggr_us // max(sample_us, 1), 1)
    disjoint = (rows.start < rows.end).all() and (rows.end[:-1] <= rows.start[1:]).all()
    if not disjoint or (hits > samples).any() or hits.size > TABLES[TABLE].most_rows:
        raise ValueError("more hits than samples, regions that overlap, or too many for a table")
    known = len(probes) == len(hits)
    names = tuple(map(describe_probe, probes)) if known else tuple(f"probe {number}" for number in range(len(hits)))
    return ProbedRegions(
        time_ns=end_ns,
        duration_ns=end_ns - start_ns,
        target=target,
        attributes=names,
        weights=tuple(probe.weight for probe in probes) if known else (0,) * len(hits),
        start=rows.start,
        end=rows.end,
        nr_accesses=rows.nr_accesses,
        age=rows.age,
        samples=np.full(len(rows.start), samples, np.uint32),
        hits=hits.astype(np.uint32),
    )
