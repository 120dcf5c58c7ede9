"""Which words may stand at a place of a command line, as far as its beginning tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import click

from pydamon.cli.help.page import below, child
from pydamon.cli.help.place import further, is_group, words_of
from pydamon.cli.options import LaunchCommand
from pydamon.perf_damon import PROGRAM
from pydamon.perf_damon import VERBS as VERBS_OF_PERF

_LONGEST = 60  # characters of a description
_KINDS = {"plain": "word", "file": "files", "record": "records"}  # of click, and of ours


class Row(NamedTuple):
    """A line of an answer: see `scripts`."""

    kind: str
    value: str = ""
    help: str = ""

    def behind(self, prefix: str) -> Row:
        """The same, where the shell takes what stands before it for the same word."""
        return self._replace(value=prefix + self.value) if self.kind == "word" else self

    def __str__(self) -> str:
        text = " ".join(self.help.split())
        shown = text if len(text) <= _LONGEST else text[: _LONGEST - 3].rstrip() + "..."
        return f"{self.kind}\t{self.value}\t{shown}"


class _Place(NamedTuple):
    """``option``: the one whose value is awaited; ``named``: positional words; ``given``: options, both so far."""

    ctx: click.Context
    option: click.Option | None
    named: list[str]
    given: set[str]


def answer(root: click.Context, shell: str, words: Sequence[str], at: int) -> list[Row]:
    """What may stand for ``words[at]`` (as far as it is typed; it may be missing), the program being ``words[0]``."""
    before, current = list(words[:at]), words[at] if at < len(words) else ""
    if shell == "bash":
        before, current = _rejoined(before, current)
    end = before.index("--") if "--" in before else len(before)
    place = _place(root, before[1:end])
    if end < len(before):
        return [Row("command", str(words.index("--") + 1))] if isinstance(place.ctx.command, LaunchCommand) else []
    if place.option is not None:
        return _beginning(_values(place.option, place.ctx, current), current)
    name, equals, typed = current.partition("=")
    if equals and name.startswith("--"):
        option = _option(place.ctx, name)
        found = [] if option is None else _beginning(_values(option, place.ctx, typed), typed)
        return found if shell == "bash" else [row.behind(f"{name}=") for row in found]
    if current.startswith("-"):
        return _beginning(_options(place), current)
    rows = [*_below(place), *_positional(place, current)]
    if place.ctx.parent is None and words[0].endswith(PROGRAM):
        rows = [row for row in rows if row.value in VERBS_OF_PERF]
    return _beginning(rows, current)


def _rejoined(before: list[str], current: str) -> tuple[list[str], str]:
    """bash takes ``--by=address`` for three words."""
    joined: list[str] = []
    for word in before:
        if word == "=" and joined and joined[-1].startswith("--"):
            joined[-1] += "="
        elif joined and joined[-1].startswith("--") and joined[-1].endswith("="):
            joined[-1] += word
        else:
            joined.append(word)
    last = joined[-1] if joined else ""
    if last.startswith("--") and current == "=":
        return joined[:-1], f"{last}="
    if last.startswith("--") and last.endswith("="):
        return joined[:-1], last + current
    return joined, current


def _place(ctx: click.Context, words: Sequence[str]) -> _Place:
    """Where these words lead to."""
    option: click.Option | None = None
    named: list[str] = []
    given: set[str] = set()
    for word in words:
        if option is not None:
            option = None
        elif word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            name = name if name.startswith("--") else name[:2]
            option = _option(ctx, name)
            if option is not None:
                given.update(option.opts)
                if option.is_flag or equals or (not name.startswith("--") and len(word) > 2):
                    option = None
        elif not named and word in _names(ctx):
            ctx = child(ctx.command, ctx, word)[1]
        else:
            named.append(word)
    return _Place(ctx, option, named, given)


def _names(ctx: click.Context) -> list[str]:
    command = ctx.command
    return command.list_commands(ctx) if is_group(command) else list(further(command))


def _below(place: _Place) -> list[Row]:
    """Verbs and reports that may follow, or be named to ``help``."""
    ctx = place.ctx
    if ctx.parent is not None and ctx.info_name == "help":
        ctx = _place(ctx.parent, place.named).ctx
        place = place._replace(named=[])
    if place.named:
        return []
    return [Row("word", *row) for row in below(ctx.command, words_of(ctx))]


def _option(ctx: click.Context, name: str) -> click.Option | None:
    for param in ctx.command.get_params(ctx):
        if isinstance(param, click.Option) and name in (*param.opts, *param.secondary_opts):
            return param
    return None


def _options(place: _Place) -> list[Row]:
    """Those that are not given yet, or may be given again."""
    found = []
    for param in place.ctx.command.get_params(place.ctx):
        if isinstance(param, click.Option) and not param.hidden:
            if place.given.intersection(param.opts) and not param.multiple:
                continue
            found += [Row("word", name, param.help or "") for name in param.opts if name.startswith("--")]
    return found


def _positional(place: _Place, current: str) -> list[Row]:
    """What the next argument may be; one that takes many is the last."""
    arguments = [param for param in place.ctx.command.get_params(place.ctx) if isinstance(param, click.Argument)]
    if len(place.named) < len(arguments):
        return _values(arguments[len(place.named)], place.ctx, current)
    if arguments and arguments[-1].nargs == -1:
        return _values(arguments[-1], place.ctx, current)
    command = place.ctx.command
    if is_group(command) and command.invoke_without_command and (record := _option(place.ctx, "--input")) is not None:
        return _values(record, place.ctx, current)  # what it reads where nothing below it is named
    return []


def _values(param: click.Parameter, ctx: click.Context, current: str) -> list[Row]:
    """What may stand for ``param``, as its definition says it."""
    rows = [Row(_KINDS[item.type], item.value, item.help or "") for item in param.shell_complete(ctx, current)]
    return [row if row.kind == "word" else Row(row.kind) for row in rows]


def _beginning(rows: list[Row], current: str) -> list[Row]:
    return [row for row in rows if row.kind != "word" or row.value.startswith(current)]
