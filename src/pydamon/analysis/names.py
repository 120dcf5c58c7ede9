"""What address ranges are called: the mappings of the process that they overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pydamon.primitives.process import Mapping

ANONYMOUS = "anon"


def mapping_name(mapping: Mapping) -> str:
    """A short name: the file's without directories, ``[heap]`` and the like as they are, ``anon`` for none."""
    name = mapping.name
    if not name:
        return ANONYMOUS
    if name.startswith("/"):
        deleted = name.endswith(" (deleted)")
        name = name.removesuffix(" (deleted)").rstrip("/").rpartition("/")[2] or name
        return f"{name} (deleted)" if deleted else name
    return name


class MappingNames:
    """Names for ranges of one target. Mappings may overlap (of different times); the order does not matter."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self._mappings = sorted({(m.start, m.end, mapping_name(m)) for m in mappings})
        # Up to here some mapping before reaches: bounds the way back from a starting point.
        self._reach: list[int] = []
        reach = 0
        for _, end, _ in self._mappings:
            reach = max(reach, end)
            self._reach.append(reach)

    def __bool__(self) -> bool:
        """Whether any mapping is known."""
        return bool(self._mappings)

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


def short_list(names: Sequence[str], most: int = 2) -> str:
    """``a, b +3``: the first names, and how many more there are."""
    text = ", ".join(names[:most])
    return f"{text} +{len(names) - most}" if len(names) > most else text
