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
_PLAIN = re.compile(r"[\w.+@/][\w.+@/-]*")  # what no shell reads anything into, and no command takes for an option
_MOST = 500


class _File(_ParamType):
    """The name of a file, which the shell itself completes."""

    name = "file"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        return [CompletionItem(incomplete, type=self._kind)]


FILE = _File("file")
RECORD = _File("record")  # only those that end in .damon, where there are any


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


def tops(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """What can be looked at by itself: kdamonds in the background, and pids."""
    pids = [item for item in processes(ctx, param, incomplete) if item.value.isdigit()]
    return [*kdamonds(ctx, param, incomplete), *pids]


def workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Those that come with pydamon, and files."""
    from pydamon.workload.builtin import TEXTS

    names = [CompletionItem(name) for name in TEXTS if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]
