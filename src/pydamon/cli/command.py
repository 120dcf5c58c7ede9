"""The ``pydamon`` command for click: a verb is imported only when it is used, and errors become one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from pydamon import messages
from pydamon.cli import verbs
from pydamon.cli.config import origin, with_defaults
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.help.layout import help_width
from pydamon.errors import PydamonError
from pydamon.linux.causes import about, cause
from pydamon.version import __version__


class _Verbs(VerbGroup):
    """The verbs: a group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(verbs.VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in verbs.VERBS:
            return None
        command: click.Command = importlib.import_module(verbs.VERBS[cmd_name][0]).command
        return command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(verbs.help_text(help_width()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": list(verbs.HELP_OPTIONS)},
    subcommand_metavar=verbs.USAGE,
    help=verbs.ABOUT,
)
@click.version_option(__version__, prog_name="pydamon", message="%(prog)s %(version)s")
@click.option("--no-config", is_flag=True, expose_value=False, help=verbs.OPTIONS["--no-config"])
def pydamon() -> None:
    """Everything else is a verb's."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line ``arguments``; returns the exit status, prints errors as one line."""
    context = None
    try:
        # Not click's own main(): that would turn a closed pipe into exit status 1.
        words, defaults = with_defaults(pydamon, arguments)
        with pydamon.make_context("pydamon", words, default_map=defaults) as context:
            pydamon.invoke(context)
        if sys.stdout is not None:  # it was closed
            with about("standard output"):
                sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        # Called without anything to do: show how, as click does.
        for line in error.ctx.get_help().split("\n") if error.ctx else ():
            messages.tell(line)
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "pydamon"
        text = _one_line(_message(error))
        return _fail(f"{path}: {text}{_origin(text, arguments)} (see {path} --help)", 2)
    except click.ClickException as error:
        return _fail(f"pydamon: {_one_line(error.format_message())}", error.exit_code)
    except PydamonError as error:
        if context is not None:
            from pydamon.cli.options import name_options

            name_options(error, context)
        text = _one_line(str(error))
        return _fail(f"pydamon: {text}{_origin(text, arguments)}", error.exit_status)
    except BrokenPipeError:
        _discard_stdout()  # the reader has seen enough
        return 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    except OSError as error:
        if os.environ.get("PYDAMON_DEBUG"):
            raise
        _discard_stdout()
        where = error.filename if isinstance(error.filename, str) else "input or output"
        return _fail(f"pydamon: {where}: {cause(error, '')}", 1)
    except Exception as error:
        if os.environ.get("PYDAMON_DEBUG"):
            raise
        kind = type(error).__name__
        return _fail(f"pydamon: internal error: {kind}: {_one_line(str(error))} (PYDAMON_DEBUG=1 shows where)", 1)


def _origin(text: str, arguments: Sequence[str]) -> str:
    try:
        return origin(text, arguments)
    except PydamonError:
        return ""  # that is the message


def _message(error: click.UsageError) -> str:
    if not isinstance(error, click.NoSuchOption):
        return error.format_message().removesuffix(".")
    from pydamon.cli.help.nearest import no_such_option

    return no_such_option(error)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(line: str, status: int) -> int:
    messages.tell(line)
    return status


def _discard_stdout() -> None:
    """Give the interpreter somewhere to flush to at exit, so that it does not complain a second time."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
