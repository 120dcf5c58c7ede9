"""The ``pydamon`` command: a verb is imported only when it is used."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from pydamon import lean, messages
from pydamon.errors import PydamonError
from pydamon.linux.causes import about, cause
from pydamon.version import __version__

# verb → (module that has `command`, help line); the help line stands here so that --help imports no verb.
_VERBS = {
    "doctor": ("pydamon.cli.doctor", "Show what this machine offers this user, and why not more."),
    "export": ("pydamon.cli.export", "Write a record in another tool's format."),
    "import": ("pydamon.cli.convert", "Make a record of another tool's file."),
    "mount": ("pydamon.cli.mount", "Serve DAMON's sysfs tree by the user engine, for programs written for it."),
    "record": ("pydamon.cli.record", "Monitor a process, a command or a simulated workload; write a record."),
    "report": ("pydamon.cli.report", "Show a record: access, heatmap, wss, idle, diff and more."),
    "schemes": ("pydamon.cli.schemes", "Check, explain and convert schemes (DAMOS)."),
    "start": ("pydamon.cli.start", "Monitor in the background."),
    "status": ("pydamon.cli.status", "Show what runs in the background."),
    "stop": ("pydamon.cli.stop", "End what runs in the background."),
    "trace": ("pydamon.cli.trace", "Print DAMON's trace events, live or of a record."),
    "tune": ("pydamon.cli.tune", "Change what runs in the background."),
    "workload": ("pydamon.cli.workload", "Run a known access pattern."),
}


class _Verbs(click.Group):
    """A click group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(_VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, _VERBS[verb][1]) for verb in self.list_commands(ctx)])


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB [OPTIONS] …",
    epilog="Exit status: 0 done, 1 the work failed, 2 the request was wrong, 3 the machine cannot do it.",
)
@click.version_option(__version__, prog_name="pydamon", message="%(prog)s %(version)s")
def pydamon() -> None:
    """Find out which memory is hot and which is cold, at an overhead that you bound."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line ``args`` (default: the process's); returns the exit status, prints errors as one line."""
    arguments = sys.argv[1:] if args is None else list(args)
    context = None
    lean.keep_standard_files()
    try:
        # Not click's own main(): that would turn a closed pipe into exit status 1.
        with pydamon.make_context("pydamon", arguments) as context:
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
        return _fail(f"{path}: {_one_line(error.format_message())} (see {path} --help)", 2)
    except click.ClickException as error:
        return _fail(f"pydamon: {_one_line(error.format_message())}", error.exit_code)
    except PydamonError as error:
        if context is not None:
            from pydamon.cli.options import name_options

            name_options(error, context)
        return _fail(f"pydamon: {_one_line(str(error))}", error.exit_status)
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


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(line: str, status: int) -> int:
    messages.tell(line)
    return status


def _discard_stdout() -> None:
    """Give the interpreter somewhere to flush to at exit, so that it does not complain a second time."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
