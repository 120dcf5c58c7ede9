"""``pydamon metrics``: which metrics there are; a dashboard and rules for them. Nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.render.screen import echo, emit, emit_json

if TYPE_CHECKING:
    from pydamon.views.metrics import Row


@click.group(
    "metrics", cls=VerbGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool) -> None:
    """List the metrics that `pydamon start --metrics` tells; print a dashboard or rules for them.

    Prometheus reads them from ADDR:PORT, node_exporter from FILE.prom.
    """
    if ctx.invoked_subcommand is not None:
        return
    from pydamon.views.metrics import ROWS

    if as_json:
        told = [{"name": row.metric, **_about(row)} for row in ROWS]
        emit_json({"metrics": told})
        return
    for row in ROWS:
        echo(f"{row.metric} ({', '.join(['kdamond', *row.labels])})")
        echo(f"  {row.words}")


def _about(row: Row) -> dict[str, object]:
    kind = row.kind or row.field.kind
    return {"kind": kind, "unit": row.unit, "labels": ["kdamond", *row.labels], "help": row.words}


@command.command("board")
def board() -> None:
    """Print a dashboard for Grafana (JSON): import it, or put it where Grafana finds provisioned ones."""
    from pydamon.views.board import board

    emit_json(board())


@command.command("serve")
@click.argument("where", metavar="ADDR:PORT|FILE.prom")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def serve(where: str, names: tuple[str, ...]) -> None:
    """Tell the metrics of all kdamonds in the background (or of those named) in one place, until Ctrl-C or SIGTERM.

    They are asked when somebody asks, so that they may come and go, and need no --metrics of their own.
    """
    import signal

    from pydamon import messages
    from pydamon.service.client import Client, running
    from pydamon.service.metrics import OfKdamonds, publish, reach

    for name in names:
        Client(name)  # says what there is, if that is not
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # also in the threads that are made now
    try:
        with publish(where, OfKdamonds((lambda: names) if names else running)) as at:
            messages.say(f"metrics: {at}{reach(where)}")
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@command.command("rules")
def rules() -> None:
    """Print rules for Prometheus (YAML): alerts, and what the vertical pod autoscaler reads as history."""
    from importlib.resources import files

    emit((files("pydamon.views") / "rules.yaml").read_text(encoding="utf-8"))
