"""What is known of a moment as a view: how much memory is in use, idle, hot and cold, where it is, and what that costs.

Screens, pages, metrics and JSON are made of it. ``live(moment)`` works it out (see ``views/moments.py``); whatever is
an estimate has the bounds that it lies between in 95 of 100 cases, where they are known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from pydamon.analysis import distribution as dist
from pydamon.analysis.panel import SECOND_NS, Estimate, estimates, latest
from pydamon.analysis.summary import Holding, holdings_of
from pydamon.analysis.together import Together
from pydamon.errors import PydamonError
from pydamon.learned import learned
from pydamon.linux import containers
from pydamon.plain import printable
from pydamon.records.batch import RegionBatch
from pydamon.spec.statistics import STATISTICS
from pydamon.views.fields import Field, View, counter, fact, gauge
from pydamon.views.moments import WINDOWS_S as WINDOWS_S
from pydamon.views.moments import Known, Moment
from pydamon.views.returned import after

KINDS = ("file", "anonymous", "shared")
_EDGES = np.array([-np.inf, 0, *WINDOWS_S, np.inf])


_NEEDED = "resident memory but files that have not been accessed for 10 min: what is missed without swap"


class Used(View):
    """How much was accessed within a time: as much as has been idle for less."""

    window_s: Annotated[int, fact("the time", "s")]
    bytes: Annotated[int, gauge("bytes", "memory that was accessed within this time")]
    low_bytes: Annotated[int | None, gauge("bytes", "no less than that, in 95 of 100 cases; null: not known")] = None
    high_bytes: Annotated[int | None, gauge("bytes", "no more than that, in 95 of 100 cases; null: not known")] = None


class Heat(View):
    """Memory of one kind, by how hot it is: by the regions."""

    kind: Annotated[str, fact("file, anonymous or shared")]
    hot_bytes: Annotated[int, gauge("bytes", "memory that was accessed in the last aggregation interval")]
    warm_bytes: Annotated[int, gauge("bytes", "other memory that was accessed within 10 s")]
    cold_bytes: Annotated[int, gauge("bytes", "memory that has not been accessed for 10 s")]
    unknown_bytes: Annotated[int, gauge("bytes", "memory of which that is not known")]


class MappingHeat(Heat):
    """The mappings of one name and kind."""

    name: Annotated[str, fact("its name: of a file without directories")]
    bytes: Annotated[int, gauge("bytes", "its memory of which it is known how hot it is")]
    rate_bp: Annotated[int, gauge("bp", "samples that found an access, in the mean over its memory")]
    idle_ms: Annotated[int, gauge("ms", "for how long nothing of it was accessed")]


class Memory(View):
    """The memory of a target, or of all; ``used`` in the order of the windows, as far as they are known yet."""

    resident_bytes: Annotated[int, gauge("bytes", "memory that is resident, of what is monitored")]
    needed_bytes: Annotated[int, gauge("bytes", _NEEDED)]
    working_set_bytes: Annotated[int, gauge("bytes", "memory that regions saw accessed in the last aggregation")]
    by: Annotated[str, fact("what tells how long memory has been idle: panel (pages drawn at random) or regions")]
    used: list[Used]
    kinds: list[Heat]


class Target(Memory):
    """A target that lives."""

    target: Annotated[int, fact("number of the target, in this run for ever")]
    pid: Annotated[int | None, fact("its process")]
    command: Annotated[str | None, fact("the command of its process")]
    cgroup: Annotated[str | None, fact("the path of its cgroup")]
    container_id: Annotated[str | None, fact("the id of its container")]
    pod_uid: Annotated[str | None, fact("the id of its pod")]
    namespace: Annotated[str | None, fact("the namespace of its pod")]
    pod: Annotated[str | None, fact("the name of its pod")]
    container: Annotated[str | None, fact("the name of its container")]
    rss_bytes: Annotated[int | None, gauge("bytes", "resident memory as the kernel counts it, of the whole process")]
    swap_bytes: Annotated[int | None, gauge("bytes", "memory of the process that is swapped out")]
    regions: Annotated[int, gauge("", "regions")]
    aggr_us: Annotated[int, gauge("us", "the aggregation interval")]
    mappings: list[MappingHeat]
    returned_bytes: Annotated[
        list[int] | None,
        counter("bytes", "memory that came back after at least each of the windows of idle time; null: not known"),
    ] = None


class Sum(Memory):
    """All targets together."""

    once: Annotated[bool, fact("whether memory that they share counts once")]


class Container(Sum):
    """A container: its targets together. Names are null where its runtime's description could not be read."""

    id: Annotated[str, fact("its id")]
    pod_uid: Annotated[str | None, fact("the id of its pod")]
    namespace: Annotated[str | None, fact("the namespace of its pod")]
    pod: Annotated[str | None, fact("the name of its pod")]
    container: Annotated[str | None, fact("its name")]
    targets: Annotated[list[int], fact("the numbers of its targets")]


