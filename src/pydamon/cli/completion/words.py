"""Words that are not written in the definitions: files, processes, kdamonds. The machine is asked each time."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    _ParamType = click.ParamType[str]
else:  # it cannot be subscripted in older releases of click
    _ParamType = click.ParamType

Items = list[CompletionItem]
_PLAIN = re.compile(r"[\w.+@/-]+")  # what no shell reads anything into
_MOST = 500


class _File(_ParamType):
    """The name of a file, which the shell itself completes."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        return [CompletionItem(incomplete, type="file")]


FILE = _File()


def processes(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Pids and names of the processes that this user may look at, without us; of names each once."""
    from pydamon.linux.named import own_processes

    found: dict[str, str | None] = {}
    for pid, name in own_processes():
        if pid != os.getpid() and _PLAIN.fullmatch(name):
            found[str(pid)] = name
            found.setdefault(name, None)
    return [CompletionItem(word, help=name) for word, name in found.items() if word.startswith(incomplete)][:_MOST]


def kdamonds(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """The names of this user's kdamonds in the background."""
    from pydamon.service.client import running

    return [CompletionItem(name) for name in running() if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
