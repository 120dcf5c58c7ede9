"""What a window on a page's accessed bit says, from what the page table showed at its start and at its end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.frames import Flags
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN

Levels = NDArray[np.uint8]


def _answers() -> Answers:
    """What a window says: by the page's level at its start, its level at its end, and its accessed bit at its end."""
    answers = np.full((5, 5, 2), NOT_ACCESSED, np.uint8)
    answers[:, LEVEL_4K:, 1] = ACCESSED
    answers[LEVEL_4K:, LEVEL_ABSENT] = UNKNOWN  # unmapped since, and the bit is lost
    answers[LEVEL_4K, LEVEL_2M, 1] = UNKNOWN  # put into a huge page by the kernel, which sets the new bit
    answers[LEVEL_UNKNOWN] = answers[:, LEVEL_UNKNOWN] = UNKNOWN
    return answers


_ANSWERS = _answers()


def answer(at_start: Levels, levels: Levels, young: Flags | NDArray[np.uint8]) -> Answers:
    """What windows say, from the pages' levels at their start and at their end, and their accessed bits; shape (n,)."""
    answers: Answers = _ANSWERS[at_start, levels, young.astype(np.uint8)]
    return answers
