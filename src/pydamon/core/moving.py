"""What is counted in the middle of an aggregation, and under intervals that have changed (docs/algorithms.md 2.6, 2.7).

For access counts and hits of probes alike: arrays of integers, shape (..., n), with the rounding of the kernel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.counts import Count

_WHOLE = 10_000


def left_bp(passed: int, window: int) -> int:
    """Which part of an aggregation of ``window`` samples is still to come after ``passed`` of them, in 1/10,000."""
    window = max(window, 1)
    return max(window - passed, 0) * _WHOLE // window


def moving_sum(counted: Count, last: Count, left: int) -> NDArray[np.int64]:
    """What one whole aggregation up to now has counted: ``counted`` so far, and its part of the ``last`` count.

    ``left`` is in 1/10,000 (`left_bp`). At the very beginning of an aggregation it is the last count.
    """
    before = last.astype(np.int64)
    if left >= _WHOLE:
        return before
    return counted.astype(np.int64, copy=False) + before * left // _WHOLE


def rescaled(counted: Count, old_window: int, new_window: int) -> NDArray[np.int64]:
    """Counts of aggregations of ``old_window`` samples as if these had had ``new_window`` samples: the rate stays."""
    return counted.astype(np.int64, copy=False) * _WHOLE // max(old_window, 1) * new_window // _WHOLE
