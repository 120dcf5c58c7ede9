"""What things cost on a machine: one table with defaults, and the file in which a machine's own values stand.

A what-if and the simulated machine go by these. A file (JSON or YAML) names those that differ; what it leaves out keeps
its default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pydamon.errors import RequestError
from pydamon.plain import fit
from pydamon.spec import units

Backing = Literal["zram", "ssd"]
BACKINGS: tuple[Backing, ...] = ("zram", "ssd")
MAX_FILE_BYTES = 64 << 10

_SECOND_NS = 1_000_000_000
_SHOWN = 41  # characters of what a user wrote


class Cost(msgspec.Struct, frozen=True):
    """A row: the field of `Costs`, its bounds (inclusive), and what it is; the unit is in the name."""

    name: str
    low: int
    high: int
    help: str


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What things take. Times in ns, per page of 4 KiB unless `TABLE` says otherwise; shares in 1/1000.

    The defaults are assumptions, of the order of a 3 GHz machine with DDR4 memory and an SSD on PCIe. Raises
    RequestError for what is out of bounds.
    """

    minor_fault_ns: int = 500
    zram_in_ns: int = 8_000
    zram_out_ns: int = 2_500
    ssd_in_ns: int = 90_000
    ssd_out_ns: int = 4_000
    file_in_ns: int = 100_000
    file_out_ns: int = 500
    willneed_ns: int = 5_000
    mark_ns: int = 100
    collapse_ns: int = 300
    migrate_ns: int = 1_500
    look_ns: int = 20
    region_ns: int = 500
    check_ns: int = 300
    zram_readahead: int = 1
    ssd_readahead: int = 8
    file_readahead: int = 32
    zram_ratio_permil: int = 3_000
    overlap_permil: int = 0
    reclaim_on_app_permil: int = 0
    latency_ns: int = 90
    bandwidth_bytes: int = 10 << 30
    slow_latency_ns: int = 250
    slow_bandwidth_bytes: int = 5 << 30
    memory_share_permil: int = 100
    tlb_miss_ns: int = 20

    def __post_init__(self) -> None:
        for row in TABLE:
            value = getattr(self, row.name)
            if not row.low <= value <= row.high:
                raise RequestError(f"is {value}; it must be {row.low} to {row.high}", where=row.name)

    def in_ns(self, backing: Backing) -> int:
        """Until a page that was swapped to ``backing`` is back."""
        return self.zram_in_ns if backing == "zram" else self.ssd_in_ns

    def out_ns(self, backing: Backing) -> int:
        """The CPU time of swapping a page out to ``backing``."""
        return self.zram_out_ns if backing == "zram" else self.ssd_out_ns

    def readahead(self, backing: Backing) -> int:
        """How many pages one fault brings back at most, of neighbours that went there together."""
        return self.zram_readahead if backing == "zram" else self.ssd_readahead

    def kept_bytes(self, swapped_bytes: int, backing: Backing) -> int:
        """What of memory ``swapped_bytes`` still take: in zram their compressed form, on an SSD nothing."""
        return swapped_bytes * 1000 // self.zram_ratio_permil if backing == "zram" else 0


TABLE = (
    Cost("minor_fault_ns", 0, _SECOND_NS, "a page that is in memory, or new, is mapped at its first access"),
    Cost("zram_in_ns", 0, _SECOND_NS, "an access waits for a page in zram"),
    Cost("zram_out_ns", 0, _SECOND_NS, "a page is compressed into zram (CPU time)"),
    Cost("ssd_in_ns", 0, _SECOND_NS, "an access waits for pages in swap on an SSD: one read, with its read-ahead"),
    Cost("ssd_out_ns", 0, _SECOND_NS, "a page is written to swap on an SSD (CPU time)"),
    Cost("file_in_ns", 0, _SECOND_NS, "an access waits for pages of a file: one read, with its read-ahead"),
    Cost("file_out_ns", 0, _SECOND_NS, "a clean page of a file is dropped (CPU time)"),
    Cost("willneed_ns", 0, _SECOND_NS, "a page is brought back ahead of its access (CPU time)"),
    Cost("mark_ns", 0, _SECOND_NS, "a page is marked: cold, lru_*, hugepage, nohugepage"),
    Cost("collapse_ns", 0, _SECOND_NS, "a page becomes part of a huge page (of 512)"),
    Cost("migrate_ns", 0, _SECOND_NS, "a page is moved to another node"),
    Cost("look_ns", 0, _SECOND_NS, "a page in memory is looked at by an action, or by reclaim"),
    Cost("region_ns", 0, _SECOND_NS, "an action begins with a region"),
    Cost("check_ns", 0, _SECOND_NS, "monitoring asks whether one page was accessed"),
    Cost("zram_readahead", 1, 512, "pages that one fault brings back from zram, at most"),
    Cost("ssd_readahead", 1, 512, "pages that one fault brings back from an SSD, at most"),
    Cost("file_readahead", 1, 8192, "pages that one fault brings back of a file, at most"),
    Cost("zram_ratio_permil", 1000, 100_000, "how many times smaller zram makes memory"),
    Cost("overlap_permil", 0, 1000, "share of a wait for memory in which the program gets on with something else"),
    Cost("reclaim_on_app_permil", 0, 1000, "share of background reclaim and schemes that takes CPU from the program"),
    Cost("latency_ns", 1, _SECOND_NS, "a load from the first node's memory (per access)"),
    Cost("bandwidth_bytes", 1 << 20, 1 << 50, "bytes per second of the first node's memory"),
    Cost("slow_latency_ns", 1, _SECOND_NS, "a load from another node's memory (per access)"),
    Cost("slow_bandwidth_bytes", 1 << 20, 1 << 50, "bytes per second of another node's memory"),
    Cost("memory_share_permil", 0, 1000, "share of accesses that no cache of the CPU answers"),
    Cost("tlb_miss_ns", 0, _SECOND_NS, "what a load to memory saves where its page is a huge one (per access)"),
)


