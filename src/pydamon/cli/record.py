"""``pydamon record``: monitor a process, a command or a simulated workload, and write a record."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pydamon.errors import RequestError
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.spec import Spec

    _ParamType = click.ParamType[int]
    _FloatType = click.ParamType[float]
else:  # it cannot be subscripted in older releases of click
    _ParamType = _FloatType = click.ParamType

# Which option a field of the spec comes from, for messages.
_OPTIONS = {
    "intervals.sample_us": "--sample",
    "intervals.aggr_us": "--aggr",
    "intervals.ops_update_us": "--update",
    "nr_regions.min": "--min-regions",
    "nr_regions.max": "--max-regions",
}


class _Quantity(_ParamType):
    """A number with a unit, as ``spec.units`` reads it."""

    def __init__(self, name: str, parse: Callable[[str], int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return self._parse(value)
        except RequestError as error:
            self.fail(error.message, param, ctx)


class _RecordCommand(click.Command):
    """Keeps what stands behind ``--`` apart: that is a command to launch, not a target."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["launch"] = None
        if "--" in args:
            at = args.index("--")
            args, ctx.meta["launch"] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, beside the spec."""

    output: str
    duration_ns: int | None
    launch: list[str] | None
    pids: tuple[int, ...]
    include_children: bool
    cgroup: str | None
    ops: str
    primitive: str
    workload: str | None
    mapping: str
    seed: int | None
    fit_intervals: bool
    max_cpu: float | None


class _Share(_FloatType):
    """A percentage above 0, as a float: 0.01 for ``1%``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            share = float(units.parse_share(value))
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if share < 0.0001:
            self.fail(f"{value!r} is too little; it must be at least 0.01%", param, ctx)
        return share


_TIME = _Quantity("time", units.parse_time_us)


@click.command("record", cls=_RecordCommand)
@click.argument("targets", nargs=-1, metavar="[PID … | -- COMMAND …]")
@click.option("-o", "--output", default="pydamon.damon", show_default=True, help="File to write the record to.")
@click.option("--include-children", is_flag=True, help="Monitor all that descend from the processes, too.")
@click.option("--cgroup", metavar="PATH", help="Monitor the processes in this cgroup v2, as they come and go.")
@click.option("--duration", type=_Quantity("time", units.parse_time_ns), help="End after this time, e.g. 30s.")
@click.option("--sample", type=_TIME, help="Sampling interval.  [default: 5ms; with smaps what it can afford]")
@click.option("--aggr", type=_TIME, help="Aggregation interval.  [default: 100ms, or in proportion to --sample]")
@click.option("--update", type=_TIME, default="1s", show_default=True, help="Update interval.")
@click.option(
    "--intervals",
    type=click.Choice(["fixed", "auto"]),
    default="fixed",
    show_default=True,
    help="auto: tune them so that 4% of the possible access events are seen, sampling every 5ms to 10s.",
)
@click.option("--max-cpu", type=_Share(), metavar="SHARE", help="Keep below this share of one CPU, e.g. 1%.")
@click.option("--min-regions", type=_Quantity("number", units.parse_count), default="10", show_default=True)
@click.option("--max-regions", type=_Quantity("number", units.parse_count), default="1000", show_default=True)
@click.option("--region", "regions", multiple=True, metavar="START-END", help="Begin with this range; repeatable.")
@click.option("--ops", type=click.Choice(["vaddr", "sim"]), default="vaddr", show_default=True)
@click.option("--primitive", type=click.Choice(["auto", "bpf", "smaps"]), default="auto", show_default=True)
@click.option("--workload", metavar="NAME|FILE", help="With --ops sim: the access pattern to simulate.")
@click.option("--mapping", type=click.Choice(["separate", "one"]), help="With --ops sim: how its regions are mapped.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the random sampling.  [default with sim: 0]")
@click.option("--explain", is_flag=True, help="Print the plan in words and stop.")
@click.pass_context
def command(ctx: click.Context, /, targets: tuple[str, ...], explain: bool, **options: Any) -> None:
    """Monitor processes, a launched COMMAND (after --), a cgroup, or a simulated workload, and write a record.

    A launched command runs as the invoking user, also under sudo; when the recording ends before it (--duration,
    Ctrl-C, SIGTERM), it is ended too. Press Ctrl-C to end a recording; the record is complete up to then.
    """
    request, spec = _understand(targets, ctx.meta["launch"], options)
    if explain:
        _explain(request, spec)
        return
    from pydamon.cli.recording import record

    record(request, spec)


def _understand(targets: tuple[str, ...], launch: list[str] | None, options: dict[str, Any]) -> tuple[Request, Spec]:
    """The request and the validated spec; raises RequestError naming the option."""
    ops = options["ops"]
    if ops == "sim":
        if targets or launch is not None or options["cgroup"] is not None or options["include_children"]:
            raise RequestError("takes no process; name the pattern with --workload", where="--ops sim")
        if options["workload"] is None:
            raise RequestError("is needed with --ops sim, e.g. --workload stairs", where="--workload")
        if options["primitive"] != "auto":
            raise RequestError("says how a real process is asked; --ops sim has none", where="--primitive")
        pids: tuple[int, ...] = ()
    else:
        for name in ("workload", "mapping"):
            if options[name] is not None:
                raise RequestError("is for --ops sim", where=f"--{name}")
        pids = _pids(targets, launch, options)
    if options["duration"] == 0:
        raise RequestError("is 0; it must be longer", where="--duration")
    if ops == "sim" and options["max_cpu"] is not None:
        raise RequestError("is for real processes; a simulation takes no time", where="--max-cpu")
    request = Request(
        output=options["output"],
        duration_ns=options["duration"],
        launch=launch,
        pids=pids,
        include_children=options["include_children"],
        cgroup=options["cgroup"],
        ops=ops,
        primitive=options["primitive"],
        workload=options["workload"],
        mapping=options["mapping"] or "separate",
        seed=options["seed"],
        fit_intervals=options["sample"] is None and options["aggr"] is None and options["intervals"] == "fixed",
        max_cpu=options["max_cpu"],
    )
    return request, make_spec(request, options)


