"""A machine to simulate: memory, swap, who reclaims and what things cost; from text or a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydamon.errors import RequestError, located
from pydamon.plain import fit
from pydamon.spec import units
from pydamon.spec.costs import MAX_FILE_BYTES, Backing, CostFile, Costs
from pydamon.spec.costs import of_values as costs_of_values
from pydamon.spec.schemes import MAX_NODE

PAGE_SIZE = 4096
MAX_BYTES = 1 << 50
_SHOWN = 41  # characters of what a user wrote

Swap = Literal["outside", "zram", "ssd"]
Reclaim = Literal["ideal", "two-list"]
RECLAIMS: tuple[Reclaim, ...] = ("ideal", "two-list")


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a simulated machine has.

    ``node_bytes``: memory of NUMA node 0, 1, ...; by default one node with twice what the workloads need. ``swap``:
    in zram, which takes memory of this machine by its ratio of compression, on an SSD, or like zram but
    ``outside`` of this machine's memory; ``swap_bytes``: by default as much as the workloads need. ``reclaim``: who
    makes room: the ``ideal``, which knows what was idle longest, or the kernel's ``two-list`` LRU with its background
    reclaim. ``file_regions``: names of the regions of workloads that are files mapped to memory, never written: dropped
    instead of swapped. ``memcgs``: the cgroup of each target, by default ``/sim/0``, ``/sim/1``, ... ``max_pieces``:
    see `AccessModel.touched`. ``history``: whether it keeps how much memory was used over time. ``cpu_waits``: from how
    many seconds on tasks wait for a CPU for how many 1/1000 of the time; before the first they do not. Raises
    RequestError.
    """

    node_bytes: tuple[int, ...] = ()
    swap_bytes: int | None = None
    swap: Swap = "outside"
    reclaim: Reclaim = "ideal"
    file_regions: tuple[str, ...] = ()
    memcgs: tuple[str, ...] = ()
    costs: Costs = field(default_factory=Costs)
    max_pieces: int = 1 << 14
    history: bool = False
    cpu_waits: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.node_bytes) > MAX_NODE + 1:
            text = f"has {len(self.node_bytes)} nodes; the most is {MAX_NODE + 1}"
            raise RequestError(text, where="machine.node_bytes")
        for node, size in enumerate(self.node_bytes):
            _check_size(size, PAGE_SIZE, f"machine.node_bytes[{node}]")
        if self.swap_bytes is not None:
            _check_size(self.swap_bytes, 0, "machine.swap_bytes")
        for index, path in enumerate(self.memcgs):
            if not path.startswith("/"):
                raise RequestError(
                    f"{path!r} is no path of a cgroup; it begins with /", where=f"machine.memcgs[{index}]"
                )
        for index, (at_s, permil) in enumerate(self.cpu_waits):
            if not 0 <= permil <= 1000 or at_s < (self.cpu_waits[index - 1][0] if index else 0):
                text = f"is {at_s} s, {permil}; times must not fall, and 0 to 1000 be waited"
                raise RequestError(text, where=f"machine.cpu_waits[{index}]")
        if not 1 <= self.max_pieces <= 1 << 20:
            raise RequestError(f"is {self.max_pieces}; it must be 1 to {1 << 20}", where="machine.max_pieces")

    @property
    def backing(self) -> Backing:
        """By what the costs of swap go."""
        return "ssd" if self.swap == "ssd" else "zram"

    def kept_bytes(self, swapped_bytes: int) -> int:
        """What of this machine's memory ``swapped_bytes`` still take."""
        return self.costs.kept_bytes(swapped_bytes, "zram") if self.swap == "zram" else 0


def _check_size(size: int, low: int, where: str) -> None:
    if not low <= size <= MAX_BYTES or size % PAGE_SIZE:
        raise RequestError(f"is {size} bytes; it must be {low} to {MAX_BYTES}, in pages of {PAGE_SIZE}", where=where)


