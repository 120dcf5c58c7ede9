"""``pydamon service``: run what a file declares, and talk to what runs."""

from __future__ import annotations

from typing import Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.render.screen import current_screen, echo, emit_json
from pydamon.plain import printable

_NAME = click.argument("name", required=False)


class _Service(VerbGroup):
    """Whose first word may be a file."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-") and ("." in word or "/" in word):
            return "run", run, args
        return super().resolve_command(ctx, args)


@click.group("service", cls=_Service, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Run what FILE declares (pydamon service FILE): several monitors, each a kdamond in a process of its own.

    Processes that come are taken up, what dies is started anew, recordings rotate and do not grow for ever. SIGHUP, or
    `pydamon service reload`, has it read its file anew; SIGTERM ends it, and all that it runs.
    """


@command.command("run")
@click.argument("file", type=FILE)
def run(file: str) -> None:
    """Run the service that FILE (YAML or JSON) declares until SIGTERM or Ctrl-C. The word run may be left out."""
    from pydamon.service.declared.supervisor import run as supervise

    supervise(file)


@command.command("check")
@click.argument("file", type=FILE)
def check(file: str) -> None:
    """Say whether FILE is valid, and what it says, in words. Nothing is run."""
    from pydamon.service.declared.words import describe

    for line in describe(file):
        echo(line)


@command.command("reload")
@_NAME
@click.option("--json", "as_json", is_flag=True, help="What was done, as JSON.")
def reload(name: str | None, as_json: bool) -> None:
    """Have the service NAME (default: the only one) read its file anew.

    What has not changed is left alone, what can be changed while it runs is, the rest is started anew. If the file is
    wrong, all goes on as before.
    """
    from pydamon.errors import PydamonError
    from pydamon.service.client import ServiceClient

    done = ServiceClient(name).reload()
    if as_json:
        emit_json(done)
    else:
        words = [f"{what}: {', '.join(names)}" for what, names in done.items() if names and what != "problems"]
        echo("\n".join(words) or "nothing has changed")
    problems = done["problems"]
    if problems:
        raise PydamonError(f"goes on as before: {printable(problems[0])}", where="service")


@command.command("status")
@_NAME
@click.option("--json", "as_json", is_flag=True, help="All there is to know, as JSON.")
def status(name: str | None, as_json: bool) -> None:
    """Show the monitors of the service NAME (default: the only one); more about each by pydamon status."""
    from pydamon.cli.render.table import table
    from pydamon.service.client import ServiceClient

    told = ServiceClient(name).status()
    if as_json:
        emit_json(told)
        return
    echo(f"service {told['service']} (pid {told['pid']}): {told['state']}, {printable(told['file'])}")
    rows = [_row(monitor) for monitor in told["monitors"]]
    echo("\n".join(table(("MONITOR", "STATE", "PID", "RESTARTS", "WHY"), rows, current_screen(), 2, words=True)))
    if told.get("shipping") is not None:
        from pydamon.service.shipping.told import lines

        echo("\n".join(lines(told["shipping"])))


def _row(monitor: dict[str, Any]) -> tuple[str, ...]:
    pid, why = monitor["pid"], monitor["why"]
    return (
        printable(monitor["name"]),
        monitor["state"],
        "-" if pid is None else str(pid),
        str(monitor["restarts"]),
        "" if why is None else printable(why),
    )


@command.command("stop")
@_NAME
def stop(name: str | None) -> None:
    """End the service NAME (default: the only one), and all that it runs."""
    from pydamon.service.client import ServiceClient

    client = ServiceClient(name)
    told = client.stop()
    echo(f"service {told.get('service', name)}: {told.get('state') or told.get('reason')}")
