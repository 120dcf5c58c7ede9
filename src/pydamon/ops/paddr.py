"""Operations set for the machine's physical memory: one target, all of its System RAM.

The kernel's ``paddr`` monitors what it is given, by default the biggest System RAM range; here all ranges are
monitored, what lies between them is skipped, and memory that comes or goes is seen at the update interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pydamon.errors import MachineError
from pydamon.linux.frames_in_use import FramesInUse
from pydamon.linux.process import Mapping, Process
from pydamon.linux.texts import read_as_root
from pydamon.ops.applying import Applying
from pydamon.ops.base import PAGE_SIZE, Addresses, Hits, Ranges
from pydamon.ops.reverse_map import MappingsOf, Owner, ReverseMap, mappings_now
from pydamon.ops.sampling import PageSampler
from pydamon.ops.vaddr import troubles
from pydamon.primitives.base import Primitive, PrimitiveCost
from pydamon.primitives.idle import IdleFrames
from pydamon.spec import Probe
from pydamon.spec.units import format_size

if TYPE_CHECKING:  # needed only where there are schemes or probes
    from pydamon.ops.actions import PhysicalActions
    from pydamon.ops.attributes import Attributes

IOMEM = "/proc/iomem"
ZONEINFO = "/proc/zoneinfo"

# Memory that a driver gave to the system (CXL, persistent memory) is called "System RAM (kmem)", inside its device.
_SYSTEM_RAM = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : System RAM\b", re.MULTILINE)
_NODE = re.compile(r"^Node (\d+), zone", re.MULTILINE)
_SPANNED = re.compile(r"^ +spanned +(\d+)", re.MULTILINE)
_START = re.compile(r"^ +start_pfn: +(\d+)", re.MULTILINE)


class Memory(Protocol):
    """Where the text that describes memory comes from; tests give their own."""

    def __call__(self, path: str) -> str:
        """The text of the file."""
        ...


def system_ram(iomem: str) -> Ranges:
    """All System RAM ranges in the text of /proc/iomem, (n, 2) bytes with exclusive ends; touching ones are joined.

    Partial pages at the ends belong to no page frame and are cut off. Raises MachineError if the text hides the
    addresses (to users other than root they read as 0) or names no System RAM.
    """
    found = [(int(start, 16), int(end, 16)) for start, end in _SYSTEM_RAM.findall(iomem)]
    if not found:
        raise MachineError("names no System RAM; it needs a real /proc (a container may hide it)", where=IOMEM)
    if not any(end for _, end in found):
        raise MachineError("shows no addresses; run as root (CAP_SYS_ADMIN)", where=IOMEM)
    size = PAGE_SIZE
    spans = sorted((-(-start // size) * size, (end + 1) // size * size) for start, end in found)
    joined: list[list[int]] = []
    for start, end in spans:
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, np.uint64).reshape(-1, 2)


def node_spans(zoneinfo: str) -> list[tuple[int, int, int]]:
    """(start, end, node) in bytes of each zone in the text of /proc/zoneinfo that has memory, sorted.

    Zones of different nodes may overlap on machines that interleave them; the text does not tell more.
    """
    spans = []
    starts = [match.start() for match in _NODE.finditer(zoneinfo)]
    for begin, end in pairwise([*starts, len(zoneinfo)]):
        zone = zoneinfo[begin:end]
        node, spanned, first = _NODE.match(zone), _SPANNED.search(zone), _START.search(zone)
        if node and spanned and first and int(spanned[1]):
            start = int(first[1]) * PAGE_SIZE
            spans.append((start, start + int(spanned[1]) * PAGE_SIZE, int(node[1])))
    return sorted(spans)


def describe(ranges: Ranges, nodes: Sequence[tuple[int, int, int]]) -> list[Mapping]:
    """One mapping per System RAM range and NUMA node; the node is named if there are several."""
    several = len({node for _, _, node in nodes}) > 1
    mappings: list[Mapping] = []
    for start, end in ranges.tolist():
        # Each boundary between nodes inside the range cuts it.
        edges = [start, end] if not several else [start, *_inside(start, end, nodes), end]
        for low, high in pairwise(edges):
            node = next((node for first, last, node in nodes if first <= low < last), None)
            name = "System RAM" if node is None or not several else f"System RAM (node {node})"
            if mappings and mappings[-1].end == low and mappings[-1].name == name:
                low = mappings.pop().start
            mappings.append(Mapping(low, high, "rw-p", 0, 0, name))
    return mappings


def _inside(start: int, end: int, nodes: Sequence[tuple[int, int, int]]) -> list[int]:
    edges = {edge for first, last, _ in nodes for edge in (first, last)}
    return sorted(edge for edge in edges if start < edge < end)


class PaddrOps(Applying["PhysicalActions"]):
    """Monitors physical memory: target 0. Raises MachineError where that cannot be done.

    ``ranges`` limits it to the System RAM inside those. ``reverse_map`` is brought up to date at each update if given,
    and closed with this. ``read``, ``open_primitive`` and ``maps`` are for tests.
    """

    name = "paddr"
    faithful = False

    def __init__(
        self,
        *,
        ranges: Ranges | None = None,
        reverse_map: ReverseMap | None = None,
        open_primitive: Callable[[], Primitive] = IdleFrames,
        read: Memory = read_as_root,
        rng: np.random.Generator | None = None,
        maps: Callable[[Owner], list[Mapping]] = mappings_now,
    ) -> None:
        self.nr_targets = 1
        self.processes: list[Process] = []
        self.lost: dict[int, str] = {}
        self.reverse_map = reverse_map
        self._wanted = ranges if ranges is not None and len(ranges) else None
        self._read = read
        self._maps = maps
        dice = rng if rng is not None else np.random.default_rng()
        self.sampler = PageSampler(self, lambda target: dice)
        self._mappings: list[Mapping] = []
        self._in_use = FramesInUse()
        self._ranges = self._look()  # before anything is opened: this says best what is missing
        self.primitives: list[Primitive] = [open_primitive()]
        self._joined: list[dict[str, Any]] = [{"target": 0, "command": "physical memory"}]
        self._notices: list[str] = []
        self._owners_told = 0  # refreshes of the reverse map that `side_rows` has told of
        self._lookup_failed = False
        self._use_unknown = False
        self._attributes: Attributes | None = None

    def init(self) -> list[Ranges]:
        """All System RAM as one target's ranges."""
        if self.reverse_map is not None:
            self.reverse_map.refresh()
        return [self._ranges]

    def update(self) -> list[Ranges | None]:
        """System RAM as it is now; None if that cannot be told."""
        self.primitives[0].update()
        if self.reverse_map is not None:
            self.reverse_map.refresh_if_due()
        before = self._ranges
        try:
            self._ranges = self._look()
        except MachineError as error:
            if not self._lookup_failed:
                self._notices.append(f"memory can no longer be looked up: {error}")
            self._lookup_failed = True
            return [None]
        self._lookup_failed = False
        change = _bytes(self._ranges) - _bytes(before)
        if change:
            word = "added" if change > 0 else "removed"
            self._notices.append(f"{format_size(abs(change))} of memory was {word}")
        return [self._ranges]

    def _look(self) -> Ranges:
        ranges = system_ram(self._read(IOMEM))
        if self._wanted is not None:
            ranges = intersection(ranges, self._wanted)
            if not len(ranges):
                raise MachineError("has no System RAM in the given ranges; see /proc/iomem", where="ops paddr")
        try:
            nodes = node_spans(self._read(ZONEINFO))
        except MachineError:
            nodes = []
        mappings = describe(ranges, nodes)
        if mappings != self._mappings:
            self._mappings = mappings
        return ranges

    def residency(self, target: int) -> None:
        """Pages are asked as they come: free ones are not accessed."""

    def resident_bytes(self, target: int, start: Addresses, end: Addresses) -> Addresses | None:
        """How much of each region is in use, as `OperationsSet` says; None where /proc/kpageflags cannot be read."""
        self._in_use.follow(self._ranges)
        self._in_use.step()
        if self._in_use.obstacle is not None and not self._use_unknown:
            self._use_unknown = True
            self._notices.append(f"free memory is included, for it cannot be told from others: {self._in_use.obstacle}")
        return self._in_use.resident_bytes(start, end)

    def check_probes(self, probes: Sequence[Probe]) -> None:
        """Raise MachineError, naming the filter, if an attribute cannot be told here."""
        self._tell_attributes().check(probes, self.primitives, virtual=False)

    def prepare_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> None:
        """Mark the frames at ``addresses`` as not accessed: all that probes can want so far."""
        self._tell_attributes().prepare_frames(addresses, addresses >> np.uint64(12), self.primitives[target])

    def apply_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        """Which of the frames at ``addresses`` have which attribute; of free ones as the kernel, if that is wanted."""
        frames, primitive = addresses >> np.uint64(12), self.primitives[target]
        return self._tell_attributes().of_frames(addresses, frames, probes, primitive, faithful=self.faithful)

    def _tell_attributes(self) -> Attributes:
        if self._attributes is None:
            from pydamon.ops.attributes import Attributes

            self._attributes = Attributes()
        return self._attributes

    def reset_aggregated(self) -> None:
        """Nothing is kept here between aggregations."""

    def target_valid(self, target: int) -> bool:
        """Memory does not end."""
        return True

    def may_grow(self) -> bool:
        """There is one memory."""
        return False

    def cost(self) -> PrimitiveCost:
        """What asking has cost so far; the reverse map's cost is in ``reverse_map.cost``."""
        return self.primitives[0].cost

    def mappings(self, target: int) -> list[Mapping]:
        """The System RAM ranges, by NUMA node, as of the last init or update."""
        return self._mappings

    def take_joined(self) -> list[dict[str, Any]]:
        """The one target at the first call, nothing later."""
        joined, self._joined = self._joined, []
        return joined

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        notices, self._notices = self._notices, []
        return notices

    def remarks(self) -> list[str]:
        """What to say at the end: refusals of the kernel, and what the reverse map cost and left out."""
        found = troubles(self.primitives)
        owners = self.reverse_map
        if owners is not None and owners.cost.refreshes:
            cost = owners.cost
            found.append(
                f"whose memory it is was looked up {cost.refreshes} times, {cost.total_ns / 1e9:.2f} s in all, "
                f"{cost.seconds_per_gib:.2f} s per GiB mapped"
            )
            if owners.truncated:
                found.append("not all memory has an owner in the record: there is more than the reverse map holds")
        return found

    def owner_rows(self, start: Addresses, end: Addresses, most: int = 3) -> list[dict[str, Any]]:
        """Who maps how much of each region [start, end): ``most`` processes each, the one with most first.

        Rows with start, end, pid, start_ticks, command, mapped_bytes, and the ``mapping`` of the process that most of
        it belongs to ("" for anonymous memory, None if that cannot be told); none without a reverse map.
        """
        if self.reverse_map is None:
            return []
        names = MappingsOf(self._maps)
        return [
            {
                "start": low,
                "end": high,
                "pid": owner.pid,
                "start_ticks": owner.start_ticks,
                "command": owner.command,
                "mapped_bytes": len(pages) * PAGE_SIZE,
                "mapping": names.most(owner, pages),
            }
            for low, high in zip(start.tolist(), end.tolist(), strict=True)  # once per refresh
            for owner, pages in self.reverse_map.mapped_pages(low, high, most)
        ]

    def side_rows(self, start: Addresses, end: Addresses) -> dict[str, list[dict[str, Any]]]:
        """Whose memory the regions are (tables ``owners`` and ``reverse_map``), each time that was looked up anew."""
        if self.reverse_map is None or self.reverse_map.cost.refreshes == self._owners_told:
            return {}
        cost = self.reverse_map.cost
        self._owners_told = cost.refreshes
        looked_up = {"refreshes": cost.refreshes, "total_ns": cost.total_ns, "pages": cost.pages}
        return {"owners": self.owner_rows(start, end), "reverse_map": [looked_up]}

    def live_pids(self) -> dict[int, int]:
        """No process is a target."""
        return {}

    # -- schemes (see `pydamon.ops.actions`) ------------------------------------------------------------------------

    def _make_actions(self) -> PhysicalActions:
        from pydamon.ops.actions import PhysicalActions

        return PhysicalActions(self, dry_run=self.dry_run, remember_homes=self.remember_homes)

    def node_spans(self) -> list[tuple[int, int, int]]:
        """(start, end, node) in bytes of all zones."""
        return node_spans(self._read(ZONEINFO))

    def cleanup(self) -> None:
        """Close the primitive and the reverse map."""
        self.close_actions()
        if self._attributes is not None:
            self._attributes.close()
        for primitive in self.primitives:
            primitive.close()
        if self.reverse_map is not None:
            self.reverse_map.close()


def _bytes(ranges: Ranges) -> int:
    return int((ranges[:, 1] - ranges[:, 0]).sum(dtype=np.uint64))


def intersection(ranges: Ranges, wanted: Ranges) -> Ranges:
    """What is in both; ``ranges`` sorted and disjoint, ``wanted`` in any order. Whole pages of ``wanted`` only."""
    size = PAGE_SIZE
    joined: list[tuple[int, int]] = []
    for low, high in sorted((-(-low // size) * size, high // size * size) for low, high in wanted.tolist()):
        for start, end in ranges.tolist():
            first = max(start, low, joined[-1][1] if joined else 0)
            last = min(end, high)
            if first < last:
                joined.append((first, last))
    return np.array(joined, np.uint64).reshape(-1, 2)


def probe() -> None:
    """Raise MachineError with the reason if physical memory cannot be monitored here."""
    from pydamon.primitives import idle

    system_ram(read_as_root(IOMEM))
    idle.probe()