def parse_machine(text: str, costs: Costs | None = None) -> MachineSpec:
    """A machine from words like ``ram=2GiB swap=zram:1GiB``; raises RequestError naming the word.

    ``ram``: one node; ``nodes=8GiB+16GiB``: several, the first the fast one; ``swap=KIND:SIZE`` (zram, ssd) or ``off``;
    ``files=a+b``: regions that are files; ``cgroups=/a+/b``: those of the targets; ``reclaim``: two-list (the usual) or
    ideal.
    """
    values: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if name not in _WORDS or not equals or not value:
            known = ", ".join(_WORDS)
            example = "write it like 'ram=2GiB swap=zram:1GiB'"
            raise RequestError(f"{fit(word, _SHOWN)!r} says nothing of a machine; {example}; there are {known}")
        if name in values:
            raise RequestError("is there twice", where=name)
        values[name] = value
    return _of(values, costs)


def load_machine(text: bytes | str) -> tuple[MachineSpec, CostFile]:
    """A machine from the text of a file (JSON or YAML) with ``ram`` or ``nodes``, ``swap``, ..., and perhaps ``costs``.

    The costs are those of a cost file, whose ``machine`` is a name. Raises RequestError.
    """
    from pydamon.spec.forms.scheme_files import values

    if len(text) > MAX_FILE_BYTES:
        raise RequestError(f"is larger than {MAX_FILE_BYTES >> 10} KiB; that is no machine")
    data = values(text)
    if not isinstance(data, dict):
        raise RequestError("is no machine: it must be an object with ram or nodes, swap, costs")
    found: dict[str, Any] = {}
    for name, value in data.items():
        if name in ("costs", "machine"):
            continue
        if name not in _WORDS:
            raise RequestError(
                f"is nothing of a machine; there are {', '.join(_WORDS)}, costs", where=fit(name, _SHOWN)
            )
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
            raise RequestError("must be text, or a list of texts", where=name)
        found[name] = "+".join(map(str, parts))
    file = CostFile(costs=Costs())
    if "costs" in data:
        file = costs_of_values({name: data[name] for name in ("costs", "machine") if name in data})
    return _of(found, file.costs), file


_WORDS = ("ram", "nodes", "swap", "files", "cgroups", "reclaim")


def _of(values: dict[str, str], costs: Costs | None) -> MachineSpec:
    if "ram" in values and "nodes" in values:
        raise RequestError("says what ram says, too; give one of both", where="nodes")
    fields: dict[str, Any] = {"reclaim": "two-list", "swap": "zram", "costs": costs or Costs()}
    for name in ("ram", "nodes"):
        if name in values:
            with located(name, ": "):
                fields["node_bytes"] = tuple(_size(part) for part in values[name].split("+"))
    if "swap" in values:
        with located("swap", ": "):
            fields |= _swap(values["swap"])
    if "reclaim" in values:
        if values["reclaim"] not in RECLAIMS:
            text = f"is {fit(values['reclaim'], _SHOWN)!r}; it must be {' or '.join(RECLAIMS)}"
            raise RequestError(text, where="reclaim")
        fields["reclaim"] = values["reclaim"]
    for name, field_name in (("files", "file_regions"), ("cgroups", "memcgs")):
        if name in values:
            fields[field_name] = tuple(values[name].split("+"))
    return MachineSpec(**fields)


def _swap(text: str) -> dict[str, Any]:
    if text in ("off", "0"):
        return {"swap_bytes": 0}
    kind, colon, size = text.partition(":")
    if kind not in ("zram", "ssd") or (colon and not size):
        raise RequestError(f"is {fit(text, _SHOWN)!r}; it is zram:SIZE, ssd:SIZE, or off")
    return {"swap": kind, "swap_bytes": _size(size) if colon else None}


def _size(text: str) -> int:
    return units.parse_size(text) // PAGE_SIZE * PAGE_SIZE if text != "max" else MAX_BYTES
