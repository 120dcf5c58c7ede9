"""``pydamon help``: what --help says of a verb, by its name; and the pages of the manual."""

from __future__ import annotations

import click

from pydamon.cli.help.classes import Verb
from pydamon.cli.render.screen import emit
from pydamon.errors import RequestError


@click.command("help", cls=Verb)
@click.argument("words", nargs=-1, metavar="[VERB [REPORT]]")
@click.option("--man", "directory", metavar="DIR", help="Write the pages of the manual into this directory.")
@click.pass_context
def command(ctx: click.Context, /, words: tuple[str, ...], directory: str | None) -> None:
    """Show the help of a VERB or a REPORT, as --help behind it does. Without one: what `pydamon --help` says.

    With --man: write a page of the manual for each of them, pydamon.1, pydamon-record.1, pydamon-report-wss.1 and so
    on; what pip installs has them already.
    """
    root = ctx.find_root()
    if directory is not None:
        if words:
            raise RequestError("writes all pages; it takes no verb", where="--man")
        from pydamon.cli.help.man import write_pages

        write_pages(root, directory)
        return
    emit(found(root, words).get_help() + "\n")


def found(ctx: click.Context, words: tuple[str, ...]) -> click.Context:
    """The context of what is named, from the outermost one on. Raises UsageError saying what was probably meant."""
    from pydamon.cli.help.nearest import no_such_verb
    from pydamon.cli.help.page import child
    from pydamon.cli.help.place import is_group

    for word in words:
        try:
            _, ctx = child(ctx.command, ctx, word)
        except KeyError:
            wrong = f"has nothing below it that is called {word!r}"
            text = no_such_verb(ctx.command, ctx, word) if is_group(ctx.command) else wrong
            raise click.UsageError(text, ctx) from None
    return ctx
