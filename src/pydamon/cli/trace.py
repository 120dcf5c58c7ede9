"""``pydamon trace``: DAMON's trace events as text, live or of a record, as ``perf script`` prints the kernel's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon import messages
from pydamon.cli import options as shared
from pydamon.cli.completion.values import RECORD
from pydamon.cli.options import given
from pydamon.cli.render.screen import emit
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Spec

EVENTS = (
    "damon_aggregated", "damos_before_apply", "damon_monitor_intervals_tune", "damos_esz",
    "damos_stat_after_apply_interval", "damon_region_aggregated",
)  # fmt: skip
# Not what is about a record, or about what it costs nothing to leave out.
_MONITORING = shared.monitoring("rotate", "keep", "dry_run", "undo", "resctrl", "panel")
_OWN = [
    click.Option(
        ["-i", "--input", "path"],
        type=RECORD,
        help="Print the events of this record.",
    ),
    click.Option(
        ["-e", "--event", "events"],
        multiple=True,
        type=click.Choice([*EVENTS, "all"]),
        help="Print these events; repeatable.  [default: damon_aggregated]",
    ),
    click.Option(["--quiet"], is_flag=True, help="With --user-events: print nothing."),
    shared.IGNORE_STATUS,
    click.Option(["--user-events"], is_flag=True, help="Offer them to perf and trace-cmd, too, as user_events:..."),
]


@click.pass_context
def _trace(ctx: click.Context, /, targets: tuple[str, ...], **options: Any) -> None:
    path, events, quiet, user_events = (options.pop(key) for key in ("path", "events", "quiet", "user_events"))
    events = EVENTS if "all" in events else events or EVENTS[:1]
    if quiet and not user_events:
        raise RequestError("goes with --user-events: otherwise nobody would see anything", where="--quiet")
    if path is not None:
        _check_alone(ctx, targets)
        if user_events:
            raise RequestError("are for what happens now, not for a record", where="--user-events")
        _print_record(path, events)
        return
    from pydamon.cli.asked import understand

    request, spec = understand(ctx, targets, options | {"output": None}, tuned=False)  # its events are the kernel's
    status = _live(request, spec, events, user_events=user_events, quiet=quiet)
    if status and not options["ignore_status"]:
        ctx.exit(status)


def _check_alone(ctx: click.Context, targets: tuple[str, ...]) -> None:
    if targets or ctx.meta["launch"] is not None:
        raise RequestError("takes no target; the record says whose events they are", where="--input")
    monitoring = {param.name for param in _MONITORING}
    for name, option in given(ctx).items():
        if name in monitoring and ctx.params.get(name):
            raise RequestError("is about monitoring; a record is only printed", where=option)


def _print_record(path: str, events: tuple[str, ...]) -> None:

    from pydamon.records.joined import open_record
    from pydamon.records.trace_text import of_record

    with open_record(path) as reader:
        for text in of_record(reader, events):
            emit(text)
        for line in reader.warnings():
            messages.say(f"{path}: {line}")


def _live(request: Request, spec: Spec, events: tuple[str, ...], *, user_events: bool, quiet: bool) -> int:
    from pydamon import lean

    with lean.imports():
        from pydamon.cli.tracing import trace

    return trace(request, spec, events, user_events=user_events, quiet=quiet)


command = shared.LaunchCommand(
    "trace",
    params=[shared.TARGETS, *_OWN, *_MONITORING],
    callback=_trace,
    help="""Print DAMON's trace events, live or (-i) from a record, as perf script prints those of the kernel.

    Live, it takes the same targets and options as record, and writes no file. Each line is one region; `-e` chooses
    other events.
    """,
)
