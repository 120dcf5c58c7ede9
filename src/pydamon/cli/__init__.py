"""The ``pydamon`` command: ``--help`` needs no library, and a verb is imported only when it is used."""

from __future__ import annotations

import sys

from pydamon import lean

TYPE_CHECKING = False  # typing's own takes longer to import than --help to answer
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line ``args`` (default: the process's); returns the exit status, prints errors as one line."""
    arguments = sys.argv[1:] if args is None else list(args)
    lean.keep_standard_files()
    if arguments in (["--help"], ["-h"]):
        from pydamon.cli import verbs
        from pydamon.cli.help.layout import help_width

        try:
            print(verbs.help_text(help_width()), end="", flush=True)
            return 0
        except (OSError, ValueError):
            pass  # the long way knows what to say about that
    from pydamon.cli.command import run

    return run(arguments)