class Scheme(View):
    """A scheme's statistics since the start."""

    number: Annotated[int, fact("its place among the schemes")]
    name: Annotated[str, fact("its name; empty: it has none")]
    action: Annotated[str, fact("its action")]
    active: Annotated[bool, fact("whether it may act now")]
    stats: dict[str, int]
    effective_bytes: Annotated[int | None, gauge("bytes", "what its quota lets it try in a window; null: no limit")]

    @staticmethod
    def more_fields() -> Iterator[Field]:
        """The statistics."""
        for row in STATISTICS.values():
            yield Field(f"stats.{row.key}", row.kind, row.unit, row.help)


class Cost(View):
    """What monitoring has cost since the start."""

    cpu_ns: Annotated[int, counter("ns", "CPU time of the process that monitors")]
    checks: Annotated[int, counter("", "pages that were asked about")]
    check_ns: Annotated[int, counter("ns", "time that asking took")]
    clears: Annotated[int, counter("", "pages whose accessed bit was cleared")]
    clear_ns: Annotated[int, counter("ns", "time that clearing took")]
    disturb_ns: Annotated[int, counter("ns", "for how long targets were held up")]
    samples: Annotated[int | None, counter("", "samples")] = None
    asked_ns: Annotated[int | None, counter("ns", "how long samples were to take")] = None
    sampled_ns: Annotated[int | None, counter("ns", "how long samples took")] = None


class Live(View):
    """All that is known of a moment."""

    time_ns: Annotated[int, fact("its time, by the clock of the snapshots", "ns")]
    time_unix_ns: Annotated[int | None, fact("its time since 1970; null: in a simulation", "ns")]
    elapsed_ns: Annotated[int, counter("ns", "for how long it had been monitored")]
    engine: Annotated[str | None, fact("who monitors")]
    engine_reason: Annotated[str | None, fact("why this engine")]
    ops: Annotated[str | None, fact("the operations set")]
    primitive: Annotated[str | None, fact("how pages are asked")]
    primitive_reason: Annotated[str | None, fact("why so")]
    targets: list[Target]
    total: Sum
    containers: list[Container]
    schemes: list[Scheme]
    cost: Cost | None


def by_clock(view: Live, offset_ns: int) -> Live:
    """The view with its time since 1970 as the clock has it now: ``offset_ns`` is what that is ahead of the snapshots'.

    The clock may have been set, and the machine may have slept, since monitoring began. Less than a second is nothing.
    """
    if view.time_unix_ns is None or abs(view.time_ns + offset_ns - view.time_unix_ns) < SECOND_NS:
        return view
    seconds = round((view.time_ns + offset_ns - view.time_unix_ns) / SECOND_NS)
    return msgspec.structs.replace(view, time_unix_ns=view.time_unix_ns + seconds * SECOND_NS)


def live(moment: Moment, *, mappings: Collection[int] | None = None) -> Live:
    """The view of a moment; ``mappings``: of which targets they are told (kinds are of all), None is of each."""
    origin = moment.origin
    began_ns = moment.time_ns if moment.began_ns is None else moment.began_ns
    sizes = _sizes(moment)
    targets = [
        _target(known, sizes, began_ns, mappings is None or known.target in mappings)
        for known in moment.targets.values()
    ]
    offset_ns = origin.wall_offset_ns
    return Live(
        time_ns=moment.time_ns,
        time_unix_ns=None if offset_ns is None else moment.time_ns + offset_ns,
        elapsed_ns=moment.time_ns - began_ns,
        engine=origin.engine,
        engine_reason=origin.engine_reason,
        ops=origin.ops,
        primitive=origin.primitive,
        primitive_reason=origin.primitive_reason,
        targets=targets,
        total=_together(moment, targets),
        containers=_containers(moment, targets),
        schemes=[_scheme(row) for row in moment.schemes],
        cost=None if moment.cost is None else _cost(moment.cost),
    )


