"""Where the regions of a workload lie. Pure; the real process and the simulated one use the same placement."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.workload.model import Workload

PAGE_SIZE = 4096
# Left unmapped around each region that is a mapping of its own, so that the kernel cannot merge neighbours. Small, so
# that it is never one of the two big gaps that DAMON leaves out of a process, and so that no later allocation fits.
GAP_BYTES = 64 * 1024
MAPPINGS = ("separate", "one")


@dataclass(frozen=True, slots=True)
class Place:
    """A page-aligned range of addresses, ``end`` exclusive, both in bytes, and what it is called."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """``regions`` in the workload's order, each at a page boundary; ``mappings`` in address order."""

    regions: tuple[Place, ...]
    mappings: tuple[Place, ...]

    @property
    def start(self) -> int:
        """The first mapped byte."""
        return self.mappings[0].start

    @property
    def end(self) -> int:
        """The end of the last mapping."""
        return self.mappings[-1].end


def page_up(size_bytes: int) -> int:
    """``size_bytes`` rounded up to whole pages."""
    return -(-size_bytes // PAGE_SIZE) * PAGE_SIZE


def place(workload: Workload, base: int, mapping: str = "separate") -> Layout:
    """Put the regions at ``base`` (bytes, page-aligned) and up.

    ``separate``: each is a mapping named ``[anon:REGION]``, with gaps in between. ``one``: side by side in one
    mapping named ``[anon:workload]``. Raises RequestError for another ``mapping``.
    """
    if mapping not in MAPPINGS:
        raise RequestError(f"{mapping!r} is not a mapping; it is {' or '.join(MAPPINGS)}", where="mapping")
    regions = []
    at = base
    for region in workload.regions:
        end = at + page_up(region.size_bytes)
        regions.append(Place(region.name, at, end))
        at = end if mapping == "one" else end + GAP_BYTES
    if mapping == "one":
        mappings = [Place("[anon:workload]", base, regions[-1].end)]
    else:
        mappings = [Place(anon_name(region.name), region.start, region.end) for region in regions]
    return Layout(tuple(regions), tuple(mappings))


def anon_name(name: str) -> str:
    """How ``/proc/PID/maps`` shows an anonymous mapping of that name (PR_SET_VMA_ANON_NAME, prctl(2))."""
    # What the kernel refuses: non-ASCII, unprintable, these five; and more than 79 characters.
    allowed = "".join(char if " " <= char <= "~" and char not in "\\`$[]" else "_" for char in name)
    return f"[anon:{allowed[:79]}]"
