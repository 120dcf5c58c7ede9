"""The verbs of the command line, and what ``pydamon --help`` says: read before anything else is imported."""

from __future__ import annotations

import os
import sys

# verb → (module that has `command`, help line); the help line stands here so that --help imports no verb.
VERBS = {
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

ABOUT = "Find out which memory is hot and which is cold, at an overhead that you bound."
USAGE = "VERB [OPTIONS] …"
HELP_OPTIONS = ("-h", "--help")
_OPTIONS = {"--version": "Show the version and exit.", ", ".join(HELP_OPTIONS): "Show this message and exit."}
_STATUS = "Exit status: 0 done, 1 the work failed, 2 the request was wrong, 3 the machine cannot do it."

_NARROWEST, _WIDEST = 50, 78  # columns, as click has them for the verbs


def help_text(width: int) -> str:
    """What ``pydamon --help`` prints, in lines of at most ``width`` columns."""
    verbs = {verb: line for verb, (_, line) in VERBS.items()}
    parts = [
        f"Usage: pydamon [OPTIONS] {USAGE}",
        _folded(ABOUT, "  ", "  ", width),
        f"Options:\n{_listed(_OPTIONS, width)}",
        f"Verbs:\n{_listed(verbs, width)}",
        _folded(_STATUS, "  ", "  ", width),
    ]
    return "\n\n".join(parts) + "\n"


def help_width() -> int:
    """The columns that help may fill: what COLUMNS says, else those of the terminal, within bounds."""
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns <= 0:
        columns = _terminal_columns() or 80
    return max(min(columns - 2, _WIDEST), _NARROWEST)


def _terminal_columns() -> int:
    """0 without a terminal."""
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ is not None else 0
    except (OSError, ValueError):  # it is none, or closed
        return 0


def _listed(rows: dict[str, str], width: int) -> str:
    """A row for each name, the descriptions in a column of their own."""
    column = max(map(len, rows)) + 4
    return "\n".join(_folded(text, f"  {name}".ljust(column), " " * column, width) for name, text in rows.items())


def _folded(text: str, first: str, further: str, width: int) -> str:
    """``text`` in lines of at most ``width`` columns, which begin with ``first`` and then with ``further``."""
    lines, line, begins = [], first, True
    for word in text.split():
        if not begins and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, begins = further, True
        line += word if begins else f" {word}"
        begins = False
    return "\n".join([*lines, line])
