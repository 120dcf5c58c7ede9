"""How hot the memory of each mapping is from its beginning to its end, in a few cells: what a screen has room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import idle_s, rate_percent
from pydamon.analysis.summary import WARM_S, Layout, divided
from pydamon.core.snapshot import Snapshot

UNKNOWN = -1
LEVELS = 5  # idle for `WARM_S` or longer, used since, then thirds of the samples found it accessed
Strip = NDArray[np.int8]


def strips(snapshot: Snapshot, layout: Layout, cells: int) -> dict[tuple[str, str], Strip]:
    """Of each (name, kind) that has memory: a level, 0 to ``LEVELS`` - 1, or UNKNOWN, for each of ``cells`` parts.

    The parts are equally large in memory (what is resident), in address order.
    """
    batch, group = divided(snapshot, layout)
    known, unknown = batch.memory.astype(np.float64), batch.unknown_memory.astype(np.float64)
    rate, warm = rate_percent(batch) / 100, (idle_s(batch) < WARM_S) | (batch.nr_accesses > 0)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(layout.names) + 1))
    found = {}
    for name, begin, end in zip(layout.names, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        mine = order[begin:end]
        size = known[mine] + unknown[mine]
        if size.sum():
            found[name] = _levels(size, known[mine], known[mine] * rate[mine], known[mine] * warm[mine], cells)
    return found


def _levels(
    size: NDArray[np.float64],
    known: NDArray[np.float64],
    heat: NDArray[np.float64],
    warm: NDArray[np.float64],
    cells: int,
) -> Strip:
    """Levels of cells from what the pieces of a mapping hold: each cell has its part of what lies in it."""
    at = np.concatenate([[0.0], np.cumsum(size)])
    edges = np.linspace(0, at[-1], cells + 1)

    def within(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.diff(np.interp(edges, at, np.concatenate([[0.0], np.cumsum(values)])))
        return sums

    told = within(known)
    least = at[-1] / cells * 1e-6  # what is left of rounding
    share = within(heat) / np.maximum(told, least)
    level = np.where(share > 1e-6, 2 + np.minimum(share * 3, 2).astype(np.int8), within(warm) > least)
    return np.where(told > least, level, UNKNOWN).astype(np.int8)
