"""``pydamon record``: monitor a process, a command or a simulated workload, and write a record."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pydamon.errors import RequestError
from pydamon.run.request import Request
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.cli.options import Schemes
    from pydamon.spec import Spec

    _ParamType = click.ParamType[int]
    _FloatType = click.ParamType[float]
    _SetType = click.ParamType[frozenset[int]]
else:  # it cannot be subscripted in older releases of click
    _ParamType = _FloatType = _SetType = click.ParamType

_PROCESSES = ("vaddr", "fvaddr")
_EDITS = ("cut", "merge", "aggregate")
_LIVE = (*_PROCESSES, "paddr")

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
        if args and args[0] in _EDITS:
            from pydamon.cli.edit import COMMANDS

            # Not a recording: `invoke` runs it.
            ctx.meta["edit"] = COMMANDS[args[0]].make_context(f"pydamon record {args[0]}", args[1:])
            return []
        if "--" in args:
            at = args.index("--")
            args, ctx.meta["launch"] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        edit = ctx.meta.get("edit")
        if edit is None:
            return super().invoke(ctx)
        with edit:
            return edit.command.invoke(edit)


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


class _Numbers(_SetType):
    """Whole numbers, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            self.fail(f"{value!r} is not a list of numbers; write it like 0,2,3", param, ctx)
        return frozenset(int(part) for part in parts)


_TIME = _Quantity("time", units.parse_time_us)


