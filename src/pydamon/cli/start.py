"""``pydamon start``: monitor in the background."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import click

from pydamon.cli import record
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Spec

# What a spec says itself: these options do not go with --spec.
_IN_SPEC = (
    "targets", "include_children", "cgroup", "sample", "aggr", "update", "intervals", "min_regions", "max_regions",
    "regions", "ops", "primitive", "access", "schemes", "scheme", "faithful", "probes",
)  # fmt: skip
_NOT_HERE = ("output", "explain", "resctrl")
_OWN = [
    click.Option(["-o", "--output"], help="Write a record, too."),
    click.Option(["--name"], metavar="NAME", help="What to call it.  [default: the lowest free number]"),
    click.Option(["--spec", "spec_file"], metavar="FILE", help="Run this spec (JSON or YAML; - is standard input)."),
    click.Option(["--log"], metavar="FILE", help="Append what it (and the command) says to this file."),
]


def _params() -> list[click.Parameter]:
    """The options of ``record``, but for those that are different here."""
    others = [param for param in record.command.params if param.name not in _NOT_HERE]
    return [*others[:1], *_OWN, *others[1:]]


@click.pass_context
def _start(ctx: click.Context, /, targets: tuple[str, ...], **options: Any) -> None:
    output, name, spec_file, log = (options.pop(key) for key in ("output", "name", "spec_file", "log"))
    launch = ctx.meta["launch"]
    options |= {name: False for name in _NOT_HERE if name not in options}
    options["output"] = "" if output is None else os.path.abspath(output)
    if output is None and options["rotate"] is not None:
        raise RequestError("is for a record; say which with -o", where="--rotate")
    if options["source"] == "perf-script:-" or (options["source"] == "lackey:-"):
        raise RequestError("standard input is not there in the background; name a file or a FIFO", where="--source")
    try:
        if spec_file is None:
            request, spec = record._understand(targets, launch, options)
        else:
            data = _load_spec(ctx, spec_file)
            if data.get("modules"):
                _start_module(ctx, data)
                return
            request, spec = _understand_spec(data, launch, options)
    except RequestError as error:
        if error.where == "record":
            raise RequestError(error.message, where="start") from None
        raise
    if request.source is not None:
        kind, _, path = request.source.partition(":")
        request = dataclasses.replace(request, source=f"{kind}:{os.path.abspath(path)}" if path else kind)

    from pydamon.service.daemon import start

    started = start(request, spec, name=name, log=log)
    click.echo(f"kdamond {started.name} (pid {started.pid}): {started.about}")


def _load_spec(ctx: click.Context, path: str) -> dict[str, Any]:
    """The spec as plain values. Raises RequestError, also for options that say what it says."""
    from pydamon.cli.options import given, load_spec

    for name, option in given(ctx).items():
        if name in _IN_SPEC and ctx.params[name]:
            raise RequestError("does not go with --spec, which says it itself", where=option)
    return load_spec(path)


def _start_module(ctx: click.Context, data: dict[str, Any]) -> None:
    """Let a module of the kernel run. Raises RequestError naming the option, and as `service.modules.start`."""
    from pydamon.cli.options import given
    from pydamon.service.modules import start
    from pydamon.spec import from_builtins

    if ctx.params["engine"] == "user":
        raise RequestError("the spec is for a module of the kernel; give --engine kernel", where="--engine")
    for name, option in given(ctx).items():
        if name not in ("spec_file", "engine") and ctx.params[name]:
            raise RequestError("does not go with a module of the kernel", where=option)
    if ctx.meta["launch"] is not None:
        raise RequestError("does not go with a module of the kernel, which has no target", where="COMMAND")
    name, thread = start(from_builtins(data))
    click.echo(f"module {name} (pid {thread.pid}): runs until it is stopped: pydamon stop {name}")


def _understand_spec(data: dict[str, Any], launch: list[str] | None, options: dict[str, Any]) -> tuple[Request, Spec]:
    """The request around a spec that is given as a file. Raises RequestError naming the option or the field."""
    if launch is not None:
        _insert_target(data)
    from pydamon.spec import from_builtins

    spec = from_builtins(data)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; start one at a time", where="kdamonds")
    context = spec.kdamonds[0].contexts[0]
    if not context.targets:
        raise RequestError("must have at least one target", where="kdamonds[0].contexts[0].targets")
    pids = tuple(target.pid for target in context.targets if target.pid is not None)
    options |= {
        "ops": context.ops,
        "primitive": context.primitive,
        "access": "write" if context.primitive == "soft-dirty" else "any",
        "include_children": context.targets[0].include_children,
        "cgroup": context.targets[0].cgroup,
        "regions": ("0x1000-0x2000",) if context.ops == "fvaddr" else (),
        "spec_schemes": bool(context.schemes),
        "faithful": context.faithful,
    }
    # Whether the other options fit together and to this; the parameters are the spec's.
    named = () if launch is not None else tuple(map(str, pids))
    request, _ = record._understand(named, launch, options)
    return dataclasses.replace(request, fit_intervals=False), spec


def _insert_target(data: dict[str, Any]) -> None:
    """Where a command is to be launched, the spec has no target; pid 1 stands in for it."""
    try:
        (kdamond,) = data["kdamonds"]
        (context,) = kdamond["contexts"]
        targets = context.get("targets") or []
    except (TypeError, ValueError, KeyError, AttributeError):
        return  # the spec is wrong: reading it says how
    if targets:
        raise RequestError("must be empty: the command is the target", where="kdamonds[0].contexts[0].targets")
    context["targets"] = [{"pid": 1}]


command = record._RecordCommand(
    "start",
    params=_params(),
    callback=_start,
    help="""Monitor in the background: processes, a launched COMMAND (after --), a cgroup, or a simulated workload.

    Returns when monitoring runs, with what record would say and the same exit status if it cannot. `pydamon status`
    shows it, `tune` changes it, `stop` ends it. A simulation runs in real time here. A launched command runs as with
    record: as the invoking user, and it is ended with the monitoring.
    """,
)
