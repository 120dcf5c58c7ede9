"""The typed request: kdamonds → contexts → (ops, targets, intervals, nr_regions).

The layout and the names are those that the ``damo`` tool reads and writes; ``primitive`` and ``faithful`` are ours. All
quantities are exact integers whose unit is in the name; what people write (``5 ms``, ``2 MiB``, ``max``) is turned into
them by :func:`from_builtins`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from pydamon.errors import RequestError, located
from pydamon.learned import learned
from pydamon.spec import modules, quantities, units
from pydamon.spec.primitives import PrimitiveName
from pydamon.spec.probes import Probe, validate_probes
from pydamon.spec.schemes import PARSERS as SCHEME_PARSERS
from pydamon.spec.schemes import QUANTITIES, Scheme, validate_schemes

OpsName = Literal["vaddr", "fvaddr", "paddr", "sim", "reported"]

_INDEX = re.compile(r"\[\d+\]")
MAX_NR_REGIONS = 1_000_000  # beyond this a snapshot is no summary any more (the kernel sets no limit)
MAX_MATCHED = 1024
MAX_PATTERNS = 64
PAGE_SIZE = 4096
ONLY_CONTEXT = "kdamonds[0].contexts[0]"  # the path of what an engine runs, for messages


class IntervalsGoal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Auto-tuning of the intervals (docs/algorithms.md 2.9): the wanted share of access events in 1/10,000, tried every
    ``aggrs`` aggregations, within bounds of the sampling interval. All zero, as in the kernel, means off."""

    access_bp: int = 400
    aggrs: int = 3
    min_sample_us: int = 5_000
    max_sample_us: int = 10_000_000


class Intervals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling, aggregation and update interval. Our update default is 1 s; the kernel's is 60 s (2.1)."""

    sample_us: int = 5_000
    aggr_us: int = 100_000
    ops_update_us: int = 1_000_000
    intervals_goal: IntervalsGoal | None = None


class NrRegions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the number of regions, and with it of the overhead (max) and the resolution (min)."""

    min: int = 10
    max: int = 1000


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address range, ``end`` exclusive, in bytes."""

    start: int
    end: int


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Processes by what they are called, or by their cgroup, as they come and go; patterns as in a shell.

    ``names`` are of programs, ``cgroups`` are paths below the mount of cgroup v2 (all below one belongs to it).
    ``most`` bounds how many are monitored at a time; of more the largest are.
    """

    names: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    most: int = 64


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is monitored: a process (``include_children``: and all that descend from it), the processes of a cgroup, or
    those that ``match``.

    ``regions``: for ``vaddr`` the ranges to begin with, for ``fvaddr`` all that is monitored, for ``paddr`` the limits.
    ``cgroup``, ``include_children`` and ``match`` are ours.
    """

    pid: int | None = None
    regions: tuple[Region, ...] = ()
    cgroup: str | None = None
    include_children: bool = False
    match: Match | None = None


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One monitoring request.

    Unless ``faithful``, sampling of vaddr, fvaddr and sim uses what the machine tells for free (docs/record.md); with
    it, it is the kernel's.
    """

    ops: OpsName = "vaddr"
    primitive: PrimitiveName = "auto"
    targets: tuple[Target, ...] = ()
    intervals: Intervals = Intervals()
    nr_regions: NrRegions = NrRegions()
    schemes: tuple[Scheme, ...] = ()
    faithful: bool = False
    probes: tuple[Probe, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are named, in order."""
        return tuple(target.pid for target in self.targets if target.pid is not None)

    @property
    def cgroup(self) -> str | None:
        """The cgroup whose processes are the targets, if it is one."""
        return next((target.cgroup for target in self.targets if target.cgroup is not None), None)

    @property
    def match(self) -> Match | None:
        """Which processes are the targets, if they are found by patterns."""
        return next((target.match for target in self.targets if target.match is not None), None)

    @property
    def include_children(self) -> bool:
        """Whether all that descend from the named processes is monitored, too."""
        return any(target.include_children for target in self.targets)


