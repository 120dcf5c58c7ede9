"""What a shell's script asks: which words can stand where the cursor is. Click knows the verbs and their options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "pydamon"
VARIABLE = "_PYDAMON_COMPLETE"  # in the environment of a command that is asked: "bash_complete"


def script(shell: str) -> str:
    """The script for ``shell``, which is one that click knows."""
    return _completion(shell).source()


def answer(asked: str) -> int:
    """Print the words for what the script asks; returns the exit status. Nothing is ever said of what goes wrong.

    The user is in the middle of a line: a message would tear it apart.
    """
    shell, _, instruction = asked.partition("_")
    if instruction != "complete":
        return 2
    try:
        completion = _completion(shell)
        found = completion.get_completions(*completion.get_completion_args())
        for item in found:
            if shell == "fish" and item.help:
                item.help = item.help.replace(",", ";")  # click's script for it cuts at commas
        print("\n".join(map(completion.format_completion, found)), flush=True)
    except Exception:
        return 1
    return 0


def _completion(shell: str) -> click.shell_completion.ShellComplete:
    from pydamon.cli.command import pydamon

    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(shell)
    return kind(pydamon, {}, PROGRAM, VARIABLE)
