"""``pydamon completion``: the script that makes a shell complete pydamon's words, and the answers that it asks for."""

from __future__ import annotations

import os

import click

from pydamon.cli.completion.scripts import SCRIPTS
from pydamon.cli.options import LaunchCommand
from pydamon.cli.render.screen import emit
from pydamon.errors import RequestError


@click.command("completion", cls=LaunchCommand)
@click.argument("shell", required=False, type=click.Choice(list(SCRIPTS)))
@click.option("--at", type=click.IntRange(min=0), hidden=True, help="Which of the words behind -- is to be completed.")
@click.pass_context
def command(ctx: click.Context, /, shell: str | None, at: int | None) -> None:
    """Print a script that completes verbs, reports, options, their values, processes, kdamonds and files.

    Behind -- commands are completed as the shell does it. Without a SHELL: for the one that SHELL in the environment
    names. For bash, in ~/.bashrc: eval "$(pydamon completion bash)"; for zsh, in ~/.zshrc behind compinit:
    eval "$(pydamon completion zsh)"; for fish: pydamon completion fish > ~/.config/fish/completions/pydamon.fish.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SCRIPTS:
        raise RequestError(f"say which one: {', '.join(SCRIPTS)}", where="SHELL")
    words: list[str] | None = ctx.meta["launch"]
    if at is None or words is None:
        emit(SCRIPTS[name])
        return
    from pydamon.cli.completion.words import answer

    emit("".join(f"{row}\n" for row in answer(ctx.find_root(), name, words, at)))
