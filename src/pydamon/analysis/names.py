"""What address ranges are called: the mappings of the process that they overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping


class MappingNames:
    """Names for ranges of one target. Mappings may overlap (of different times); the order does not matter."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self._mappings = sorted({(m.start, m.end, mapping_name(m)) for m in mappings})
        # How far an earlier mapping reaches: bounds the way back from a starting point.
        self._reach: list[int] = []
        reach = 0
        for _, end, _ in self._mappings:
            reach = max(reach, end)
            self._reach.append(reach)

    def __bool__(self) -> bool:
        """Whether any mapping is known."""
        return bool(self._mappings)

    def bounds(self) -> list[int]:
        """Where mappings begin and end, sorted, each address once."""
        return sorted({address for start, end, _ in self._mappings for address in (start, end)})

    def of(self, start: int, end: int) -> list[str]:
        """The names of what lies in the range, without repetition, the one with the most bytes first."""
        first = bisect_right(self._reach, start)
        last = bisect_left(self._mappings, (end, 0, ""))
        sizes: dict[str, int] = {}
        for low, high, name in self._mappings[first:last]:
            overlap = min(high, end) - max(low, start)
            if overlap > 0:
                sizes[name] = sizes.get(name, 0) + overlap
        return sorted(sizes, key=lambda name: (-sizes[name], name))


class Owners:
    """Whose memory physical ranges are: rows of (start, end, who, bytes mapped there by who), ranges in order.

    A range that covers a part of a row's gets that part of its bytes: an estimate, exact for the rows' own ranges.
    """

    def __init__(self, rows: Sequence[tuple[int, int, str, int]]) -> None:
        self._rows = sorted(rows)
        self._ends: list[int] = []
        reach = 0
        for row in self._rows:
            reach = max(reach, row[1])
            self._ends.append(reach)

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return bool(self._rows)

    def of(self, start: int, end: int) -> list[str]:
        """Who has memory in the range and what share of it, most first: ``postgres (123) 40 %``."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._rows, (end, 0, "", 0))
        sizes: dict[str, float] = {}
        for low, high, who, size in self._rows[first:last]:
            overlap = min(high, end) - max(low, start)
            if overlap > 0:
                sizes[who] = sizes.get(who, 0) + size * overlap / (high - low)
        shares = {who: min(100 * size / (end - start), 100) for who, size in sizes.items()}
        order = sorted(shares, key=lambda who: (-shares[who], who))
        return [f"{who} {shares[who]:.0f} %" for who in order if shares[who] >= 0.5]


def short_list(names: Sequence[str], most: int = 2) -> str:
    """``a, b +3``: the first names, and how many more there are."""
    text = ", ".join(names[:most])
    return f"{text} +{len(names) - most}" if len(names) > most else text
