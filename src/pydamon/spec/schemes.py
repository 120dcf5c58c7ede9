"""DAMOS in the spec: access pattern → action, under quotas, goals, watermarks and filters.

The layout and the names are those that the ``damo`` tool reads and writes. What the fields mean is in the kernel's
DAMON design document; defaults are the kernel's unless said. ``dests``, ``goals`` and ``filters`` keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from pydamon.errors import RequestError, located
from pydamon.spec import units
from pydamon.spec.actions import ACTIONS, MIGRATIONS, Action, ActionName
from pydamon.spec.metrics import METRICS, OF_MEMCG, MetricName
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.units import U64_MAX, format_size

FilterName = Literal[
    "anon", "active", "memcg", "young", "hugepage_size", "unmapped", "node", "pgidle_set", "pgidle_unset",
    "perf_event", "addr", "target", "probe_hits_wsum",
]  # fmt: skip

# Decided per region by the core; the others per page by the ops.
CORE_FILTERS = frozenset({"addr", "target", "probe_hits_wsum"})
FILTERS_OF_PROBES_ONLY = frozenset({"pgidle_set", "pgidle_unset", "perf_event"})
MAX_SCHEMES = 256
MAX_FILTERS = 1024
MAX_NODE = 1023


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the parts of a spec have in common."""


class SizeRange(Struct, frozen=True):
    """Sizes in bytes, both ends included."""

    min: int = 0
    max: int = U64_MAX


class SumRange(Struct, frozen=True):
    """Weighted sums of the hits of probes, both ends included."""

    min: int = 0
    max: int = U64_MAX


class RateRange(Struct, frozen=True):
    """Access rates, both ends included."""

    min: Rate = Rate(0, "samples")
    max: Rate = Rate(None, "samples")


class AgeRange(Struct, frozen=True):
    """Ages, both ends included."""

    min: Age = Age(0, "aggrs")
    max: Age = Age(None, "aggrs")


class AccessPattern(Struct, frozen=True):
    """Which regions a scheme is for: all three ranges must hold. Everything by default."""

    sz_bytes: SizeRange = SizeRange()
    nr_accesses: RateRange = RateRange()
    age: AgeRange = AgeRange()


class Goal(Struct, frozen=True):
    """What a quota is tuned towards: the metric's value should be ``target_value`` (1/10,000 for ``_bp``, else us).

    ``current_value`` is the user's own measurement (``user_input``). With ``complement`` the value is what is left of a
    share: 100 % less the metric. ``name`` is ours: to give values by.
    """

    metric: MetricName
    target_value: int
    complement: bool = False
    current_value: int = 0
    nid: int | None = None
    memcg_path: str | None = None
    name: str | None = None


class Weights(Struct, frozen=True):
    """How much counts what when not everything can be acted on (docs/algorithms.md 2.12); in 1/1000. Size does not.

    The kernel's defaults are all 0, by which every region is alike; ours let access rate and age count the same.
    """

    sz_permil: int = 0
    nr_accesses_permil: int = 1000
    age_permil: int = 1000


class Quotas(Struct, frozen=True):
    """At most ``time_ms`` and ``sz_bytes`` per ``reset_interval_ms``, or less as the goals say; 0 is no limit.

    ``bloat_bp`` is ours, for collapse: huge pages add at most this share of what is resident, in 1/10,000.
    """

    time_ms: int = 0
    sz_bytes: int = 0
    reset_interval_ms: int = 1000
    goals: tuple[Goal, ...] = ()
    goal_tuner: Literal["consist", "temporal"] = "consist"
    fail_charge_num: int = 0
    fail_charge_denom: int = 0
    weights: Weights = Weights()
    bloat_bp: int = 0

    @property
    def limited(self) -> bool:
        """Whether there is any quota at all."""
        return bool(self.time_ms or self.sz_bytes or self.goals)


class Watermarks(Struct, frozen=True):
    """When a scheme is active at all, by the share of free memory in 1/1000, looked at every ``interval_us``.

    ``nid``: by that of a NUMA node (ours: no kernel has it); None: of the whole machine.
    """

    metric: Literal["none", "free_mem_rate"] = "none"
    interval_us: int = 5_000_000
    high_permil: int = 1000
    mid_permil: int = 1000
    low_permil: int = 0
    nid: int | None = None

    @property
    def of_what(self) -> str:
        """Whose free memory they go by, in words."""
        return "memory" if self.nid is None else f"the memory of NUMA node {self.nid}"