def _pids(targets: tuple[str, ...], launch: list[str] | None, options: dict[str, Any]) -> tuple[int, ...]:
    if options["cgroup"] is not None:
        if targets or launch is not None:
            raise RequestError("says which processes to monitor; give no pid and no command", where="--cgroup")
        if options["include_children"]:
            raise RequestError("is not needed with --cgroup: children are in it, too", where="--include-children")
        return ()
    if launch is not None:
        if targets:
            raise RequestError(f"{targets[0]!r} stands before --; give either a pid or a command", where="record")
        if not launch:
            raise RequestError("a command must follow it", where="--")
        return ()
    if not targets:
        raise RequestError(
            "needs a pid, or a command after --, or --cgroup PATH, or --ops sim --workload NAME", where="record"
        )
    for target in targets:
        if not (target.isascii() and target.isdigit()):
            raise RequestError(f"{target!r} is not a process id; to launch a command put it after --", where="pid")
    pids = tuple(int(target) for target in targets)
    if len(set(pids)) < len(pids):
        raise RequestError("the same process is named twice", where="pid")
    if len(pids) > 1 and options["regions"]:
        raise RequestError("is for one process", where="--region")
    return pids


def make_spec(request: Request, options: dict[str, Any]) -> Spec:
    """The spec of ``options``; where the processes are yet to be known, pid 1 stands in."""
    from pydamon.spec import from_builtins

    sample_us, aggr_us = options["sample"], options["aggr"]
    if sample_us is None:
        # Keep DAMON's default of 20 samples per aggregation.
        sample_us = 5_000 if aggr_us is None else max(aggr_us // 20, 1)
    if aggr_us is None:
        aggr_us = max(20 * sample_us, 100_000)
    regions = _ranges(options["regions"])
    targets: list[dict[str, Any]] = [{"regions": regions}]
    if request.ops == "vaddr":
        targets = [{"pid": pid, "regions": regions} for pid in request.pids or (1,)]
    context: dict[str, Any] = {
        "ops": request.ops,
        "primitive": request.primitive,
        "targets": targets,
        "intervals": {"sample_us": sample_us, "aggr_us": aggr_us, "ops_update_us": options["update"]},
        "nr_regions": {"min": options["min_regions"], "max": options["max_regions"]},
    }
    if options["intervals"] == "auto":
        context["intervals"]["intervals_goal"] = {}  # the defaults are the recommended goal
    try:
        return from_builtins({"kdamonds": [{"contexts": [context]}]})
    except RequestError as error:
        where = (error.where or "").removeprefix("kdamonds[0].contexts[0].")
        where = "--region" if ".regions[" in where else "pid" if where.endswith(".pid") else _OPTIONS.get(where, where)
        raise RequestError(error.message, where=where) from None


def _ranges(texts: tuple[str, ...]) -> list[dict[str, int]]:
    ranges = []
    for text in texts:
        start, dash, end = text.partition("-")
        if not dash:
            raise RequestError(
                f"{text!r} is not a range; write it like 0x7f0000000000-0x7f0000400000", where="--region"
            )
        try:
            ranges.append({"start": units.parse_address(start), "end": units.parse_address(end)})
        except RequestError as error:
            raise RequestError(error.message, where="--region") from None
    return ranges


def _explain(request: Request, spec: Spec) -> None:
    from pydamon.spec import explain
    from pydamon.spec.units import format_duration_ns

    lines = explain(spec)
    if request.launch is not None:
        lines = [line.replace("process 1.", f"the command {' '.join(request.launch)!r}.") for line in lines]
    if request.cgroup is not None:
        lines = [line.replace("process 1.", f"the processes in the cgroup {request.cgroup}.") for line in lines]
    if request.include_children:
        lines.insert(1, "  All processes that descend from the targets are targets, too, as they come and go.")
    if request.workload is not None:
        lines = [line.replace("simulated.", f"the workload {request.workload}.") for line in lines]
    if request.ops == "vaddr":
        from pydamon.engines.choose import choose

        choice = choose(request.primitive)
        lines.append(f"Pages are asked through the primitive {choice.name} ({choice.reason}).")
        if choice.name == "smaps" and request.fit_intervals:
            lines.append("Its check walks all resident memory: the intervals grow until it takes a tenth of the time.")
    end = f"after {format_duration_ns(request.duration_ns)}, " if request.duration_ns is not None else ""
    lines.append(f"End {end}when the target ends, or on Ctrl-C; write {request.output}.")
    sys.stdout.write("\n".join(lines) + "\n")