def _containers(moment: Moment, targets: Sequence[Target]) -> list[Container]:
    found: dict[str, list[Target]] = {}
    for target in targets:
        if target.container_id is not None:
            found.setdefault(target.container_id, []).append(target)
    return [
        Container(
            id=number,
            pod_uid=mine[0].pod_uid,
            namespace=mine[0].namespace,
            pod=mine[0].pod,
            container=mine[0].container,
            targets=[target.target for target in mine],
            **msgspec.structs.asdict(_together(moment, mine)),
        )
        for number, mine in found.items()
    ]


def _together(moment: Moment, mine: Sequence[Target]) -> Sum:
    if len(mine) == 1:
        return Sum(once=False, **{key: getattr(mine[0], key) for key in Memory.__struct_fields__})
    found = plain_sum(mine)
    known = [moment.targets[target.target] for target in mine]
    looks = {one.target: latest(one.looks) for one in known if one.looks}
    if len(looks) < len(mine) or len({one.time_ns for (one,) in looks.values()}) != 1:
        return found
    together = Together(looks, first_ns=max(one.first_look_ns or 0 for one in known))
    resident = together.resident().bytes
    return msgspec.structs.replace(
        found,
        resident_bytes=resident,
        # Of what regions see nobody knows who shares it: as much as of all that is resident.
        needed_bytes=found.needed_bytes * resident // max(found.resident_bytes, 1),
        by="panel",
        used=_used((window_s, together.used(window_s)) for window_s in WINDOWS_S),
        once=together.once,
    )


def plain_sum(held: Sequence[Memory]) -> Sum:
    """What is shared counts for each; nothing is known of an error. ``used``: the windows that all have."""
    return Sum(
        resident_bytes=sum(one.resident_bytes for one in held),
        needed_bytes=sum(one.needed_bytes for one in held),
        working_set_bytes=sum(one.working_set_bytes for one in held),
        by="regions",
        used=[
            Used(window_s=windows[0].window_s, bytes=sum(one.bytes for one in windows))
            for windows in zip(*(one.used for one in held))  # noqa: B905
        ],
        kinds=_kinds([heat for one in held for heat in one.kinds]),
        once=False,
    )


def read(told: Any) -> Live:
    """What another process has told. Raises PydamonError if it is of another version of pydamon."""
    try:
        return msgspec.convert(told, learned(Live))
    except msgspec.ValidationError as error:
        raise PydamonError(f"is of another version of pydamon; start it anew ({error})") from None


class _Sizes(msgspec.Struct, frozen=True, eq=False):
    """What regions say, by the target's number; ``idle`` of those without a panel, ``held`` of those with mappings."""

    resident: Mapping[int, int]
    working_set: Mapping[int, int]
    idle: Mapping[int, dist.Distribution]
    held: Mapping[int, list[Holding]]


def _sizes(moment: Moment) -> _Sizes:
    """Of all targets at once: to look at each by itself takes several times as long."""
    if not moment.targets:
        return _Sizes({}, {}, {}, {})
    batch = RegionBatch.of([known.snapshot for known in moment.targets.values()])
    resident = dict(zip(batch.target.tolist(), batch.per_snapshot(batch.memory).tolist(), strict=True))
    used = batch.per_snapshot(np.where(batch.nr_accesses > 0, batch.memory, np.uint64(0)))
    without = [known.snapshot for known in moment.targets.values() if not known.looks]
    idle = dist.distributions([RegionBatch.of(without)], dist.unaccessed_s, _EDGES) if without else []
    working_set = dict(zip(batch.target.tolist(), used.tolist(), strict=True))
    mapped = {
        number: (known.snapshot, known.mapped.layout)
        for number, known in moment.targets.items()
        if len(known.mapped.layout.starts)
    }
    held = dict(zip(mapped, holdings_of(list(mapped.values())), strict=True)) if mapped else {}
    return _Sizes(resident, working_set, {one.target: one for one in idle}, held)


