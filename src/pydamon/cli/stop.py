"""``pydamon stop``: end what runs in the background."""

from __future__ import annotations

from typing import Any

import click

from pydamon import messages
from pydamon.cli.completion import values as completion
from pydamon.cli.help.classes import Verb
from pydamon.cli.render.screen import echo, emit_json
from pydamon.errors import PydamonError, RequestError
from pydamon.plain import printable
from pydamon.spec.modules import MODULES


def _stop_modules(name: str | None, problems: list[PydamonError]) -> list[str]:
    """Stop the kernel's module ``name``, or without a name whichever this user has started; returns which."""
    from pydamon.service import modules

    found = []
    for module in modules.ours() if name is None else [name]:
        try:
            modules.stop(module)
        except PydamonError as error:
            problems.append(error)
        else:
            found.append(module)
    return found


def _undo_left(*, quiet: bool) -> list[str]:
    """Undo what killed runs have left; lines of what was undone."""
    from pydamon.run.acts.left import undo_left

    undone = undo_left()
    if undone and not quiet:
        echo("\n".join(printable(f"undone: {line}") for line in undone))
    return undone


@click.command("stop", cls=Verb)
@click.argument("name", required=False, shell_complete=completion.kdamonds)
@click.option("--all", "all_of_them", is_flag=True, help="Stop all of them.")
@click.option("--undo", is_flag=True, help="Undo what its schemes did, as far as that can be undone.")
@click.option("--json", "as_json", is_flag=True, help="What they did, as JSON.")
def command(name: str | None, all_of_them: bool, undo: bool, as_json: bool) -> None:
    """End the kdamond NAME (default: the only one), wait until it has ended, and say what it did.

    NAME may also be a module of the kernel that `start` has started, e.g. damon_reclaim. Without NAME, --undo also puts
    back what killed runs have left (`status` shows it).
    """
    from pydamon.service.client import Client, running
    from pydamon.views import lines, status

    if name is not None and all_of_them:
        raise RequestError("takes no name", where="--all")
    reports: list[dict[str, Any]] = []
    problems: list[PydamonError] = []
    is_module = name in MODULES and name not in running()
    if is_module and undo:
        raise RequestError("is not for modules of the kernel: what they do is not noted", where="--undo")
    undone = _undo_left(quiet=as_json) if undo and name is None else []
    only_left = bool(undone) and not running()
    names: list[str | None] = [*running()] if all_of_them else [] if is_module or only_left else [name]
    for each in names:
        try:
            reports.append(Client(each).stop(undo=undo))
        except PydamonError as error:
            if not all_of_them:
                raise
            if each in running():  # else it has ended by itself meanwhile
                problems.append(error)
            continue
        if not as_json:
            report = reports[-1]
            echo("\n".join(lines.ended(report.get("name", "?"), report["reason"], status.ended(report))))
    modules = _stop_modules(name, problems) if is_module or all_of_them else []
    if as_json:
        emit_json({"kdamonds": reports, "modules": modules, "undone": undone})
    elif modules:
        echo("\n".join(f"module {module}: stopped" for module in modules))
    elif not reports and not problems and not undone:
        echo("nothing runs in the background")
    for problem in problems[:-1]:
        messages.say(str(problem))
    if problems:
        raise problems[-1]
