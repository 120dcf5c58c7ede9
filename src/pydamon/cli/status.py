"""``pydamon status``: what runs in the background."""

from __future__ import annotations

from typing import Any

import click

from pydamon import messages
from pydamon.cli.completion import values as completion
from pydamon.cli.help.classes import Verb
from pydamon.cli.render.screen import echo, emit_json
from pydamon.plain import printable


@click.command("status", cls=Verb)
@click.argument("name", required=False, shell_complete=completion.kdamonds)
@click.option("--kernel", "with_kernel", is_flag=True, help="Always show the kernel's own DAMON.")
@click.option("--json", "as_json", is_flag=True, help="All there is to know, as JSON.")
def command(name: str | None, with_kernel: bool, as_json: bool) -> None:
    """Show the kdamonds in the background, or everything about the one called NAME.

    Also who uses the kernel's own DAMON, and its modules, if they are there and this user may look.
    Exit status 1: one of them does not answer; for all together that takes 5 seconds.
    """
    from pydamon.errors import PydamonError
    from pydamon.service.client import STATUS_S, Client, NoAnswer, ask_all, running
    from pydamon.views import lines, status

    problems: list[PydamonError] = []
    if name is None:
        found, problems = ask_all(running())
    else:
        found = [Client(name, timeout_s=STATUS_S).status()]
    left = []
    if name is None:
        from pydamon.run.acts.left import left as find_left

        left = find_left()
    kernel = []
    if with_kernel or name is None:
        from pydamon.run.kernel import kernel_status, status_lines

        kernel = kernel_status()
    if as_json:
        told: dict[str, Any] = {"kdamonds": found}
        if name is None:
            silent = [error for error in problems if isinstance(error, NoAnswer)]
            told["silent"] = [
                {"name": each.name, "pid": each.pid, "since_unix_ns": each.since_unix_ns} for each in silent
            ]
            told["left"] = [{"process": pid, "what": thing.words()} for pid, thing in left]
        if with_kernel or name is None:
            told["kernel"] = kernel
        emit_json(told)
    elif name is not None:
        echo("\n".join(lines.details(status.running(found[0]))))
    elif found:
        echo("\n".join(lines.overview([status.running(each) for each in found])))
    elif not problems:
        echo("nothing runs in the background")
    if left and not as_json:
        echo("\nleft behind by processes that were killed; pydamon stop --undo undoes it:")
        echo("\n".join(printable(f"  process {pid}: {thing.words()}") for pid, thing in left))
    if (with_kernel or kernel) and not as_json:
        about = status_lines(kernel) or ["not in use, or not visible"]
        echo("\n".join(["", "the kernel's DAMON:", *(f"  {line}" for line in about)]))
    for problem in problems[:-1]:
        messages.say(str(problem))
    if problems:
        raise problems[-1]