def _target(known: Known, sizes: _Sizes, began_ns: int, mappings: bool) -> Target:
    snapshot, place = known.snapshot, known.place or containers.Container()
    held = sizes.held.get(known.target, [])
    looks = latest(known.looks)
    footprint = known.footprint or {}
    resident = looks[-1].resident_bytes if looks else sizes.resident[known.target]
    idle_files = sum(one.memory - one.recent for one in held if one.kind == "file")
    first_ns = known.first_look_ns or 0
    return Target(
        target=known.target,
        pid=known.pid,
        command=known.command,
        cgroup=place.cgroup or None,
        container_id=place.id,
        pod_uid=place.pod_uid,
        namespace=place.namespace,
        pod=place.pod,
        container=place.container,
        resident_bytes=resident,
        needed_bytes=max(resident - idle_files, 0),
        working_set_bytes=sizes.working_set[known.target],
        rss_bytes=footprint.get("resident_bytes"),
        swap_bytes=footprint.get("swap_bytes"),
        regions=len(snapshot.start),
        aggr_us=snapshot.aggr_us,
        by="panel" if looks else "regions",
        used=_used(zip(WINDOWS_S, estimates(looks[-1], WINDOWS_S, first_ns), strict=True))
        if looks
        else _by_regions(sizes.idle[known.target], (snapshot.end_ns - began_ns) / SECOND_NS),
        kinds=_kinds([_heat(one) for one in held]),
        mappings=[_mapping(one) for one in held] if mappings else [],
        returned_bytes=None if known.returned is None else after(known.returned, WINDOWS_S),
    )


def _used(windows: Iterable[tuple[int, Estimate | None]]) -> list[Used]:
    """What is known of the windows, from the shortest on. A longer one has no less than a shorter one."""
    found: list[Used] = []
    size = low = high = 0
    for window_s, known in windows:
        if known is None:
            break
        size, low, high = max(size, known.bytes), max(low, known.low_bytes), max(high, known.high_bytes)
        found.append(Used(window_s=window_s, bytes=size, low_bytes=low, high_bytes=high))
    return found


def _by_regions(idle: dist.Distribution, elapsed_s: float) -> list[Used]:
    """The same by the ages of regions, whose error nobody knows; as far as it has been monitored for so long."""
    return [
        Used(window_s=window_s, bytes=idle.total_bytes - idle.at_least(place))
        for place, window_s in enumerate(WINDOWS_S, start=2)
        if window_s <= elapsed_s
    ]


def _kinds(heats: Iterable[Heat]) -> list[Heat]:
    """By kind, all kinds there are."""
    found = {kind: Heat(kind=kind, hot_bytes=0, warm_bytes=0, cold_bytes=0, unknown_bytes=0) for kind in KINDS}
    for heat in heats:
        sums = found[heat.kind]
        sums.hot_bytes += heat.hot_bytes
        sums.warm_bytes += heat.warm_bytes
        sums.cold_bytes += heat.cold_bytes
        sums.unknown_bytes += heat.unknown_bytes
    return list(found.values())


def _heat(one: Holding) -> Heat:
    sizes = {"hot_bytes": one.hot, "warm_bytes": one.warm, "cold_bytes": one.cold, "unknown_bytes": one.unknown}
    return Heat(kind=one.kind, **sizes)


def _mapping(one: Holding) -> MappingHeat:
    return MappingHeat(
        name=printable(one.name),
        bytes=one.memory,
        rate_bp=round(one.rate_percent * 100),
        idle_ms=round(one.idle_s * 1000),
        **msgspec.structs.asdict(_heat(one)),
    )


def _cost(row: Mapping[str, Any]) -> Cost:
    return msgspec.convert({key: row.get(key) for key in Cost.__struct_fields__}, learned(Cost))


def _scheme(row: Mapping[str, Any]) -> Scheme:
    stats = {each.key: row[name] for name, each in STATISTICS.items() if row.get(name) is not None}
    return Scheme(
        number=row["scheme"],
        name=row["name"],
        action=row["action"],
        active=row["active"],
        stats=stats,
        effective_bytes=row.get("effective_bytes"),
    )
