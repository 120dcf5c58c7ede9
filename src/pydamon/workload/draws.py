"""Dice that fall the same way for the same question: one number per page and window. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_U64 = 2**64 - 1


def key_of(*numbers: int) -> int:
    """One number of 64 bits out of several, of any size and sign."""
    key = 0
    for number in numbers:
        # A step of a linear congruential generator per number; the finisher is in `draw`.
        key = ((key ^ (number & _U64)) * 6364136223846793005 + 1442695040888963407) & _U64
        key ^= key >> 32
    return key


def numbers(region: NDArray[np.int64], page: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number of its own for each page of the process: a region has fewer than 2**32 pages."""
    return (region << 32 | page).astype(np.uint64)


def draw(number: NDArray[np.uint64], key: np.uint64 | NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform in [0, 1), one per number and the same each time: SplitMix64 (Steele and others, 2014)."""
    bits = number * np.uint64(0x9E3779B97F4A7C15) + key
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def how_many(
    pages: NDArray[np.int64], probability: NDArray[np.float64], drawn: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Of so many pages, how many something of that probability happens to; ``drawn`` is a number of `draw` for each.

    It is rounded at random, so that the mean is right.
    """
    mean = np.floor(pages * probability + (1.0 - drawn)).astype(np.int64)
    return np.where(pages == 1, drawn < probability, np.minimum(mean, pages))
