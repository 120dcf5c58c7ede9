"""What is to be said of one verb, taken from its definition: of it are made its help and its page of the manual."""

from __future__ import annotations

from typing import NamedTuple

import click

from pydamon.cli import verbs
from pydamon.cli.help.examples import EXAMPLES, Examples
from pydamon.cli.help.groups import grouped
from pydamon.cli.help.place import further, is_group, words_of

_WHOLE = 10_000  # characters: more than any first sentence


class Page(NamedTuple):
    """``words``: the verb, and what is below it. ``about``: paragraphs. Rows are (name, description)."""

    words: tuple[str, ...]
    usage: str
    summary: str
    about: list[str]
    groups: list[tuple[str, list[tuple[str, str]]]]
    below: list[tuple[str, str]]
    examples: Examples

    @property
    def title(self) -> str:
        """``pydamon-report-wss``: what its page of the manual is called."""
        return "-".join(("pydamon", *self.words))


def page(command: click.Command, ctx: click.Context) -> Page:
    """The page of a verb (or of ``pydamon`` itself), in whose context ``ctx`` is."""
    words = words_of(ctx)
    text = command.help or ""
    return Page(
        words=words,
        usage=" ".join(["pydamon", *words, *command.collect_usage_pieces(ctx)]),
        summary=summary(command),
        about=[" ".join(paragraph.split()) for paragraph in text.split("\n\n")],
        groups=grouped(command, ctx, words),
        below=below(command, words),
        examples=EXAMPLES[" ".join(words)] if words else verbs.FIRST,
    )


def below(command: click.Command, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, summary) of what stands below a verb."""
    if not words:
        return [(verb, line) for verb, (_, line) in verbs.VERBS.items()]
    known = sorted(command.commands.items()) if is_group(command) else further(command).items()
    return [(name, summary(each)) for name, each in known]


def summary(command: click.Command) -> str:
    """The first sentence of its help, whole."""
    return command.get_short_help_str(_WHOLE)


def walk(command: click.Command, ctx: click.Context) -> list[Page]:
    """The page of ``command``, and those of all below it."""
    found = [page(command, ctx)]
    if is_group(command):
        for name in command.list_commands(ctx):
            found += walk(*child(command, ctx, name))
    for name in further(command):
        found.append(page(*child(command, ctx, name)))
    return found


def child(command: click.Command, ctx: click.Context, name: str) -> tuple[click.Command, click.Context]:
    """The verb ``name`` below another, and a context in which it can be looked at. Raises KeyError."""
    if is_group(command):
        found = command.get_command(ctx, name)
        if found is None:
            raise KeyError(name)
        return found, click.Context(found, parent=ctx, info_name=name)
    edit = further(command)[name]
    return edit, click.Context(edit, parent=ctx.parent, info_name=f"{ctx.info_name} {name}")
