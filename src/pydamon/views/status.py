"""The status of a kdamond: what is told of it, while it runs and when it has ended. Each field says what it is.

`pydamon status` and `stop` make their tables of it (``views/lines.py``), and as it stands it is their JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from pydamon.errors import PydamonError
from pydamon.learned import learned
from pydamon.spec.module_numbers import NUMBERS
from pydamon.spec.statistics import STATISTICS
from pydamon.views.fields import Field, View, counter, fact, gauge

_Kind = TypeVar("_Kind", bound="Kdamond")
Some = UnsetType  # not told where it is not known


class Target(View):
    """A target that lives."""

    target: Annotated[int, fact("number of the target, in this run for ever")]
    pid: Annotated[int | Some | None, fact("its process")] = UNSET
    command: Annotated[str | Some | None, fact("the command of its process")] = UNSET


class Intervals(View):
    """The intervals in force, as tuned by now."""

    sample_us: Annotated[int, gauge("us", "sampling interval")]
    aggr_us: Annotated[int, gauge("us", "aggregation interval")]
    ops_update_us: Annotated[int, gauge("us", "update interval")]
    intervals_goal: dict[str, Any] | None


class NrRegions(View):
    """The bounds of the number of regions."""

    min: Annotated[int, gauge("", "fewest regions")]
    max: Annotated[int, gauge("", "most regions")]


class TriedRegions(View):
    """What a scheme tried in its last pass."""

    nr: Annotated[int, gauge("", "regions that the last pass tried")]
    sz_bytes: Annotated[int, gauge("bytes", "size of these regions, in addresses")]


class Quota(View):
    """A scheme's quota."""

    limited: Annotated[bool, fact("whether there is one")]
    effective_bytes: Annotated[int | None, gauge("bytes", "what may be tried in this window; null before the first")]
    charged_bytes: Annotated[int, gauge("bytes", "what was charged in this window")]
    charged_ns: Annotated[int, gauge("ns", "time that was spent in this window")]


class Watermarks(View):
    """A scheme's watermarks."""

    metric: Annotated[str, fact("what they go by")]
    active: Annotated[bool, fact("whether they let the scheme act")]


class Goal(View):
    """A goal of a scheme's quota; values in the unit of its metric."""

    name: Annotated[str | None, fact("its name")]
    metric: Annotated[str, fact("its metric")]
    target_value: Annotated[int, gauge("", "the value that is aimed at, in the unit of the metric")]
    current_value: Annotated[int, gauge("", "the value measured last, in the unit of the metric")]
    score_bp: Annotated[int, gauge("bp", "how much of the target is reached")]


class Scheme(View):
    """A scheme, with its statistics since the start (`pydamon.spec.statistics`)."""

    name: Annotated[str | None, fact("its name")]
    action: Annotated[str, fact("its action")]
    stats: dict[str, int]
    tried_regions: TriedRegions
    quota: Quota
    watermarks: Watermarks
    goals: list[Goal]
    finished: Annotated[bool, fact("whether it does nothing any more")]
    failed: Annotated[str | None, fact("why it cannot be applied any more")]
    scheme: Any  # as it can be given back to `tune`
    remark: Annotated[str | None, fact("what it cannot do on this machine")] = None

    @staticmethod
    def more_fields() -> Iterator[Field]:
        """The statistics."""
        for row in STATISTICS.values():
            yield Field(f"stats.{row.key}", row.kind, row.unit, row.help)


class Act(View):
    """What the loop of a module has done of one kind, since the start."""

    module: Annotated[str, fact("its module")]
    kind: Annotated[str, fact("what kind of act")]
    count: Annotated[int, counter("", "how often that was done")]
    asked_bytes: Annotated[int, counter("bytes", "how much was asked for")]
    done_bytes: Annotated[int, counter("bytes", "how much of that came about")]
    bounded: Annotated[int, counter("", "how often less was done than the module wanted")]
    refused: Annotated[int, counter("", "how often the machine refused")]
    last: Annotated[str, fact("the last of them")]
    refusal: Annotated[str | None, fact("why the machine refused last")]


