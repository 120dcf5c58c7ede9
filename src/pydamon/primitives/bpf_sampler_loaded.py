"""Targets of the sampler: what it is told of them, and where in the map that has been put."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.word_files import Addresses
from pydamon.primitives.bpf import BpfPrimitive


@dataclass(frozen=True, slots=True)
class Resident:
    """The resident pages of a target that are known: runs of them, and what each region has of them.

    ``starts``: address of each run; ``before``: pages in the runs before each one, and of all at the end. ``low`` and
    ``count`` per region: the number of its first resident page, and how many there are.
    """

    starts: Addresses
    before: NDArray[np.uint64]
    low: NDArray[np.uint64]
    count: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Watched:
    """A target: the primitive of its process (for what is rare), and its regions, bytes, sorted and page-aligned."""

    primitive: BpfPrimitive
    start: Addresses
    end: Addresses
    resident: Resident | None = None  # None: draw from all pages alike


@dataclass(slots=True, eq=False)
class Loaded:
    """What was loaded for a target: where its regions and its records are in the map."""

    watched: Watched
    first: int
    end: int
    first_record: int
    end_record: int = 0
    refusals: int = 0  # mappings that its clearer knew to refuse