class AddressRange(Struct, frozen=True):
    """Addresses in bytes, ``end`` exclusive."""

    start: int
    end: int


class Filter(Struct, frozen=True):
    """Memory that is (``matching``) or is not of the type is rejected, or allowed; the first match decides.

    The type ``node`` (on the NUMA node ``nid``) is ours. ``pgidle_set`` and ``pgidle_unset`` are for probes, as is
    ``perf_event``, which is ours: an access in the region that the event ``perf_event`` has sampled.
    """

    filter_type: FilterName
    matching: bool = True
    allow: bool = False
    memcg_path: str | None = None
    address_range: AddressRange | None = None
    damon_target_idx: int | None = None
    hugepage_size: SizeRange | None = None
    nid: int | None = None
    probe_hits_wsum: SumRange | None = None
    perf_event: str | None = None


class Dest(Struct, frozen=True):
    """A destination of migrated pages: the NUMA node ``id`` gets a share of ``weight`` of all weights."""

    id: int
    weight: int = 1


class Scheme(Struct, frozen=True):
    """One DAMOS scheme. ``name`` and ``max_nr_snapshots`` (0: no limit) are as in newer kernels and ours."""

    action: ActionName
    access_pattern: AccessPattern = AccessPattern()
    apply_interval_us: int = 0
    quotas: Quotas = Quotas()
    watermarks: Watermarks = Watermarks()
    filters: tuple[Filter, ...] = ()
    target_nid: int | None = None
    dests: tuple[Dest, ...] = ()
    max_nr_snapshots: int = 0
    name: str | None = None

    @property
    def does(self) -> Action:
        """What is known of its action."""
        return ACTIONS[self.action]

    @property
    def needs_swap(self) -> bool:
        """Whether it is to take anonymous memory, too, for which there has to be swap."""
        for each in self.filters:
            if each.filter_type == "anon" and each.matching and not each.allow:
                return False
            if each.allow:
                break
        return self.does.swaps

    @property
    def core_filters(self) -> tuple[Filter, ...]:
        """Those that are decided per region, in order; they come before the others."""
        return tuple(f for f in self.filters if f.filter_type in CORE_FILTERS)

    @property
    def ops_filters(self) -> tuple[Filter, ...]:
        """Those that the operations set decides per page, in order."""
        return tuple(f for f in self.filters if f.filter_type not in CORE_FILTERS)

    @property
    def destinations(self) -> tuple[Dest, ...]:
        """Where a migration goes: ``dests``, or all to ``target_nid``."""
        if self.dests or self.target_nid is None:
            return self.dests
        return (Dest(id=self.target_nid),)


# How a quantity that is written as text is read, by its key or by its parent's and its own.
PARSERS: dict[str, Callable[[str], int]] = {
    "access_pattern.sz_bytes.min": units.parse_size,
    "access_pattern.sz_bytes.max": units.parse_size,
    "hugepage_size.min": units.parse_size,
    "hugepage_size.max": units.parse_size,
    "quotas.sz_bytes": units.parse_size,
    "time_ms": units.parse_time_ms,
    "reset_interval_ms": units.parse_time_ms,
    "apply_interval_us": units.parse_time_us,
    "interval_us": units.parse_time_us,
    "sz_permil": units.parse_permil,
    "nr_accesses_permil": units.parse_permil,
    "age_permil": units.parse_permil,
    "high_permil": units.parse_permil,
    "mid_permil": units.parse_permil,
    "low_permil": units.parse_permil,
    "target_value": units.parse_metric,
    "current_value": units.parse_metric,
    "fail_charge_num": units.parse_count,
    "fail_charge_denom": units.parse_count,
    "bloat_bp": units.parse_permyriad,
    "target_nid": units.parse_count,
    "nid": units.parse_count,
    "dests.id": units.parse_count,
    "weight": units.parse_count,
    "damon_target_idx": units.parse_count,
    "max_nr_snapshots": units.parse_count,
}
# Quantities that keep their unit.
QUANTITIES: dict[str, type[Rate] | type[Age]] = {
    "nr_accesses.min": Rate,
    "nr_accesses.max": Rate,
    "age.min": Age,
    "age.max": Age,
}


def validate_schemes(schemes: tuple[Scheme, ...], *, ops: str, nr_targets: int) -> None:
    """Check what types alone do not say; raises RequestError with the field's path, e.g. ``schemes[0].quotas``."""
    if len(schemes) > MAX_SCHEMES:
        raise RequestError(f"has {len(schemes)} entries; the most is {MAX_SCHEMES}", where="schemes")
    for index, scheme in enumerate(schemes):
        with located(f"schemes[{index}]"):
            validate_scheme(scheme, ops=ops, nr_targets=nr_targets)


