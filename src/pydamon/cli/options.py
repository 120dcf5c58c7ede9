"""Options that several verbs have, their types, and which option a field of a spec or of a request comes from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pydamon.cli.completion import values as completion
from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.errors import PydamonError, RequestError
from pydamon.spec import units
from pydamon.spec.primitives import CHOICES

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
    _SetType = click.ParamType[frozenset[int]]
else:  # it cannot be subscripted in older releases of click
    _FloatType = _SetType = click.ParamType

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

OF_REMEDY = "--sample, --intervals auto"  # what `spec.words.late.REMEDY` is done with

# -- types ------------------------------------------------------------------------------------------------------------


class Quantity(_FloatType):
    """A number with a unit, as ``spec.units`` reads it; ``parse`` raises RequestError for what is none."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return value
        try:
            return self._parse(value)
        except RequestError as error:
            self.fail(error.message, param, ctx)


def up_to_all(text: str) -> float:
    """A share above 0% and at most 100%, for `Quantity`. Raises RequestError."""
    share = float(units.parse_share(text))
    if not 0 < share <= 1:
        raise RequestError(f"{text[:40]!r} must be above 0% and at most 100%")
    return share


def record_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Where a record goes: ``-`` is standard output."""
    return "/dev/stdout" if value == "-" else value


class Share(_FloatType):
    """A percentage above 0, as a float: 0.01 for ``1%``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            share = float(units.parse_share(value))
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if share < 0.0001:
            self.fail(f"{value!r} is too small; it must be at least 0.01%", param, ctx)
        return share


class Numbers(_SetType):
    """Whole numbers, separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            self.fail(f"{value!r} is not a list of numbers; write it like 0,2,3", param, ctx)
        return frozenset(int(part) for part in parts)


TIME = Quantity("time", units.parse_time_us)
COUNT = Quantity("number", units.parse_count)
OPS = ["vaddr", "fvaddr", "paddr", "sim", "reported"]

FORCE = click.Option(["--force"], is_flag=True, help="Keep nothing of a record that is there (else it is FILE.old).")


def forced(verb: _Verb) -> _Verb:
    """The option --force of a verb that writes a record, which gets it as ``force``."""
    return click.option(*FORCE.opts, is_flag=True, help=FORCE.help)(verb)


# -- commands ---------------------------------------------------------------------------------------------------------


class LaunchCommand(Verb):
    """Keeps what follows ``--`` apart, as ``ctx.meta["launch"]``: a command to launch, None without ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["launch"] = None
        if "--" in args:
            at = args.index("--")
            args, ctx.meta["launch"] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


def given(ctx: click.Context) -> dict[str, str]:
    """The parameters that were given on the command line, by name, and what the user calls them."""
    return {
        param.name or "": param.opts[-1] if isinstance(param, click.Option) else "pid"
        for param in ctx.command.params
        if ctx.get_parameter_source(param.name or "") == click.core.ParameterSource.COMMANDLINE
    }


# -- what is monitored, and how: record, start, trace -----------------------------------------------------------------