class Spread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cost that was measured: the median, the 10th and the 90th percentile, and of how many measurements."""

    value: int
    low: int
    high: int
    samples: int


class CostFile(msgspec.Struct, frozen=True, kw_only=True):
    """The costs that a file stands for, the spread of those that were measured, and where they were (``machine``)."""

    costs: Costs
    measured: dict[str, Spread] = msgspec.field(default_factory=dict)
    machine: str = ""


def load(text: bytes | str) -> CostFile:
    """What is in the text of a cost file: ``costs``, by name, and perhaps ``machine``. Raises RequestError.

    A cost is a number in the unit of its name, text with a unit (``8us``, ``10GiB``, ``30%``), or an object with
    ``value``, and ``low``, ``high`` and ``samples`` where it was measured.
    """
    from pydamon.spec.forms.scheme_files import values  # the parsers are loaded only when there is a file

    if len(text) > MAX_FILE_BYTES:
        raise RequestError(f"is larger than {MAX_FILE_BYTES >> 10} KiB; that is no cost file")
    return of_values(values(text))


def of_values(data: object) -> CostFile:
    """The same from what is in the text, as `values` returns it. Raises RequestError."""
    if not isinstance(data, dict) or not isinstance(data.get("costs"), dict):
        raise RequestError('is no cost file: it must be an object with "costs"')
    for name in data:
        if name not in ("costs", "machine"):
            raise RequestError("is nothing that a cost file has; there are costs and machine", where=fit(name, _SHOWN))
    machine = data.get("machine", "")
    if not isinstance(machine, str):
        raise RequestError("must be text", where="machine")
    found: dict[str, int] = {}
    measured: dict[str, Spread] = {}
    for name, value in data["costs"].items():
        row = _row(name)
        if isinstance(value, dict):
            measured[name] = _spread(row, value)
            found[name] = measured[name].value
        else:
            found[name] = _number(row, value, f"costs.{name}")
    return CostFile(costs=Costs(**found), measured=measured, machine=machine)


def _row(name: str) -> Cost:
    for row in TABLE:
        if row.name == name:
            return row
    from pydamon.spec.forms.scheme_short import guess

    raise RequestError(f"is no cost{guess(name, [row.name for row in TABLE])}", where=f"costs.{fit(name, _SHOWN)}")


def _spread(row: Cost, value: dict[str, Any]) -> Spread:
    where = f"costs.{row.name}"
    names = Spread.__struct_fields__
    for name in value:
        if name not in names:
            raise RequestError(
                f"is nothing of a cost; there are {', '.join(names)}", where=f"{where}.{fit(name, _SHOWN)}"
            )
    for name in names:
        if name not in value:
            raise RequestError("is missing", where=f"{where}.{name}")
    numbers = {name: _number(row, value[name], f"{where}.{name}") for name in names if name != "samples"}
    samples = value["samples"]
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples < 1 << 53:
        raise RequestError("must be a number of measurements, 1 or more", where=f"{where}.samples")
    found = Spread(**numbers, samples=samples)
    if not found.low <= found.value <= found.high:
        raise RequestError("must not be below low or above high", where=f"{where}.value")
    return found


def _number(row: Cost, value: object, where: str) -> int:
    """A cost in the unit of its name, within its bounds."""
    if isinstance(value, str):
        parse = next((parse for suffix, parse in _PARSERS.items() if row.name.endswith(suffix)), units.parse_count)
        try:
            value = parse(value)
        except RequestError as error:
            raise RequestError(error.message, where=where) from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(f"is {fit(repr(value), _SHOWN)}; it must be {row.low} to {row.high}", where=where)
    if not row.low <= value <= row.high:
        shown = value if abs(value) < 1 << 64 else "beyond 64 bits"
        raise RequestError(f"is {shown}; it must be {row.low} to {row.high}", where=where)
    return value


_PARSERS: dict[str, Callable[[str], int]] = {
    "_ns": units.parse_time_ns,
    "_bytes": units.parse_size,
    "_permil": units.parse_permil,
}