class Kdamond(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One monitoring thread; as in the kernel's sysfs files it runs one context.

    ``modules`` add schemes to it: texts like ``reclaim min_age=30s``, or objects with a ``name`` and knobs.
    """

    contexts: tuple[Context, ...]
    modules: tuple[str | dict[str, str | int | bool], ...] = ()


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole request: kdamonds, or parameters of one of the kernel's modules (see `pydamon.spec.modules`)."""

    kdamonds: tuple[Kdamond, ...] = ()
    modules: dict[str, dict[str, int | bool]] = {}

    @property
    def context(self) -> Context:
        """The only context of the first kdamond, which is what an engine runs."""
        return self.kdamonds[0].contexts[0]

    def with_context(self, context: Context) -> Spec:
        """The same with another context in the first kdamond."""
        first = msgspec.structs.replace(self.kdamonds[0], contexts=(context,))
        return Spec(kdamonds=(first, *self.kdamonds[1:]), modules=self.modules)


# How a quantity that is written as text is read, by its key.
_PARSERS: dict[str, Callable[[str], int]] = {
    "sample_us": units.parse_time_us,
    "aggr_us": units.parse_time_us,
    "ops_update_us": units.parse_time_us,
    "access_bp": units.parse_permyriad,
    "aggrs": units.parse_count,
    "min_sample_us": units.parse_time_us,
    "max_sample_us": units.parse_time_us,
    "min": units.parse_count,
    "max": units.parse_count,
    "pid": units.parse_count,
    "start": units.parse_address,
    "end": units.parse_address,
    **SCHEME_PARSERS,
}


def _exact(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _exact_field(str(key), item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _exact_field(key: str, value: Any, path: str) -> Any:
    *_, grandparent, parent = ["", "", *_INDEX.sub("", path).split(".")[:-1]]
    with located(path):
        if f"{parent}.{key}" in QUANTITIES:
            return QUANTITIES[f"{parent}.{key}"].parse(value)
        if isinstance(value, str):
            # The same key may mean a size here and a number there.
            for name in (f"{grandparent}.{parent}.{key}", f"{parent}.{key}", key):
                if name in _PARSERS:
                    return _PARSERS[name](value)
    return _exact(value, path)


_Read = TypeVar("_Read")


def read(data: object, wanted: type[_Read], path: str = "") -> _Read:
    """A value of a type of the spec from what a JSON or YAML parser returns, not validated beyond its types.

    ``path`` is where it stands. Raises RequestError whose ``where`` is the path of the field.
    """
    try:
        return msgspec.convert(_exact(data, path), learned(wanted), dec_hook=quantities.decode)
    except msgspec.ValidationError as error:
        # msgspec ends its message with " - at `$.path`".
        message, _, at = str(error).partition(" - at `")
        where = path + at.rstrip("`").removeprefix("$")
        raise RequestError(message, where=where.lstrip(".") or "spec") from None
    except RecursionError:
        raise RequestError("is nested too deeply", where=path or "spec") from None


def from_builtins(data: object) -> Spec:
    """A validated spec from what a JSON or YAML parser returns.

    Raises RequestError whose ``where`` is the field's path, e.g. ``kdamonds[0].contexts[0].intervals.sample_us``.
    """
    if isinstance(data, dict) and "modules" in data:
        data = data | {"modules": modules.exact(data["modules"])}
    spec = read(data, Spec)
    validate(spec)
    return spec


def from_json(text: bytes | str) -> Spec:
    """A validated spec from JSON text; raises RequestError."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"is not JSON: {error}", where="spec") from None
    return from_builtins(data)


def to_builtins(spec: Spec) -> dict[str, Any]:
    """The spec as plain dictionaries, lists and numbers, in the layout that :func:`from_builtins` reads."""
    result: dict[str, Any] = msgspec.to_builtins(spec, enc_hook=quantities.encode)
    return result


def validate(spec: Spec) -> None:
    """Check everything that types alone do not say; raises RequestError naming the field."""
    validate_parts(spec)
    for k, kdamond in enumerate(spec.kdamonds):
        with located(f"kdamonds[{k}]"):
            context = only_context(kdamond)
            with located("contexts[0]"):
                validate_context(context)


def only_context(kdamond: Kdamond) -> Context:
    """The context of ``kdamond``; raises RequestError if it has not exactly one."""
    if len(kdamond.contexts) != 1:
        raise RequestError(f"has {len(kdamond.contexts)} contexts; a kdamond runs exactly one", where="contexts")
    return kdamond.contexts[0]


def validate_parts(spec: Spec) -> None:
    """Check that the spec is for kdamonds or for a module; raises RequestError."""
    if spec.kdamonds and spec.modules:
        raise RequestError("does not go with kdamonds: the kernel runs one or the other", where="modules")
    if not spec.kdamonds and not spec.modules:
        raise RequestError("must have at least one kdamond", where="kdamonds")


def validate_attrs(intervals: Intervals, nr_regions: NrRegions) -> None:
    """DAMON's rules for monitoring attributes (2.1): sample ≤ aggregation, 3 ≤ min ≤ max; and none of them zero."""

    def require(condition: bool, field: str, message: str) -> None:
        if not condition:
            raise RequestError(message, where=field)

    for field in ("sample_us", "aggr_us", "ops_update_us"):
        value = getattr(intervals, field)
        require(value >= 1, f"intervals.{field}", f"is {value} us; it must be at least 1us")
        require(value <= 10**13, f"intervals.{field}", f"is {value} us; the most is 115 days")
    require(
        intervals.sample_us <= intervals.aggr_us,
        "intervals.sample_us",
        f"the sampling interval ({_time(intervals.sample_us)}) must not be longer than the aggregation interval "
        f"({_time(intervals.aggr_us)})",
    )
    goal = intervals.intervals_goal
    if goal is not None and any((goal.access_bp, goal.aggrs, goal.min_sample_us, goal.max_sample_us)):
        where = "intervals.intervals_goal"
        require(1 <= goal.access_bp <= 10_000, f"{where}.access_bp", f"is {goal.access_bp}; it must be 0.01% to 100%")
        require(1 <= goal.aggrs <= 10_000, f"{where}.aggrs", f"is {goal.aggrs}; it must be 1 to 10000 aggregations")
        require(
            1 <= goal.min_sample_us <= goal.max_sample_us <= 10**13,
            f"{where}.min_sample_us",
            f"is {goal.min_sample_us} us; it must be 1us at least and max_sample_us ({goal.max_sample_us} us) at most",
        )
    require(nr_regions.min >= 3, "nr_regions.min", f"is {nr_regions.min}; DAMON needs at least 3 regions")
    require(
        nr_regions.min <= nr_regions.max,
        "nr_regions.max",
        f"is {nr_regions.max}; it must not be below the minimum of {nr_regions.min} regions",
    )
    require(
        nr_regions.max <= MAX_NR_REGIONS,
        "nr_regions.max",
        f"is {nr_regions.max}; the most is {MAX_NR_REGIONS}",
    )


def validate_context(context: Context) -> None:
    """Check all of a context that types alone do not say; raises RequestError naming the field."""
    validate_attrs(context.intervals, context.nr_regions)
    validate_schemes(context.schemes, ops=context.ops, nr_targets=len(context.targets))
    validate_probes(
        context.probes, ops=context.ops, window=max(context.intervals.aggr_us // context.intervals.sample_us, 1)
    )
    _validate_who(context)
    for t, target in enumerate(context.targets):
        _validate_ranges(target, f"targets[{t}]")


def _validate_ranges(target: Target, where: str) -> None:
    previous_end = 0
    for r, region in enumerate(target.regions):
        with located(f"{where}.regions[{r}]"):
            if not 0 <= region.start < region.end <= units.U64_MAX:
                raise RequestError(f"{region.start:#x}-{region.end:#x} is not a range; start must be below end")
            if region.start % PAGE_SIZE or region.end % PAGE_SIZE:
                raise RequestError(f"must start and end at multiples of {PAGE_SIZE}")
            if region.start < previous_end:
                raise RequestError("overlaps the region before it or is out of order")
        previous_end = region.end


def _validate_who(context: Context) -> None:
    """Whether the targets are such as the operations set can monitor."""
    ops, targets = context.ops, context.targets
    for t, target in enumerate(targets):
        with located(f"targets[{t}]"):
            if target.match is not None:
                _validate_match(target, target.match, alone=ops == "vaddr" and len(targets) == 1)
                continue
            if ops in ("vaddr", "fvaddr") and target.cgroup is None and (target.pid is None or target.pid <= 0):
                raise RequestError(f"is {target.pid}; {ops} needs the id of a process", where="pid")
            if target.pid is not None and (ops == "paddr" or target.cgroup is not None):
                why = f"with {ops}" if ops == "paddr" else "a cgroup is given"
                raise RequestError(f"is not needed: {why}", where="pid")
            if target.cgroup is not None and (ops != "vaddr" or len(targets) > 1):
                raise RequestError("must be the only target, and of the ops vaddr", where="cgroup")
            if target.include_children and (ops != "vaddr" or target.pid is None):
                raise RequestError("goes with the id of a process and vaddr", where="include_children")
            if target.include_children != targets[0].include_children:
                raise RequestError("must be the same for all targets", where="include_children")
            if ops == "fvaddr" and not target.regions:
                raise RequestError("are needed with fvaddr: the ranges to monitor", where="regions")
    if ops == "paddr" and len(targets) > 1:
        raise RequestError("has several entries; physical memory is one", where="targets")


def _validate_match(target: Target, match: Match, *, alone: bool) -> None:
    if not alone or target.pid is not None or target.cgroup is not None or target.include_children or target.regions:
        raise RequestError("must be all that is said of the only target, and of the ops vaddr", where="match")
    if not (match.names or match.cgroups):
        raise RequestError("needs names or cgroups: patterns like nginx* or system.slice/*.service", where="match")
    if not 1 <= match.most <= MAX_MATCHED:
        raise RequestError(f"is {match.most}; it must be 1 to {MAX_MATCHED}", where="match.most")
    for field, patterns in (("names", match.names), ("cgroups", match.cgroups)):
        if len(patterns) > MAX_PATTERNS:
            raise RequestError(f"has {len(patterns)} patterns; the most is {MAX_PATTERNS}", where=f"match.{field}")
        for index, pattern in enumerate(patterns):
            with located(f"match.{field}[{index}]"):
                _validate_pattern(pattern, is_path=field == "cgroups")


def _validate_pattern(pattern: str, *, is_path: bool) -> None:
    if not pattern or len(pattern) > 4096 or "\0" in pattern:
        raise RequestError("is empty, longer than 4096 characters, or has a NUL character; write it like nginx*")
    if not is_path and "/" in pattern:
        raise RequestError(f"{pattern!r} has a /; it is about the name of a program, not its path")
    if is_path and ".." in pattern.split("/"):
        raise RequestError(f"{pattern!r} has ..; write it from the root of cgroup v2, like system.slice/*.service")


def _time(value_us: int) -> str:
    return units.format_duration_ns(value_us * 1000)
