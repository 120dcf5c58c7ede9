"""Pages of targets that somebody reports accesses of, until they are asked for: bounded, however many reports come."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import PAGE_SIZE, Addresses

_MOST = 1 << 18  # addresses of a target that are kept as they came; beyond, each page is kept once
_TO_PAGE = np.uint64(2**64 - PAGE_SIZE)


class _Of(msgspec.Struct):
    """What was heard of one target."""

    parts: list[Addresses]
    kept: int = 0  # addresses in ``parts``
    reports: int = 0
    limit: int = 0


class Heard:
    """Accesses by target, each until `take` is called for it. Beyond ``most`` only the page of each is kept."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._of: dict[int, _Of] = {}

    def add(self, target: int, addresses: Addresses) -> None:
        """Accesses of a target; shape (n,)."""
        found = self._of.setdefault(target, _Of([], limit=self._most))
        found.parts.append(addresses)
        found.kept += len(addresses)
        found.reports += len(addresses)
        if found.kept > found.limit:
            once = np.unique(np.concatenate(found.parts) & _TO_PAGE)
            found.parts, found.kept = [once], len(once)
            found.limit = max(self._most, 2 * len(once))  # so that it is not done again for each handful

    def take(self, target: int) -> tuple[Addresses, int]:
        """An address in each page that was reported since the last call, and how many reports there were."""
        found = self._of.pop(target, None)
        if found is None:
            return np.empty(0, np.uint64), 0
        return np.concatenate(found.parts), found.reports

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._of.pop(target, None)


def in_regions(addresses: Addresses, start: Addresses, end: Addresses) -> tuple[NDArray[np.intp], Addresses]:
    """Of the addresses within regions [start, end) (sorted, disjoint): which region each is in, and the address."""
    place = np.searchsorted(end, addresses, side="right")
    inside = place < len(start)
    place, addresses = place[inside], addresses[inside]
    inside = start[place] <= addresses
    return place[inside], addresses[inside]