def validate_scheme(scheme: Scheme, *, ops: str, nr_targets: int | None = None) -> None:
    """Check one scheme for targets of ``ops``; raises RequestError naming the field."""
    with located("access_pattern"):
        _validate_pattern(scheme.access_pattern)
    _bounded(scheme.apply_interval_us, 0, 10**13, "apply_interval_us", "us")
    _bounded(scheme.max_nr_snapshots, 0, U64_MAX, "max_nr_snapshots", "")
    _validate_destinations(scheme)
    with located("quotas"):
        _validate_quotas(scheme.quotas)
        if scheme.quotas.bloat_bp and scheme.action != "collapse":
            raise RequestError(f"is for collapse, which adds memory; {scheme.action} does not", where="bloat_bp")
    with located("watermarks"):
        _validate_watermarks(scheme.watermarks)
    if len(scheme.filters) > MAX_FILTERS:
        raise RequestError(f"has {len(scheme.filters)} entries; the most is {MAX_FILTERS}", where="filters")
    for index, item in enumerate(scheme.filters):
        with located(f"filters[{index}]"):
            if item.filter_type in FILTERS_OF_PROBES_ONLY:
                instead = "" if item.perf_event else "; use young"
                raise RequestError(f"is {item.filter_type}, which is for probes{instead}", where="filter_type")
            validate_filter(item, nr_targets)
    if ops == "reported" and scheme.does.acts:
        counting = " or ".join(name for name, row in ACTIONS.items() if not row.acts)
        raise RequestError(
            f"{scheme.action!r} cannot be done: reported accesses are of no running process; use {counting}",
            where="action",
        )


def _bounded(value: int, low: int, high: int, where: str, unit: str) -> None:
    if not low <= value <= high:
        raise RequestError(f"is {value}{' ' + unit if unit else ''}; it must be {low} to {high}", where=where)


def _validate_pattern(pattern: AccessPattern) -> None:
    size = pattern.sz_bytes
    for name, value in (("min", size.min), ("max", size.max)):
        _bounded(value, 0, U64_MAX, f"sz_bytes.{name}", "bytes")
    if size.min > size.max:
        text = f"{format_size(size.min)} is above the maximum of {format_size(size.max)}"
        raise RequestError(text, where="sz_bytes.min")
    for field, low, high in (
        ("nr_accesses", pattern.nr_accesses.min, pattern.nr_accesses.max),
        ("age", pattern.age.min, pattern.age.max),
    ):
        if low.value is None and high.value is not None:
            raise RequestError(f"is above the maximum of {high}", where=f"{field}.min")
        comparable = (low.unit == high.unit or high.value == 0) and low.value is not None and high.value is not None
        if comparable and low.value > high.value:  # type: ignore[operator]
            raise RequestError(f"{low} is above the maximum of {high}", where=f"{field}.min")


def _validate_destinations(scheme: Scheme) -> None:
    migrates = scheme.does.migrates
    if migrates and not scheme.destinations:
        raise RequestError(f"is needed with {scheme.action}: the NUMA node to migrate to", where="target_nid")
    if not migrates and scheme.dests:
        raise RequestError(f"is for {' and '.join(MIGRATIONS)}, not for {scheme.action}", where="dests")
    if scheme.target_nid is not None:
        if scheme.dests:
            raise RequestError("goes with no dests; name the nodes in dests only", where="target_nid")
        _bounded(scheme.target_nid, 0, MAX_NODE, "target_nid", "")
    for index, dest in enumerate(scheme.dests):
        _bounded(dest.id, 0, MAX_NODE, f"dests[{index}].id", "")
        _bounded(dest.weight, 0, 2**32 - 1, f"dests[{index}].weight", "")
    if scheme.dests and not any(dest.weight for dest in scheme.dests):
        raise RequestError("has no weight above 0", where="dests")


