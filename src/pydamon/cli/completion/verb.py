"""``pydamon completion``: the script that completes pydamon's words in a shell."""

from __future__ import annotations

import os

import click

from pydamon.cli.completion import answer
from pydamon.cli.help.classes import Verb
from pydamon.cli.render.screen import emit
from pydamon.errors import RequestError

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Verb)
@click.argument("shell", required=False, type=click.Choice(SHELLS))
def command(shell: str | None) -> None:
    """Print a script that completes verbs, reports, options, their values, processes, kdamonds and files.

    Without a SHELL: for the one that SHELL in the environment names. For bash, in ~/.bashrc: eval "$(pydamon
    completion bash)"; for zsh, in ~/.zshrc behind compinit: eval "$(pydamon completion zsh)"; for fish: pydamon
    completion fish > ~/.config/fish/completions/pydamon.fish.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise RequestError(f"say which one: {', '.join(SHELLS)}", where="SHELL")
    emit(answer.script(name))