@click.command("record", cls=_RecordCommand)
@click.argument("targets", nargs=-1, metavar="[PID … | -- COMMAND …]")
@click.option("-o", "--output", default="pydamon.damon", show_default=True, help="File to write the record to.")
@click.option("--rotate", metavar="SIZE|TIME", help="Begin a new file after, e.g., 100M or 1h: run.0001.damon, …")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="With --rotate: keep the last N files only.")
@click.option("--include-children", is_flag=True, help="Monitor all that descend from the processes, too.")
@click.option("--cgroup", metavar="PATH", help="Monitor the processes in this cgroup v2, as they come and go.")
@click.option("--duration", type=_Quantity("time", units.parse_time_ns), help="End after this time, e.g. 30s.")
@click.option("--sample", type=_TIME, help="Sampling interval.  [default: 5ms; with smaps what it can afford]")
@click.option("--aggr", type=_TIME, help="Aggregation interval.  [default: 100ms, or in proportion to --sample]")
@click.option("--update", type=_TIME, help="Update interval.  [default: 1s]")
@click.option(
    "--intervals",
    type=click.Choice(["fixed", "auto"]),
    default="fixed",
    show_default=True,
    help="auto: tune them so that 4% of the possible access events are seen, sampling every 5ms to 10s.",
)
@click.option("--max-cpu", type=_Share(), metavar="SHARE", help="Keep below this share of one CPU, e.g. 1%.")
@click.option("--faithful", is_flag=True, help="Sample as the kernel's DAMON does: any page, across mappings.")
@click.option("--min-regions", type=_Quantity("number", units.parse_count), default="10", show_default=True)
@click.option("--max-regions", type=_Quantity("number", units.parse_count), default="1000", show_default=True)
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="START-END",
    help="Begin with this range; with fvaddr and paddr: monitor only this; repeatable.",
)
@click.option(
    "--ops",
    type=click.Choice(["vaddr", "fvaddr", "paddr", "sim", "reported"]),
    default="vaddr",
    show_default=True,
    help="Processes, fixed ranges of processes, physical memory, a simulation, reported accesses.",
)
@click.option(
    "--engine",
    type=click.Choice(["user", "kernel", "auto"]),
    default="user",
    show_default=True,
    help="Who monitors: pydamon, the kernel's DAMON, or that if it is free and fits.",
)
@click.option(
    "--primitive",
    type=click.Choice(["auto", "bpf", "bpf+idle", "idle", "smaps", "soft-dirty"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--access", type=click.Choice(["any", "write"]), default="any", show_default=True, help="write: only writes."
)
@click.option(
    "--resctrl", is_flag=True, help="Put the processes into resctrl monitoring groups of their own meanwhile."
)
@click.option("--workload", metavar="NAME|FILE", help="With --ops sim: the access pattern to simulate.")
@click.option("--mapping", type=click.Choice(["separate", "one"]), help="With --ops sim: how its regions are mapped.")
@click.option(
    "--source", metavar="SOURCE", help="With --ops reported: valgrind, perf-mem, lackey:FILE or perf-script:FILE."
)
@click.option("--threads", type=_Numbers(), metavar="N,N,…", help="With --source: accesses of these threads only.")
@click.option("--cpus", type=_Numbers(), metavar="N,N,…", help="With --source: accesses from these CPUs only.")
@click.option("--nodes", type=_Numbers(), metavar="N,N,…", help="With --source: accesses from these NUMA nodes only.")
@click.option("--schemes", metavar="FILE", help="Apply the schemes in this file (see `pydamon schemes`; -: stdin).")
@click.option("--scheme", multiple=True, metavar="TEXT", help="Apply this scheme, e.g. 'stat size>=4K'; repeatable.")
@click.option(
    "--probe", "probes", multiple=True, metavar="TEXT", help="Count samples with this attribute, e.g. anon or memcg=/a."
)
@click.option("--dry-run", is_flag=True, help="Print what the schemes would act on, and whose it is; touch nothing.")
@click.option("--undo", is_flag=True, help="Take back in the end what the schemes did, as far as that is possible.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the random sampling.  [default with sim: 0]")
@click.option("--explain", is_flag=True, help="Print the plan in words and stop.")
@click.pass_context
def command(ctx: click.Context, /, targets: tuple[str, ...], explain: bool, **options: Any) -> None:
    """Monitor processes, a launched COMMAND (after --), a cgroup, or a simulated workload, and write a record.

    Editing records: record cut, record merge, record aggregate (see their --help).

    A launched command runs as the invoking user, also under sudo; when the recording ends before it (--duration,
    Ctrl-C, SIGTERM), it is ended too. Press Ctrl-C to end a recording; the record is complete up to then.
    """
    request, spec = _understand(targets, ctx.meta["launch"], options)
    if explain:
        _explain(request, spec)
        return
    from pydamon import lean

    with lean.imports():
        from pydamon.cli.recording import record

    record(request, spec)


def _understand(targets: tuple[str, ...], launch: list[str] | None, options: dict[str, Any]) -> tuple[Request, Spec]:
    """The request and the validated spec; raises RequestError naming the option."""
    ops = options["ops"]
    pids: tuple[int, ...]
    if ops != "reported":
        for name in ("source", "threads", "cpus", "nodes"):
            if options[name] is not None:
                raise RequestError("is for --ops reported", where=f"--{name}")
    if ops == "reported":
        pids = _understand_source(targets, launch, options)
    elif ops == "sim":
        if targets or launch is not None or options["cgroup"] is not None or options["include_children"]:
            raise RequestError("takes no process; name the pattern with --workload", where="--ops sim")
        if options["workload"] is None:
            raise RequestError("is needed with --ops sim, e.g. --workload stairs", where="--workload")
        if options["primitive"] != "auto":
            raise RequestError("says how a real process is asked; --ops sim has none", where="--primitive")
        pids = ()
    else:
        for name in ("workload", "mapping"):
            if options[name] is not None:
                raise RequestError("is for --ops sim", where=f"--{name}")
        pids = () if ops == "paddr" else _pids(targets, launch, options)
        _check_ops(ops, targets, launch, options)
    if options["access"] == "write":
        if ops not in ("vaddr", "fvaddr") or options["primitive"] not in ("auto", "soft-dirty"):
            raise RequestError("needs --ops vaddr or fvaddr, and soft-dirty or auto", where="--access write")
        options["primitive"] = "soft-dirty"
    elif options["primitive"] == "soft-dirty":
        raise RequestError("sees writes only; say so with --access write", where="--primitive soft-dirty")
    if options["duration"] == 0:
        raise RequestError("is 0; it must be longer", where="--duration")
    if options["resctrl"] and (ops not in _PROCESSES or options["cgroup"] is not None):
        raise RequestError("goes with processes that are named, or a command: --ops vaddr or fvaddr", where="--resctrl")
    if options["faithful"] and ops not in (*_PROCESSES, "sim"):
        raise RequestError("is for --ops vaddr, fvaddr or sim: others always are", where="--faithful")
    if ops not in _LIVE and options["max_cpu"] is not None:
        raise RequestError("is for monitoring running processes or physical memory", where="--max-cpu")
    if options["schemes"] is None and not options["scheme"] and not options.get("spec_schemes"):
        for name in ("dry_run", "undo"):
            if options[name]:
                raise RequestError("is about schemes; give --scheme or --schemes", where=f"--{name.replace('_', '-')}")
    if ops not in _LIVE and (options["dry_run"] or options["undo"]):
        raise RequestError(
            f"is for real memory; ops {ops} has none", where="--dry-run" if options["dry_run"] else "--undo"
        )
    if ops not in _LIVE and options["engine"] == "kernel":
        raise RequestError(f"monitors running processes or physical memory; ops {ops} is neither", where="--engine")
    if options["dry_run"] and options["undo"]:
        raise RequestError("does not go with --dry-run, which does nothing", where="--undo")
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
        dry_run=options["dry_run"],
        undo=options["undo"],
        rotate=_rotation(options),
        keep=options["keep"],
        source=options["source"],
        threads=options["threads"],
        cpus=options["cpus"],
        nodes=options["nodes"],
        resctrl=options["resctrl"],
        engine=options["engine"],
    )
    return request, make_spec(request, options)


def _rotation(options: dict[str, Any]) -> tuple[int | None, int | None] | None:
    """After how many bytes, or ns, a new file begins."""
    text = options["rotate"]
    if text is None:
        if options["keep"] is not None:
            raise RequestError("goes with --rotate", where="--keep")
        return None
    for place, parse in enumerate((units.parse_time_ns, units.parse_size)):
        try:
            value = parse(text)
        except RequestError:
            continue
        if value < (1 << 16 if place else 1_000_000_000):
            raise RequestError(f"{text!r} is too little; it must be at least 64K or 1s", where="--rotate")
        return (None, value) if place == 0 else (value, None)
    raise RequestError(f"{text!r} is neither a size nor a time; write it like 100M or 1h", where="--rotate")


def _check_ops(ops: str, targets: tuple[str, ...], launch: list[str] | None, options: dict[str, Any]) -> None:
    """What does not go with fvaddr or paddr; raises RequestError."""
    if ops == "paddr":
        if targets or launch is not None:
            raise RequestError("takes no process and no command; it monitors physical memory", where="--ops paddr")
        if options["primitive"] not in ("auto", "idle"):
            raise RequestError("asks processes; physical memory is asked through idle", where="--primitive")
    for name in ("cgroup", "include_children"):
        if ops != "vaddr" and options[name]:
            raise RequestError("is for --ops vaddr", where=f"--{name.replace('_', '-')}")
    if ops == "fvaddr" and not options["regions"]:
        raise RequestError("is needed with --ops fvaddr: a range to monitor, START-END", where="--region")
    if ops == "fvaddr" and launch is not None:
        raise RequestError("needs the pid of a running process: the addresses must be known", where="--ops fvaddr")


def _understand_source(targets: tuple[str, ...], launch: list[str] | None, options: dict[str, Any]) -> tuple[int, ...]:
    """Check what goes with --source; the pids whose accesses count."""
    kind, _, path = (options["source"] or "").partition(":")
    if (kind, bool(path)) not in (("valgrind", False), ("perf-mem", False), ("lackey", True), ("perf-script", True)):
        raise RequestError(
            "must be valgrind, perf-mem, lackey:FILE or perf-script:FILE (- is standard input)", where="--source"
        )
    for name in ("workload", "mapping", "cgroup"):
        if options[name] is not None:
            raise RequestError("does not go with --ops reported", where=f"--{name}")
    if options["include_children"] or options["primitive"] != "auto":
        name = "--include-children" if options["include_children"] else "--primitive"
        raise RequestError("does not go with --ops reported", where=name)
    if kind == "valgrind" and not launch:
        raise RequestError("needs a command to run, after --", where="--source valgrind")
    if kind in ("lackey", "perf-script") and launch is not None:
        raise RequestError("is read, no command is run", where=f"--source {kind}")
    if kind == "perf-mem" and not (targets or launch):
        raise RequestError("needs pids, or a command to run after --", where="--source perf-mem")
    if kind not in ("perf-script", "perf-mem"):
        for name in ("cpus", "nodes"):
            if options[name] is not None:
                raise RequestError("cannot be used: this trace does not say on which CPU it was", where=f"--{name}")
        if targets:
            raise RequestError(f"{targets[0]!r}: the trace is of one process", where="pid")
        return ()
    return _pids(targets, launch, options) if targets else ()


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
    """The spec of ``options``; pid 1 stands in for a command that is yet to be launched."""
    from pydamon.spec import from_builtins

    sample_us, aggr_us, update_us = _intervals(options)
    regions = _ranges(options["regions"])
    targets: list[dict[str, Any]] = [{"regions": regions}]
    if request.ops in _PROCESSES and request.cgroup is not None:
        targets = [{"cgroup": request.cgroup, "regions": regions}]
    elif request.ops in _PROCESSES:
        children = request.include_children
        targets = [{"pid": pid, "regions": regions, "include_children": children} for pid in request.pids or (1,)]
    elif request.pids:
        targets = [{"pid": pid} for pid in request.pids]
    context: dict[str, Any] = {
        "ops": request.ops,
        "primitive": request.primitive,
        "targets": targets,
        "intervals": {"sample_us": sample_us, "aggr_us": aggr_us, "ops_update_us": update_us},
        "nr_regions": {"min": options["min_regions"], "max": options["max_regions"]},
        "faithful": options["faithful"],
    }
    schemes: Schemes | None = None
    if options["schemes"] is not None or options["scheme"]:
        from pydamon.cli.options import Schemes

        schemes = Schemes(options["schemes"], options["scheme"], request.ops)
        context["schemes"] = schemes.builtins()
    if options["probes"]:
        context["probes"] = _probes(options["probes"])
    if options["intervals"] == "auto":
        context["intervals"]["intervals_goal"] = {}  # the defaults are the recommended goal
    try:
        return from_builtins({"kdamonds": [{"contexts": [context]}]})
    except RequestError as error:
        where = (error.where or "").removeprefix("kdamonds[0].contexts[0].")
        if schemes is not None and where.startswith("schemes["):
            where = schemes.where(where)
        where = "--probe" if where.startswith("probes") else where
        where = "--region" if ".regions[" in where else "pid" if where.endswith(".pid") else _OPTIONS.get(where, where)
        raise RequestError(error.message, where=where) from None


def _probes(texts: tuple[str, ...]) -> list[dict[str, Any]]:
    import msgspec

    from pydamon.spec.probes import parse_probe

    try:
        return [msgspec.to_builtins(parse_probe(text)) for text in texts]
    except RequestError as error:
        raise RequestError(error.message, where="--probe") from None


def _intervals(options: dict[str, Any]) -> tuple[int, int, int]:
    """Sampling, aggregation and update interval, with what was left out filled in; 20 samples per aggregation."""
    sample_us, aggr_us, update_us = options["sample"], options["aggr"], options["update"]
    default_us, shortest_us = 5_000, 100_000
    if options["source"] is not None:
        # A trace makes about a million accesses in a second of ours, and an instruction counts as a nanosecond;
        # address samples are sparse.
        default_us, shortest_us = (50_000, 1) if options["source"].startswith("perf-") else (50, 1)
        update_us = update_us or max(10 * (aggr_us or 20 * (sample_us or default_us)), 1)
    if sample_us is None:
        sample_us = default_us if aggr_us is None else max(aggr_us // 20, 1)
    if aggr_us is None:
        aggr_us = max(20 * sample_us, shortest_us)
    return sample_us, aggr_us, 1_000_000 if update_us is None else update_us


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
    return sorted(ranges, key=lambda given: given["start"])  # in whatever order they were given


def _explain(request: Request, spec: Spec) -> None:
    from pydamon.spec import explain
    from pydamon.spec.units import format_duration_ns

    lines = explain(spec)
    if request.launch is not None:
        lines = [line.replace("process 1", f"the command {' '.join(request.launch)!r}", 1) for line in lines]
    if request.workload is not None:
        lines = [line.replace("simulated.", f"the workload {request.workload}.") for line in lines]
    if request.source is not None:
        lines = [line.replace("reported.", f"what {request.source} reports.") for line in lines]
    if request.ops in _LIVE:
        from pydamon.engines.user.open_ops import choose_for

        choice = choose_for(spec.kdamonds[0].contexts[0])
        lines.append(f"Pages are asked through the primitive {choice.name} ({choice.reason}).")
        if choice.name == "smaps" and request.fit_intervals:
            lines.append("Its check walks all resident memory: the intervals grow until it takes a tenth of the time.")
    ends = [f"after {format_duration_ns(request.duration_ns)}"] if request.duration_ns is not None else []
    ends += ["when the target ends"] if request.ops != "paddr" else []
    lines.append(f"End {', '.join([*ends, 'or on Ctrl-C' if ends else 'on Ctrl-C'])}; write {request.output}.")
    sys.stdout.write("\n".join(lines) + "\n")
