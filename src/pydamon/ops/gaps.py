"""What is not mapped is not memory: the largest gaps between mappings are left out of what is monitored.

DAMON's rule of the three ranges (docs/algorithms.md 2.8) leaves out the two largest gaps of each process: processes
once had two. Today's have many, and what lies between mappings looks like the coldest memory there is. Here more
of them are left out, the largest of all processes first, as many as there is room for: each costs a region.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.process import Mapping
from pydamon.spans import joined

Ranges = NDArray[np.uint64]

NO_RANGES: Ranges = np.empty((0, 2), np.uint64)
_ALWAYS = 2  # of each process, as in DAMON
_GROWTH = 2  # a gap takes the place of one that was left out before only if it is that many times larger


def mapped_spans(mappings: Sequence[Mapping]) -> Ranges:
    """Where something is mapped: (n, 2) bytes, sorted; mappings that touch are one span."""
    # The vsyscall page stands in the file for every process but belongs to no address space.
    spans = np.array([(m.start, m.end) for m in mappings if m.name != "[vsyscall]"], np.uint64).reshape(-1, 2)
    return joined(spans[np.argsort(spans[:, 0], kind="stable")])


class Gaps:
    """Chooses the gaps to leave out, and keeps to its choice as long as they are gaps.

    ``most`` is how many may be left out in all targets together, beside the two of each that always are; ``left_out``
    how many are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.left_out = 0
        self._spans: dict[int, tuple[Sequence[Mapping], Ranges]] = {}
        self._found: tuple[int, dict[int, Ranges]] | None = None  # `most` and the ranges, of these mappings
        self._cut: dict[int, Ranges] = {}  # of each target, what was left out last

    def of_mappings(self, mappings: AnyMapping[int, Sequence[Mapping]]) -> dict[int, Ranges]:
        """`ranges` of targets with these mappings; the same sequence as the last time need not be looked at."""
        known = self._spans
        same = known.keys() == mappings.keys() and all(known[target][0] is now for target, now in mappings.items())
        if same and self._found is not None and self._found[0] == self.most:
            return dict(self._found[1])  # what was chosen stays
        self._spans = {
            target: known[target] if target in known and known[target][0] is now else (now, mapped_spans(now))
            for target, now in mappings.items()
        }
        found = self.ranges({target: spans for target, (_, spans) in self._spans.items()})
        self._found = self.most, found
        return dict(found)

    def ranges(self, spans: dict[int, Ranges]) -> dict[int, Ranges]:
        """What to monitor of each target: its mapped ``spans`` with all gaps but those that are left out."""
        gaps = {target: _between(found) for target, found in spans.items()}
        chosen = {target: _largest(found, _ALWAYS) for target, found in gaps.items()}
        always = sum(int(np.count_nonzero(flags)) for flags in chosen.values())
        self._choose(gaps, chosen)
        self.left_out = sum(int(np.count_nonzero(flags)) for flags in chosen.values()) - always
        self._cut = {target: found[chosen[target]] for target, found in gaps.items()}
        return {target: _split(spans[target], chosen[target]) for target in spans}

    def _choose(self, gaps: dict[int, Ranges], chosen: dict[int, NDArray[np.bool_]]) -> None:
        """Add to ``chosen`` the largest of all that are left, those that were cut before as if they were larger."""
        targets = [target for target, found in gaps.items() if len(found)]
        if not targets or self.most <= 0:
            return
        owner = np.repeat(np.array(targets), [len(gaps[target]) for target in targets])
        place = np.concatenate([np.arange(len(gaps[target])) for target in targets])
        every = np.concatenate([gaps[target] for target in targets])
        taken = np.concatenate([chosen[target] for target in targets])
        stays = np.concatenate([_overlaps(gaps[target], self._cut.get(target, NO_RANGES)) for target in targets])
        weight = (every[:, 1] - every[:, 0]).astype(np.float64) * np.where(stays, _GROWTH, 1)
        weight[taken] = 0
        for index in np.argsort(-weight, kind="stable")[: self.most].tolist():
            if weight[index] > 0:
                chosen[int(owner[index])][place[index]] = True


def _between(spans: Ranges) -> Ranges:
    return np.stack([spans[:-1, 1], spans[1:, 0]], axis=1) if len(spans) > 1 else NO_RANGES


def _largest(gaps: Ranges, count: int) -> NDArray[np.bool_]:
    """A flag for each gap: the ``count`` largest; of equal ones the lower."""
    flags = np.zeros(len(gaps), np.bool_)
    # A stable sort by descending size keeps the lower of equal gaps first.
    flags[np.argsort(np.iinfo(np.uint64).max - (gaps[:, 1] - gaps[:, 0]), kind="stable")[:count]] = True
    return flags


def _overlaps(gaps: Ranges, others: Ranges) -> NDArray[np.bool_]:
    """Which of ``gaps`` share a byte with one of ``others`` (both sorted and disjoint)."""
    if not len(others):
        return np.zeros(len(gaps), np.bool_)
    first = np.searchsorted(others[:, 1], gaps[:, 0], "right")
    found: NDArray[np.bool_] = first < np.searchsorted(others[:, 0], gaps[:, 1], "left")
    return found


def _split(spans: Ranges, cut: NDArray[np.bool_]) -> Ranges:
    """The ranges that remain of all from the first span to the last, without the gaps that are ``cut``."""
    if not len(spans):
        return NO_RANGES
    begins = np.append(True, cut)
    ends = np.append(cut, True)
    return np.stack([spans[begins, 0], spans[ends, 1]], axis=1)
