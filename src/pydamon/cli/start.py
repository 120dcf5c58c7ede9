"""``pydamon start``: monitor in the background."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from pydamon import messages
from pydamon.cli import options as shared
from pydamon.cli.completion.values import FILE
from pydamon.cli.options import given
from pydamon.cli.render.screen import echo
from pydamon.errors import RequestError, located
from pydamon.plain import printable

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Context, Spec

# What a spec says itself: these options do not go with --spec.
_IN_SPEC = (
    "targets", "pids", "all_named", "include_children", "cgroup", "sample", "aggr", "update", "intervals",
    "min_regions", "max_regions", "regions", "ops", "primitive", "access", "schemes", "scheme", "faithful", "probes",
    "modules",
)  # fmt: skip
_OWN = [
    click.Option(["-o", "--output"], type=FILE, help="Write a record, too."),
    shared.FORCE,
    click.Option(["--name"], metavar="NAME", help="What to call it.  [default: the lowest free number]"),
    click.Option(
        ["--spec", "spec_file"],
        type=FILE,
        help="Run this spec (JSON or YAML; - is standard input).",
    ),
    click.Option(
        ["--metrics"],
        metavar="ADDR:PORT|FILE.prom",
        help="Serve metrics there for Prometheus (ADDR is loopback unless said), or write them for node_exporter.",
    ),
    click.Option(
        ["--log"],
        type=FILE,
        help="Append what it (and the command) says to this file.",
    ),
    click.Option(["--group"], metavar="NAME", help="Let this group look at it (status), and change nothing."),
]


@click.pass_context
def _start(ctx: click.Context, /, targets: tuple[str, ...], **options: Any) -> None:
    name, spec_file, log, group = (options.pop(key) for key in ("name", "spec_file", "log", "group"))
    metrics = options.pop("metrics")
    if metrics is not None:
        metrics = _where_metrics_go(metrics)
    if options["output"] is None and options["rotate"] is not None:
        raise RequestError("is for a record; say which with -o", where="rotate")
    if options["output"] == "-":
        raise RequestError(
            "- is standard output, which what runs in the background has not; name a file", where="output"
        )
    if options["force"] and options["output"] is None:
        raise RequestError("is for a record; say which with -o", where="--force")
    options["output"] = options["output"] and os.path.abspath(options["output"])
    if options["source"] in ("perf-script:-", "lackey:-"):
        raise RequestError("there is no standard input in the background; name a file or a FIFO", where="source")
    if options["source"] is not None:
        kind, _, path = options["source"].partition(":")
        if kind != "perf-event":  # behind that one stands an event
            options["source"] = f"{kind}:{os.path.abspath(path)}" if path else kind
    if spec_file is None:
        from pydamon.cli.asked import understand

        request, spec = understand(ctx, targets, options)
    else:
        spec = _load_spec(ctx, spec_file)
        if spec.modules:
            _start_module(ctx, spec)
            return
        request, spec = _understand_spec(ctx, spec, options)

    from pydamon.service.daemon import How, start

    path = gid = None
    if group is not None:
        from pydamon.run.directory import group_directory

        with group_directory(f"{group}.group", group) as directory:
            path, gid = directory.path, directory.gid
    started = start(request, spec, How(name=name, log=log, path=path, gid=gid, metrics=metrics))
    echo(f"kdamond {started.name} (pid {started.pid}): {printable(started.about)}")
    for line in started.remarks:
        messages.say(line)


def _where_metrics_go(asked: str) -> str:
    """The same, with an absolute path. Raises RequestError."""
    from pydamon.service.metrics import parse

    found = parse(asked)
    return os.path.abspath(found) if isinstance(found, str) else str(found)


def _load_spec(ctx: click.Context, path: str) -> Spec:
    """The spec. Raises RequestError, also for options that repeat what it says."""
    from pydamon.cli.files import load_spec

    for name, option in given(ctx).items():
        if name in _IN_SPEC and ctx.params[name]:
            raise RequestError("does not go with --spec: the spec itself says it", where=option)
    return load_spec(ctx, path)


def _start_module(ctx: click.Context, spec: Spec) -> None:
    """Let a module of the kernel run. Raises RequestError naming the option, and as `service.modules.start`."""
    from pydamon.linux.swap import swap_bytes
    from pydamon.service.modules import start
    from pydamon.spec.actions import NO_SWAP
    from pydamon.spec.modules import RECLAIMING

    if ctx.params["engine"] == "user":
        raise RequestError("the spec is for a module of the kernel; give --engine kernel", where="engine")
    for name, option in given(ctx).items():
        if name not in ("spec_file", "engine") and ctx.params[name]:
            raise RequestError("does not go with a module of the kernel", where=option)
    if ctx.meta["launch"] is not None:
        raise RequestError("does not go with a module of the kernel, which has no target", where="COMMAND")
    name, thread = start(spec)
    echo(f"module {name} (pid {thread.pid}): runs until it is stopped: pydamon stop {name}")
    if name == RECLAIMING and swap_bytes() == 0:
        messages.say(NO_SWAP)


def _understand_spec(ctx: click.Context, spec: Spec, options: dict[str, Any]) -> tuple[Request, Spec]:
    """The request around a spec that is given as a file. Raises RequestError naming the field."""
    from pydamon.cli.asked import expand, make_request
    from pydamon.spec import ONLY_CONTEXT, validate

    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; start one at a time", where="kdamonds")
    if ctx.meta["launch"] is not None:
        with located(ONLY_CONTEXT):
            spec = spec.with_context(_with_stand_in(spec.context))
    with_modules = expand(spec)
    validate(with_modules)
    if not spec.context.targets:
        raise RequestError("must have at least one target", where=f"{ONLY_CONTEXT}.targets")
    return make_request(ctx, with_modules, options), spec


def _with_stand_in(context: Context) -> Context:
    """Where a command is to be launched, the spec has no target; one stands in for it."""
    import msgspec

    from pydamon.cli.asked import STAND_IN
    from pydamon.cli.rules import PROCESSES
    from pydamon.spec import Target

    if context.targets:
        raise RequestError("must be empty: the command is the target", where="targets")
    target = Target(pid=STAND_IN if context.ops in PROCESSES else None)
    return msgspec.structs.replace(context, targets=(target,))


command = shared.LaunchCommand(
    "start",
    params=[shared.TARGETS, *_OWN, *shared.monitoring("resctrl")],
    callback=_start,
    help="""Monitor in the background: processes, a launched COMMAND (after --), a cgroup, or a simulated workload.

    Returns when monitoring runs; if it cannot, says what record would say, with the same exit status. `pydamon status`
    shows it, `tune` changes it, `stop` ends it. A simulation runs in real time here. A launched command runs as with
    record: as the invoking user, and it is ended with the monitoring.
    """,
)
