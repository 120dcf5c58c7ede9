"""How much memory each of many processes used within a window: the looks at their page panels, all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import MOST_UNDETERMINED, Z, bound_of
from pydamon.core.panel import PAGE_SIZE, Look


def each_used(looks: Sequence[Look], window_s: float) -> NDArray[np.int64]:
    """Of each look by itself, bytes that were accessed within the window before it: shape (n, 3), as in `Estimate`.

    As `used_within`, for many looks at once. As long as less than the window is known, -1 stands in the last column,
    and what was seen so far in the first. A look without any answer has -1 in all three.
    """
    if not looks:
        return np.empty((0, 3), np.int64)
    bound = bound_of(window_s)
    idle, unseen = np.stack([look.idle for look in looks]), np.stack([look.unseen for look in looks])
    within, all_asked, untold = idle[:, :bound].sum(1), idle.sum(1) + unseen.sum(1), unseen[:, :bound].sum(1)
    early = untold > MOST_UNDETERMINED * all_asked
    asked = np.where(early, all_asked, all_asked - untold)
    resident = np.array([look.resident_bytes for look in looks], np.float64)
    draws = _independent(asked.astype(np.float64), resident / PAGE_SIZE)
    share = within / np.maximum(asked, 1)
    square = Z * Z
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + square / (2 * draws)) / (1 + square / draws)
        spread = Z * np.sqrt(share * (1 - share) / draws + square / (4 * draws * draws)) / (1 + square / draws)
    exact = np.isinf(draws)
    low = np.where(exact, share, np.maximum(centre - spread, 0))
    high = np.where(exact, share, np.minimum(centre + spread, 1))
    found = np.stack([np.rint(share * resident), np.floor(low * resident), np.ceil(high * resident)], axis=1)
    found[early, 2] = -1
    found[asked == 0] = -1
    return found.astype(np.int64)


def _independent(asked: NDArray[np.float64], population: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many independent draws have the variance of so many without return; infinite where all were drawn."""
    left = population - asked
    with np.errstate(divide="ignore"):
        return np.where(left > 0, asked * (population - 1) / np.maximum(left, 1e-9), np.inf)