TARGETS = click.Argument(
    ["targets"], nargs=-1, metavar="[PID|NAME... | -- COMMAND...]", shell_complete=completion.processes
)
IGNORE_STATUS = click.Option(
    ["--ignore-status"], is_flag=True, help="End with status 0, however the launched command has ended."
)
_MONITORING = [
    click.Option(
        ["-p", "--pid", "pids"],
        multiple=True,
        metavar="PID",
        shell_complete=completion.processes,
        help="As PID, also with commas; repeatable.",
    ),
    click.Option(["--all-named"], is_flag=True, help="Of a NAME that several processes have: all of them."),
    click.Option(
        ["--rotate"], metavar="SIZE|TIME", help="Begin a new file after, e.g., 100M or 1h: run.0001.damon, ..."
    ),
    click.Option(
        ["--keep"], type=click.IntRange(min=1), metavar="N", help="With --rotate: keep the last N files only."
    ),
    click.Option(["--include-children"], is_flag=True, help="Also monitor all descendants of the processes."),
    click.Option(["--cgroup"], metavar="PATH", help="Monitor the processes in this cgroup v2, as they come and go."),
    click.Option(["--duration"], type=Quantity("time", units.parse_time_ns), help="End after this time, e.g. 30s."),
    click.Option(
        ["--sample"],
        type=TIME,
        help="Sampling interval, from then on fixed.  [default: tuned, from 5ms on; fixed 5ms with sim]",
    ),
    click.Option(["--aggr"], type=TIME, help="Aggregation interval.  [default: 20 x --sample]"),
    click.Option(["--update"], type=TIME, help="Update interval.  [default: 1s]"),
    click.Option(
        ["--intervals"],
        type=click.Choice(["fixed", "auto"]),
        help="auto: tune them so that 4% of the possible access events are seen, sampling every 5ms to 10s.  "
        "[default: auto; fixed with --sample, --aggr, --faithful, sim, reported, the kernel's DAMON, and in trace]",
    ),
    click.Option(["--max-cpu"], type=Share(), metavar="SHARE", help="Keep below this share of one CPU, e.g. 1%."),
    click.Option(["--faithful"], is_flag=True, help="Sample as the kernel's DAMON does: any page, across mappings."),
    click.Option(
        ["--panel"],
        type=click.IntRange(0, 65536),
        metavar="N",
        help="Ask N pages, drawn at random, once a second: how sure sizes are. 0: none.  [default: 1024]",
    ),
    click.Option(["--min-regions"], type=COUNT, default="10", show_default=True, help="At least so many regions."),
    click.Option(["--max-regions"], type=COUNT, default="1000", show_default=True, help="At most so many regions."),
    click.Option(
        ["--region", "regions"],
        multiple=True,
        metavar="START-END",
        help="Begin with this range; with fvaddr and paddr: monitor only this; repeatable.",
    ),
    click.Option(
        ["--ops"],
        type=click.Choice(OPS),
        default="vaddr",
        show_default=True,
        help="Processes, fixed ranges of processes, physical memory, a simulation, reported accesses.",
    ),
    click.Option(
        ["--engine"],
        type=click.Choice(["user", "kernel", "auto"]),
        default="user",
        show_default=True,
        help="Who monitors: pydamon, the kernel's DAMON, or (auto) the kernel's if it is free and fits.",
    ),
    click.Option(
        ["--primitive"],
        type=click.Choice(CHOICES),
        default="auto",
        show_default=True,
        help="How pages are asked whether they were accessed (see `pydamon doctor`).",
    ),
    click.Option(
        ["--access"],
        type=click.Choice(["any", "write"]),
        default="any",
        show_default=True,
        help="write: only writes.",
    ),
    click.Option(
        ["--resctrl"], is_flag=True, help="While monitoring, put the processes into resctrl groups of their own."
    ),
    click.Option(
        ["--workload"],
        metavar="NAME|FILE",
        shell_complete=completion.workloads,
        help="With --ops sim: the access pattern to simulate.",
    ),
    click.Option(
        ["--mapping"], type=click.Choice(["separate", "one"]), help="With --ops sim: how its regions are mapped."
    ),
    click.Option(
        ["--source"],
        metavar="SOURCE",
        help="With --ops reported: perf-event[:EVENT] (also beside sampling), valgrind, perf-mem, lackey:FILE, "
        "perf-script:FILE.",
    ),
    click.Option(["--threads"], type=Numbers(), metavar="N,...", help="With --source: accesses of these threads only."),
    click.Option(["--cpus"], type=Numbers(), metavar="N,...", help="With --source: accesses from these CPUs only."),
    click.Option(
        ["--nodes"], type=Numbers(), metavar="N,...", help="With --source: accesses from these NUMA nodes only."
    ),
    click.Option(
        ["--schemes"],
        type=FILE,
        help="Apply the schemes in this file (see `pydamon schemes`; -: stdin).",
    ),
    click.Option(
        ["--scheme"], multiple=True, metavar="TEXT", help="Apply this scheme, e.g. 'stat size>=4K'; repeatable."
    ),
    click.Option(
        ["--module", "modules"],
        multiple=True,
        metavar="TEXT",
        help="Run this module, e.g. 'reclaim min_age=30s' (see `pydamon modules`); repeatable.",
    ),
    click.Option(
        ["--probe", "probes"],
        multiple=True,
        metavar="TEXT",
        help="Count samples with this attribute, e.g. anon or memcg=/a.",
    ),
    click.Option(
        ["--dry-run"], is_flag=True, help="Print what the schemes would act on, and whose it is; touch nothing."
    ),
    click.Option(
        ["--undo"], is_flag=True, help="At the end, take back what the schemes did, as far as that is possible."
    ),
    click.Option(["--seed"], type=click.IntRange(min=0), help="Seed of the random sampling.  [default with sim: 0]"),
]