def _validate_quotas(quotas: Quotas) -> None:
    _bounded(quotas.time_ms, 0, 10**10, "time_ms", "ms")
    _bounded(quotas.sz_bytes, 0, U64_MAX, "sz_bytes", "bytes")
    _bounded(quotas.reset_interval_ms, 0, 10**10, "reset_interval_ms", "ms")
    if quotas.limited and not quotas.reset_interval_ms:
        raise RequestError("is 0; a quota needs the time that it is for, e.g. 1s", where="reset_interval_ms")
    _bounded(quotas.fail_charge_num, 0, 2**32 - 1, "fail_charge_num", "")
    _bounded(quotas.fail_charge_denom, 0, 2**32 - 1, "fail_charge_denom", "")
    if quotas.fail_charge_num > quotas.fail_charge_denom:
        raise RequestError("is above fail_charge_denom; a failed byte costs at most one", where="fail_charge_num")
    _bounded(quotas.bloat_bp, 0, 10_000, "bloat_bp", "bp")
    for field in ("sz_permil", "nr_accesses_permil", "age_permil"):
        _bounded(getattr(quotas.weights, field), 0, 2**32 - 1, f"weights.{field}", "")
    names = set()
    for index, goal in enumerate(quotas.goals):
        with located(f"goals[{index}]"):
            _validate_goal(goal)
            if goal.name is not None and goal.name in names:
                raise RequestError(f"{goal.name!r} is the name of a goal before it, too", where="name")
        names.add(goal.name)


def _validate_goal(goal: Goal) -> None:
    _bounded(goal.target_value, 1, U64_MAX, "target_value", "")
    _bounded(goal.current_value, 0, U64_MAX, "current_value", "")
    metric = METRICS[goal.metric]
    if goal.complement and metric.most is None:
        raise RequestError(f"is for shares of a whole, not for {goal.metric}", where="complement")
    if metric.of_node:
        if goal.nid is None:
            raise RequestError(f"is needed with {goal.metric}: the NUMA node", where="nid")
        _bounded(goal.nid, 0, MAX_NODE, "nid", "")
    elif goal.nid is not None:
        raise RequestError(f"is for metrics of a node, not for {goal.metric}", where="nid")
    if (goal.memcg_path is not None) != metric.of_memcg:
        need = "is needed with" if goal.memcg_path is None else f"is for {', '.join(OF_MEMCG)}, not for"
        raise RequestError(f"{need} {goal.metric}", where="memcg_path")


def _validate_watermarks(marks: Watermarks) -> None:
    if marks.nid is not None:
        _bounded(marks.nid, 0, MAX_NODE, "nid", "")
        if marks.metric == "none":
            raise RequestError("is for free_mem_rate; without a metric nothing is looked at", where="nid")
    if marks.metric == "none":
        return
    _bounded(marks.interval_us, 1, 10**13, "interval_us", "us")
    _bounded(marks.high_permil, 0, 1000, "high_permil", "")
    if not marks.high_permil >= marks.mid_permil >= marks.low_permil >= 0:
        raise RequestError(
            f"high, mid and low are {marks.high_permil}, {marks.mid_permil} and {marks.low_permil} permil; "
            "none may be below the next",
            where="high_permil",
        )


# Which field says more about a filter of which type.
_FILTER_FIELDS = {
    "memcg": "memcg_path",
    "addr": "address_range",
    "target": "damon_target_idx",
    "hugepage_size": "hugepage_size",
    "node": "nid",
    "probe_hits_wsum": "probe_hits_wsum",
    "perf_event": "perf_event",
}


def validate_filter(item: Filter, nr_targets: int | None) -> None:
    """Check that a filter has what its type needs, and no more; raises RequestError naming the field."""
    needed = _FILTER_FIELDS.get(item.filter_type)
    for field in _FILTER_FIELDS.values():
        given = getattr(item, field) is not None
        if field == needed and not given:
            raise RequestError(f"is needed with a filter of type {item.filter_type}", where=f"{field}")
        if field != needed and given:
            raise RequestError(f"does not go with a filter of type {item.filter_type}", where=f"{field}")
    if item.address_range is not None:
        start, end = item.address_range.start, item.address_range.end
        if not 0 <= start < end <= U64_MAX:
            raise RequestError(f"{start:#x}-{end:#x} is not a range; start must be below end", where="address_range")
    for field in ("hugepage_size", "probe_hits_wsum"):
        wanted = getattr(item, field)
        if wanted is not None and not 0 <= wanted.min <= wanted.max <= U64_MAX:
            raise RequestError("is not a range; min must not be above max", where=field)
    if item.nid is not None:
        _bounded(item.nid, 0, MAX_NODE, "nid", "")
    if item.damon_target_idx is not None:
        most = 2**31 - 1 if not nr_targets else nr_targets - 1
        _bounded(item.damon_target_idx, 0, most, "damon_target_idx", "")