class Module(View):
    """A module, and what it tells of itself (`pydamon.spec.module_numbers`), as of the last five seconds.

    Percentiles are lists of 101.
    """

    name: Annotated[str, fact("its name")]
    text: Annotated[str, fact("with its knobs, as it can be given again")]
    numbers: dict[str, int | list[int]]

    @staticmethod
    def more_fields() -> Iterator[Field]:
        """The numbers, but for percentiles."""
        for row in NUMBERS.values():
            if not row.percentiles:
                yield Field(f"numbers.{row.key}", row.kind, row.unit, row.help)


class Cost(View):
    """What monitoring has cost since the start, as far as this engine counts it."""

    cpu_ns: Annotated[int, counter("ns", "CPU time of the whole process")]
    cpu_bp: Annotated[int, gauge("bp", "CPU time of the whole process, of one CPU since the start")]
    kdamond_cpu_ns: Annotated[int | Some, counter("ns", "CPU time of the kernel's kdamond")] = UNSET
    kdamond_cpu_bp: Annotated[int | Some, gauge("bp", "CPU time of the kernel's kdamond, of one CPU")] = UNSET
    checks: Annotated[int | Some, counter("", "pages that were asked about")] = UNSET
    check_ns: Annotated[int | Some, counter("ns", "time that asking took")] = UNSET
    clears: Annotated[int | Some, counter("", "pages whose accessed bit was cleared")] = UNSET
    clear_ns: Annotated[int | Some, counter("ns", "time that clearing took")] = UNSET
    disturb_ns: Annotated[int | Some, counter("ns", "for how long targets were held up")] = UNSET
    disturb_bp: Annotated[int | Some, gauge("bp", "for how long targets were held up, of the time since the start")] = (
        UNSET
    )
    samples: Annotated[int | Some, counter("", "samples so far")] = UNSET
    asked_ns: Annotated[int | Some, counter("ns", "how long these were to take, by the sampling interval")] = UNSET
    sampled_ns: Annotated[int | Some, counter("ns", "how long they took")] = UNSET


class Kdamond(View):
    """What is told of a kdamond in any case."""

    name: Annotated[str, fact("its name")]
    pid: Annotated[int, fact("its process")]
    started_unix_ns: Annotated[int, fact("when it began, since 1970", "ns")]
    uptime_ns: Annotated[int, counter("ns", "for how long it has run")]
    engine: Annotated[str, fact("who monitors")]
    ops: Annotated[str, fact("the operations set")]
    primitive: Annotated[str, fact("how pages are asked")]
    primitive_reason: Annotated[str, fact("why so")]
    about: Annotated[str, fact("what is monitored, in one line")]
    record: Annotated[str | None, fact("the file that is written")]
    command_pid: Annotated[int | None, fact("the process of the launched command")]
    intervals: Intervals
    nr_regions: NrRegions
    commit_pending: Annotated[bool, fact("whether a change is about to be taken")]
    paused: Annotated[bool, fact("whether nothing is sampled until it is resumed")]
    regions: Annotated[int, gauge("", "regions now, of all targets")]
    snapshots: Annotated[int, counter("", "snapshots since the start")]
    dry_run: Annotated[bool, fact("whether schemes only find out what they would do")]
    schemes: list[Scheme]
    acts: list[Act]
    modules: list[Module]
    cost: Cost
    spec: Any  # what was asked for by now
    state: Annotated[str, fact("running, stopping or ended")]


class Running(Kdamond):
    """A kdamond that runs."""

    targets: list[Target]
    notices: Annotated[list[str], fact("the last lines of what it said")]


class Ended(Kdamond):
    """A kdamond that has ended."""

    reason: Annotated[str, fact("why it ended")]
    command_fate: Annotated[str | None, fact("what became of the launched command")]
    undone: Annotated[list[str] | None, fact("what was undone")]


def to_builtins(status: Kdamond) -> dict[str, Any]:
    """Its JSON, as Python's own values."""
    result: dict[str, Any] = msgspec.to_builtins(status)
    return result


def running(told: dict[str, Any]) -> Running:
    """What a kdamond has told of itself. Raises PydamonError if it is one of another version of pydamon."""
    return _read(told, Running)


def ended(told: dict[str, Any]) -> Ended | None:
    """What a kdamond has told of itself in the end; None if it could not any more. Raises PydamonError."""
    return _read(told, Ended) if "snapshots" in told else None


def _read(told: dict[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(told, learned(kind))
    except msgspec.ValidationError as error:
        text = f"is of another version of pydamon; start it anew ({error})"
        raise PydamonError(text, where=told.get("name")) from None
