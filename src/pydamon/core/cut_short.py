"""The aggregation that the end of the monitoring cuts short: what its few samples can tell."""

from __future__ import annotations

import numpy as np

from pydamon.core.regions import Regions


def settle(regions: Regions, window: int, samples: int, old_aggr_us: int, aggr_us: int, elapsed_ns: int) -> None:
    """Make of ``samples``, less than the ``window`` of a whole aggregation, one of its own that lasted ``aggr_us``.

    Ages are counted in such short aggregations from now on, so that they stand for the same times, and all grow by this
    one (``elapsed_ns`` by the clock). Only to be accessed at all, or not any more, is a change: few samples do not tell
    a rate. Nor are regions merged: what is used now and then looks cold here.
    """
    idle_before = regions.last_nr_accesses == 0
    regions.last_nr_accesses[:] = regions.last_nr_accesses * samples // window
    regions.settle_unknown(samples)
    changed = idle_before != (regions.nr_accesses == 0)
    age = np.minimum(regions.age * old_aggr_us // max(aggr_us, 1) + 1, 2**32 - 1)
    regions.age[:] = np.where(changed, 0, age)
    regions.age_ns[:] = np.where(changed, 0, regions.age_ns + elapsed_ns)
