"""The verbs of click as we have them: help of our own layout, examples in it, and a hint for a word that is wrong."""

from __future__ import annotations

import click


class Verb(click.Command):
    """A verb, or a report."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write(self, ctx, formatter)


class VerbGroup(click.Group):
    """A verb that has others below it."""

    command_class = Verb

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write(self, ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            from pydamon.cli.help.nearest import no_such_verb

            raise click.UsageError(no_such_verb(self, ctx, word), ctx)
        return super().resolve_command(ctx, args)


def _write(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    from pydamon.cli.help.layout import help_width
    from pydamon.cli.help.page import page
    from pydamon.cli.help.text import shown

    formatter.write(shown(page(command, ctx), help_width()))
