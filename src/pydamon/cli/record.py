"""``pydamon record``: monitor a process, a command or a simulated workload, and write a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli import options as shared
from pydamon.cli.completion.values import FILE
from pydamon.cli.render.screen import emit

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Spec

_EDITS = ("cut", "merge", "aggregate")


class _RecordCommand(shared.LaunchCommand):
    """Also hands over to what edits records."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in _EDITS:
            from pydamon.cli.edit import COMMANDS

            # Not a recording: `invoke` runs it.
            ctx.meta["edit"] = COMMANDS[args[0]].make_context(f"record {args[0]}", args[1:], parent=ctx.parent)
            return []
        return super().parse_args(ctx, args)

    def further(self) -> dict[str, click.Command]:
        """What edits records."""
        from pydamon.cli.edit import COMMANDS

        return dict(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        edit = ctx.meta.get("edit")
        if edit is None:
            return super().invoke(ctx)
        with edit:
            return edit.command.invoke(edit)


@click.pass_context
def _record(ctx: click.Context, /, targets: tuple[str, ...], explain: bool, **options: Any) -> None:
    from pydamon.cli.asked import understand

    request, spec = understand(ctx, targets, options)
    if explain:
        _explain(request, spec)
        return
    from pydamon import lean

    with lean.imports():
        from pydamon.cli.recording import record

    status = record(request, spec)
    if status and not options["ignore_status"]:
        ctx.exit(status)


def _explain(request: Request, spec: Spec) -> None:
    from pydamon.cli.rules import LIVE
    from pydamon.spec import explain
    from pydamon.spec.defaults import without_default_goal
    from pydamon.spec.primitives import facts
    from pydamon.spec.units import format_duration_ns

    if request.engine == "kernel":
        spec = without_default_goal(spec)
    from pydamon.cli.asked import expand
    from pydamon.run.modules import filled

    spec = expand(filled(spec, request))
    lines = explain(spec)
    if request.launch is not None:
        lines = [line.replace("process 1", f"the command {' '.join(request.launch)!r}", 1) for line in lines]
    if request.workload is not None:
        lines = [line.replace("simulated.", f"the workload {request.workload}.") for line in lines]
    if request.source is not None:
        lines = [line.replace("reported.", f"what {request.source} reports.") for line in lines]
    ops = spec.context.ops
    if ops in LIVE:
        from pydamon.engines.user.open_ops import choose_for

        choice = choose_for(spec.context)
        lines.append(f"Pages are asked through the primitive {choice.name} ({choice.reason}).")
        if facts(choice.name).walks_all and spec.context.intervals.intervals_goal is not None:
            lines.append("Its check walks all resident memory: the intervals are long enough that it disturbs for 5 %.")
    ends = [f"after {format_duration_ns(request.duration_ns)}"] if request.duration_ns is not None else []
    ends += ["when the target ends"] if ops != "paddr" else []
    lines.append(f"End {', '.join([*ends, 'or on Ctrl-C' if ends else 'on Ctrl-C'])}; write {request.output}.")
    emit("\n".join(lines) + "\n")


command = _RecordCommand(
    "record",
    params=[
        shared.TARGETS,
        click.Option(
            ["-o", "--output"],
            type=FILE,
            default="pydamon.damon",
            show_default=True,
            callback=shared.record_path,
            help="File to write the record to (- is standard output).",
        ),
        shared.FORCE,
        *shared.monitoring(),
        shared.IGNORE_STATUS,
        click.Option(["--explain"], is_flag=True, help="Print the plan in words and stop."),
    ],
    callback=_record,
    help="""Monitor processes, a launched COMMAND (after --), a cgroup, or a simulated workload, and write a record.

    Editing records: record cut, record merge, record aggregate (see their --help).

    A launched command runs as the invoking user, also under sudo; when the recording ends before it (--duration,
    Ctrl-C, SIGTERM), it is ended too. If it ends by itself, its exit status is that of pydamon (128 + N for signal N).
    Press Ctrl-C to end a recording; the record is complete up to then.
    """,
)
