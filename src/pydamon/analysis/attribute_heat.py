"""How hot regions are by the attributes that probes counted: weighted sums of hits, ages, temperatures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.hits import ProbedRegions

F64 = NDArray[np.float64]
USUAL_WEIGHTS = (100.0, 100.0, 0.0)  # of a temperature: the weighted sum of hits, the age in us, the size in bytes


@dataclass(frozen=True, slots=True, eq=False)
class AttributeHeat:
    """The regions of one snapshot; parallel arrays, shape (n,), as floats.

    ``sums`` are weighted sums of hits, ``ages_ns`` how long they have been about the same. ``weights`` of the probes
    are all 1 where none of them has any.
    """

    part: ProbedRegions
    weights: tuple[int, ...]
    sizes: F64
    sums: F64
    ages_ns: F64
    temperatures: F64

    @property
    def idle_ns(self) -> F64:
        """How long a region was without any hit that counts; 0 where there is one."""
        return np.where(self.sums > 0, 0.0, self.ages_ns)

    def order(self, key: str) -> NDArray[np.intp]:
        """The regions in the order of ``address``, ``probe_hits_wsum``, ``age``, ``size`` or ``temperature``."""
        values = {
            "address": self.part.start,
            "probe_hits_wsum": self.sums,
            "age": self.ages_ns,
            "size": self.sizes,
            "temperature": self.temperatures,
        }
        return np.argsort(values[key], kind="stable")


def attribute_heat(part: ProbedRegions, weights: tuple[float, float, float] = USUAL_WEIGHTS) -> AttributeHeat:
    """How hot the regions of a snapshot are: ``weights`` of the sum of hits, the age (us) and the size (bytes).

    Negative where the sum is 0: the longer, the colder.
    """
    of_probes = part.weights if any(part.weights) else (1,) * len(part.weights)
    sums = np.array(of_probes, np.float64) @ part.hits.astype(np.float64)
    sizes = (part.end - part.start).astype(np.float64)
    ages_ns = part.age.astype(np.float64) * part.duration_ns
    heat = sums * weights[0] + ages_ns / 1000 * weights[1] + sizes * weights[2]
    return AttributeHeat(part, of_probes, sizes, sums, ages_ns, np.where(sums > 0, heat, -heat))


def percentiles(values: F64, sizes: F64, at: Sequence[float]) -> list[float]:
    """The value below or at which that share (in percent) of the bytes is; of regions, at least one of them."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(sizes[order])
    wanted = np.array(at, np.float64) / 100 * reached[-1]
    places = np.minimum(np.searchsorted(reached, wanted, "left"), len(order) - 1)
    found: list[float] = values[order][places].tolist()
    return found


def histogram(values: F64, sizes: F64, bins: int) -> list[tuple[float, float, int]]:
    """Bytes by value in equally wide bins: (from, to, bytes); of equal values a single bin."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [(low, high, round(float(sizes.sum())))]
    counted, edges = np.histogram(values, bins, (low, high), weights=sizes)
    return [
        (float(left), float(right), round(float(found)))
        for left, right, found in zip(edges[:-1], edges[1:], counted, strict=True)
    ]
