"""What a policy that is a loop is: a Controller looks at what is observed and decides. Pure; `run/acts` carries out.

One is stepped once per ``interval_us``, off the sampling path. What it decides is bounded by who carries it out
(per interval and in total), counted, and only said with a dry run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

from pydamon.spec.units import format_duration_ns, format_size

WritebackKind = Literal["idle", "huge", "huge_idle", "incompressible"]


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """How long some task waited (PSI, ``some``): all so far in us, and its share of the last seconds, 0 to 100."""

    total_us: int
    avg10_percent: float = 0.0
    avg60_percent: float = 0.0

    @property
    def worst_percent(self) -> float:
        """The larger of the shares."""
        return max(self.avg10_percent, self.avg60_percent)


class ColdBytes(msgspec.Struct, frozen=True):
    """That ``bytes`` were not used for ``age_us`` or longer."""

    age_us: int
    bytes: int


class Observations(msgspec.Struct, frozen=True, kw_only=True):
    """What can be known now; None (or an empty tuple) where it is not known.

    ``now_ns`` grows between two looks, and is the time of the snapshots. Pressure, ``current_bytes`` (what the target
    uses: memory.current, or what is resident) and ``back_bytes`` (what came back of it after it had been taken: it only
    grows) are of the target's cgroup if it is one, else of the machine or the process. ``swap_free_bytes`` and
    ``swap_total_bytes`` are what the target can still be paged out to, and all of it. ``floor_bytes`` is what the
    kernel never takes (memory.min). ``resident_bytes``, ``working_set_bytes`` (used in the last aggregation) and
    ``cold`` (oldest last) are from snapshots or the page panel. ``machine_bytes`` is all memory of the machine;
    ``done_bytes`` is what this controller's decisions have brought about so far. ``returned`` is what was used again
    since its last step after it had been idle for an age or longer, from the page panel. ``active``: whether watermarks
    let the schemes of its module act; ``applied``: the bytes that these were applied to so far, by their names, and
    ``spent_ns``, how long that took. ``max_nr_accesses``: how often memory can be found accessed in one aggregation,
    the last of which has ended at ``snapshot_ns``; ``hottest_nr_accesses``: how often any region of 2 MiB or more was.
    ``cpu`` is of the whole machine, as is ``bandwidth_permil``: how much of what its fast memory can do is used.
    ``whole_free_bytes``: what of the machine's ``free_bytes`` lies in blocks of 2 MiB or more.
    """

    now_ns: int
    memory: Pressure | None = None
    io: Pressure | None = None
    current_bytes: int | None = None
    swap_free_bytes: int | None = None
    swap_total_bytes: int | None = None
    floor_bytes: int = 0
    back_bytes: int | None = None
    resident_bytes: int | None = None
    working_set_bytes: int | None = None
    cold: tuple[ColdBytes, ...] = ()
    machine_bytes: int | None = None
    done_bytes: int = 0
    returned: tuple[ColdBytes, ...] = ()
    active: bool = True
    cpu: Pressure | None = None
    bandwidth_permil: int | None = None
    spent_ns: int = 0
    max_nr_accesses: int | None = None
    snapshot_ns: int | None = None
    hottest_nr_accesses: int = 0
    free_bytes: int | None = None
    whole_free_bytes: int | None = None
    applied: Mapping[str, int] = {}
    page_bytes: int = 4096

    def idle_bytes(self, age_us: int) -> int | None:
        """What was not used for that long, or the least longer time of which that is known; None: of none."""
        return next((one.bytes for one in self.cold if one.age_us >= age_us), None)


class ReclaimBytes(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask the kernel to take so many bytes of the target's cgroup; ``swappiness`` 0 to 200, None: as it is set."""

    bytes: int
    swappiness: int | None = None

    def words(self) -> str:
        """What it asks for, behind "would"."""
        files = " of files" if self.swappiness == 0 else ""
        return f"ask the kernel to reclaim {format_size(self.bytes)}{files}"


class ZramWriteback(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Write to its backing device what zram holds: ``kind``, if idle for ``idle_age_s``; at most ``limit_bytes``."""

    device: str
    kind: WritebackKind = "idle"
    idle_age_s: int | None = None
    limit_bytes: int | None = None

    def words(self) -> str:
        """What it asks for, behind "would"."""
        age_ns = (self.idle_age_s or 0) * 1_000_000_000
        age = f" that were not used for {format_duration_ns(age_ns)}" if age_ns else ""
        most = "" if self.limit_bytes is None else f", at most {format_size(self.limit_bytes)}"
        return f"write back {self.kind} pages of {self.device}{age}{most}"


class SetQuota(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Change the quota of the scheme of this name per window; None: leave it. One page is the least."""

    scheme: str
    sz_bytes: int | None = None
    time_ms: int | None = None

    def words(self) -> str:
        """What it asks for, behind "would"."""
        time = [] if self.time_ms is None else [f"{self.time_ms} ms"]
        size = [] if self.sz_bytes is None else [format_size(self.sz_bytes)]
        return f"set the quota of scheme {self.scheme} to {' and '.join(time + size)}"


class SetMinAge(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Change the lowest age that the scheme of this name acts on."""

    scheme: str
    min_age_us: int

    def words(self) -> str:
        """What it asks for, behind "would"."""
        return f"set the minimum age of scheme {self.scheme} to {format_duration_ns(self.min_age_us * 1000)}"


class SetMinRate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Change the lowest access rate that the scheme of this name acts on; in samples per aggregation."""

    scheme: str
    samples: int

    def words(self) -> str:
        """What it asks for, behind "would"."""
        return f"set the lowest access rate of scheme {self.scheme} to {self.samples} samples"


class SetMemoryLow(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask the kernel to take other memory first as long as the target's cgroup uses no more; undone at the end."""

    bytes: int

    def words(self) -> str:
        """What it asks for, behind "would"."""
        return f"protect {format_size(self.bytes)} (memory.low)"


class Compact(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Have the kernel compact free memory, ``pieces_bytes`` of which lie in pieces below 2 MiB."""

    pieces_bytes: int

    def words(self) -> str:
        """What it asks for, behind "would"."""
        return f"have the kernel compact free memory ({format_size(self.pieces_bytes)} in pieces)"


Change = SetQuota | SetMinAge | SetMinRate  # of schemes
Decision = ReclaimBytes | ZramWriteback | Change | SetMemoryLow | Compact


class Controller(Protocol):
    """A policy that is a loop: it keeps what it has seen to itself, and asks nobody.

    ``needs_accesses``: whether it has to be told what was accessed; if not, it runs without any monitoring cost.
    """

    @property
    def interval_us(self) -> int:
        """How long it waits between two steps."""
        ...

    @property
    def needs_accesses(self) -> bool:
        """Whether its decisions go by snapshots."""
        ...

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """What is to be done now, in that order. The same observations one after another give the same decisions."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """A controller with goals that can be given another value while it runs, by their names."""

    goals: tuple[str, ...]

    def set_goal(self, name: str, value: int) -> None:
        """Go by it from the next step on; one of ``goals``. From any thread."""
        ...
