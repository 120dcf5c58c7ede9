"""What modules tell of themselves while they run, one row each: what a number is, its unit, and what it means.

`run/module_numbers.py` finds them out; the side table ``modules`` of records, ``report modules`` and ``status`` show
them by these rows. A module names its rows (`modules.base.Module.numbers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pydamon.spec.units import format_duration_ns, format_size

_Unit = Literal["bytes", "bytes_per_s", "us", "ms", "ns", "bp", ""]


class Number(msgspec.Struct, frozen=True):
    """One number: a counter is since the start of the run, a gauge of now. ``heading``: of its column in reports.

    A number in ms is 101 percentiles.
    """

    name: str
    unit: _Unit
    help: str
    kind: Literal["counter", "gauge"] = "counter"
    heading: str = ""

    @property
    def key(self) -> str:
        """Its name in JSON and records, which tells the unit."""
        return f"{self.name}_{self.unit}" if self.unit else self.name

    @property
    def percentiles(self) -> bool:
        """Whether there are 101 of it."""
        return self.unit == "ms"


_ROWS = (
    Number("taken", "bytes", "memory that its schemes acted on (in a dry run: would have)", heading="taken"),
    Number("charged", "bytes", "what the quotas of its schemes were charged", heading="quota"),
    Number("charged", "ns", "time that its schemes have spent of their quotas", heading="time"),
    Number("used_up", "", "windows in which a quota was used up", heading="used up"),
    Number("min_age", "us", "from which idle time on it acts", "gauge", heading="min age"),
    Number("refaulted", "bytes", "memory that came back soon after it was taken (workingset_refault)", heading="back"),
    Number("major_faults", "", "faults that had to wait for memory to be read", heading="major faults"),
    Number(
        "swapped_in",
        "bytes",
        "memory that came back from swap; of the machine, unless of a cgroup",
        heading="from swap",
    ),
    Number("memory_stall", "us", "time in which a task waited for memory (PSI)", heading="memory stall"),
    Number("io_stall", "us", "time in which a task waited for disks (PSI)", heading="io stall"),
    Number("resident", "bytes", "memory of the targets that is there", "gauge", heading="resident"),
    Number(
        "working_set",
        "bytes",
        "memory that was used within 2 minutes, once these are over",
        "gauge",
        heading="working set",
    ),
    Number("cpu", "ns", "CPU time of the process that runs it", heading="CPU"),
    Number("bandwidth", "bytes_per_s", "estimate of the bytes accessed per second", "gauge", heading="bandwidth"),
    Number("aggr", "us", "aggregation interval in force", "gauge", heading="aggregation"),
    Number(
        "idle", "ms", "percentiles 0 to 100 of the time that memory is idle, negative: in use", "gauge", heading="idle"
    ),
)
_TIERS = (
    Number("promoted", "bytes", "memory that was moved to faster nodes", heading="up"),
    Number("demoted", "bytes", "memory that was moved to slower nodes", heading="down"),
    Number(
        "moved_back",
        "bytes",
        "memory that was moved back to where it came from within a minute (ping-pong)",
        heading="moved back",
    ),
    Number("hot", "bytes", "memory of the targets that is hot now, as the module sees it", "gauge", heading="hot"),
    Number("hot_fast", "bytes", "of that, what is on the fastest nodes", "gauge", heading="of it fast"),
    Number("fast_node", "bytes", "memory of the fastest nodes", "gauge", heading="fast nodes"),
    Number("quota_left", "bp", "share of the quota that is left while the machine is busy", "gauge", heading="allowed"),
)
_HUGE_PAGES = (
    Number("huge", "bytes", "memory of the targets that is in huge pages", "gauge", heading="huge"),
    Number("added", "bytes", "memory that its huge pages have added beside what was there", heading="added"),
    Number("refused", "bytes", "memory that the kernel would not make huge", heading="refused"),
    Number("given_back", "bytes", "memory of cold huge pages that was paged out", heading="given back"),
)
_FREE_MEMORY = (
    Number("free", "bytes", "free memory of the machine", "gauge", heading="free"),
    Number(
        "whole_free", "bytes", "free memory in blocks of 2 MiB or more, which go to a host", "gauge", heading="whole"
    ),
)

NUMBERS: Mapping[str, Number] = {row.key: row for row in (*_ROWS, *_TIERS, *_HUGE_PAGES, *_FREE_MEMORY)}
# Of what acts, and of what only looks.
OF_SCHEMES = tuple(row.key for row in _ROWS[:13])
OF_LOOKING = tuple(row.key for row in _ROWS[13:])
OF_TIERS = tuple(row.key for row in _TIERS)
OF_FREE_MEMORY = OF_SCHEMES + tuple(row.key for row in _FREE_MEMORY)
OF_HUGE_PAGES = OF_SCHEMES + tuple(row.key for row in _HUGE_PAGES)
PERCENTILES = (0, 25, 50, 75, 100)  # that people are shown
_NS = {"us": 1_000, "ns": 1}


def told(values: Sequence[int] | None, row: Number) -> str:
    """A value for people; None: it is not known."""
    return ", ".join(cells(values, row))


def cells(values: Sequence[int] | None, row: Number) -> list[str]:
    """The same in parts, as `headings`: of percentiles there are `PERCENTILES`."""
    if row.percentiles:
        values = values if values is not None and len(values) > max(PERCENTILES) else None
        return [_time(values[place], 1_000_000) if values else "-" for place in PERCENTILES]
    if not values:
        return ["-"]
    value = values[0]
    if row.unit in ("bytes", "bytes_per_s"):
        return [format_size(value) + ("/s" if row.unit == "bytes_per_s" else "")]
    if row.unit == "bp":
        return [f"{value / 100:.0f}%"]
    return [_time(value, _NS[row.unit]) if row.unit else f"{value:,}"]


def headings(row: Number) -> list[str]:
    """Of its columns in a table."""
    return [f"{row.heading} {place}%" for place in PERCENTILES] if row.percentiles else [row.heading]


def _time(value: int, scale: int) -> str:
    return ("-" if value < 0 else "") + format_duration_ns(abs(value) * scale)