def monitoring(*without: str) -> list[click.Parameter]:
    """The options that say what is monitored, and how, without those of these names."""
    return [option for option in _MONITORING if option.name not in without]


# -- fields -----------------------------------------------------------------------------------------------------------

# Which option a field of a spec comes from; what is below it, too.
_OF_SPEC = {
    "intervals.sample_us": "--sample",
    "intervals.aggr_us": "--aggr",
    "intervals.ops_update_us": "--update",
    "intervals.intervals_goal": "--intervals",
    "nr_regions.min": "--min-regions",
    "nr_regions.max": "--max-regions",
    "targets.pid": "pid",
    "targets.regions": "--region",
    "targets.cgroup": "--cgroup",
    "targets.include_children": "--include-children",
    "ops": "--ops",
    "primitive": "--primitive",
    "faithful": "--faithful",
    "probes": "--probe",
}
# And those that come from no spec but from a request, or a verb.
_OF_REQUEST = {
    "access": "--access",
    "aggr_us": "--aggr",
    "by": "--by",
    "cgroup": "--cgroup",
    "cluster": "--cluster",
    "cpus": "--cpus",
    "dry_run": "--dry-run",
    "duration": "--duration",
    "engine": "--engine",
    "event": "--event",
    "format": "--format",
    "host": "--host",
    "host_class": "--class",
    "include_children": "--include-children",
    "keep": "--keep",
    "level": "--level",
    "log": "--log",
    "mapping": "--mapping",
    "max_cpu": "--max-cpu",
    "memory_bytes": "--memory",
    "modules": "--module",
    "name": "--name",
    "nodes": "--nodes",
    "outcome": "--outcome",
    "output": "-o",
    "panel": "--panel",
    "perf": "--perf",
    "regions": "--region",
    "repeat": "--repeat",
    "resctrl": "--resctrl",
    "rollout": "--rollout",
    "rotate": "--rotate",
    "sample_us": "--sample",
    "service": "--service",
    "source": "--source",
    "spec": "--spec",
    "threads": "--threads",
    "time_scale": "--time-scale",
    "undo": "--undo",
    "until": "--until",
    "window": "--window",
    "workload": "--workload",
}
_INDEX = re.compile(r"\[\d+\]")


def name_options(error: PydamonError, ctx: click.Context) -> None:
    """Whoever gave options is told of them, where ``error`` names a field of a spec or a request.

    ``ctx`` is that of ``pydamon``. What the user wrote into a file (``ctx.meta["spec"]``) is called as it is there;
    schemes are called by where they were given (``ctx.meta["schemes"]``).
    """
    verb = ctx.invoked_subcommand
    command = ctx.command.get_command(ctx, verb) if verb and isinstance(ctx.command, click.Group) else None
    if command is None or error.where is None:
        return
    error.move(_named(error.where, _options(command), from_file="spec" in ctx.meta, schemes=ctx.meta.get("schemes")))


def _options(command: click.Command) -> set[str]:
    """What options the command has, or one of its subcommands."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
    return own.union(*map(_options, below))


def _named(where: str, options: set[str], *, from_file: bool, schemes: Any) -> str:
    field, blank, value = where.partition(" ")  # `primitive bpf`
    if field in _OF_REQUEST and _OF_REQUEST[field] in options:
        return _OF_REQUEST[field] + blank + value
    if from_file:
        return where
    from pydamon.spec import ONLY_CONTEXT

    within = where.removeprefix(f"{ONLY_CONTEXT}.")
    if schemes is not None and within.startswith("schemes"):
        called: str = schemes.where(within)
        return called
    path = _INDEX.sub("", field.removeprefix(f"{ONLY_CONTEXT}."))
    while path and path not in _OF_SPEC:
        path = path.rpartition(".")[0]
    option = _OF_SPEC.get(path, "")
    return option + blank + value if option == "pid" or option in options else within
