"""The pages of the manual, in the language of man(7): one for ``pydamon`` and for each verb and report."""

from __future__ import annotations

import os
import re
import time

import click

from pydamon.cli import verbs
from pydamon.cli.help.page import Page, walk
from pydamon.cli.render.output import write_public
from pydamon.version import __version__

_OPTION = re.compile(r"(?<![\w\\-])((?:\\-){1,2}[a-z](?:\w|\\-)*)")  # in an escaped text
_FILES = (
    ("~/.config/pydamon/config.toml", "Defaults for the options of verbs; see docs/config.md."),
    ("pydamon.damon", "The record that is written and read where none is named."),
)
_ENVIRONMENT = (
    (
        "PYDAMON_OPTS",
        "Options that are put before those of the command line, by verb: 'record --max-cpu 1%; report --json'.",
    ),
    ("NO_COLOR", "If it is set, no colours on a terminal."),
    ("COLUMNS", "How wide help and reports are, where the terminal does not say it, or something else is wanted."),
    ("PYDAMON_DEBUG", "If it is set, an internal error shows where it happened."),
)
_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "…": "...", "^": "\\(ha", "~": "\\(ti", "'": "\\(aq", "`": "\\(ga"})


def pages(root: click.Context) -> dict[str, str]:
    """The name of each file, and what is in it."""
    found = walk(root.command, root)
    titles = [page.title for page in found]
    return {f"{page.title}.1": _text(page, titles) for page in found}


def write_pages(root: click.Context, directory: str) -> None:
    """Write them into ``directory``, which is made where it is missing. Raises OSError, PydamonError."""
    os.makedirs(directory, exist_ok=True)
    for name, text in pages(root).items():
        write_public(os.path.join(directory, name), text)


def _text(page: Page, titles: list[str]) -> str:
    lines = [
        f'.TH {page.title.upper()} 1 {_date()} "pydamon {__version__}" "User Commands"',
        ".SH NAME",
        f"{page.title} \\- {_plain(_lower(page.summary or verbs.ABOUT))}",
        ".SH SYNOPSIS",
        _synopsis(page),
        ".SH DESCRIPTION",
        *_between([_running(paragraph) for paragraph in page.about], ".PP"),
    ]
    if page.below:
        lines += [".SH VERBS" if not page.words else ".SH BELOW IT", *_rows(page.below)]
    lines.append(".SH OPTIONS")
    single = len(page.groups) == 1
    for title, rows in page.groups:
        lines += [*([] if single else [f".SS {_plain(title)}"]), *_rows(rows)]
    lines.append(".SH EXAMPLES")
    for command, what in page.examples:
        lines += [".TP", _running(_upper(what) + ":"), f"\\fB{_plain(command)}\\fR"]
    lines += [".SH EXIT STATUS", _running(verbs.STATUS.partition(": ")[2])]
    if not page.words:
        lines += [".SH ENVIRONMENT", *_rows(list(_ENVIRONMENT)), ".SH FILES", *_rows(list(_FILES))]
    lines += [".SH SEE ALSO", _see_also(page, titles)]
    return "\n".join(lines) + "\n"


def _date() -> str:
    """The day on which the pages are made, or what the build says it is."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%d", time.gmtime(int(said) if said.isascii() and said.isdigit() else time.time()))


def _synopsis(page: Page) -> str:
    name = " ".join(("pydamon", *page.words))
    return f"\\fB{_plain(name)}\\fR {_plain(page.usage.removeprefix(name).strip())}"


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    lines = []
    for name, text in rows:
        lines += [".TP", f"\\fB{_plain(name)}\\fR", _running(text) if text else "\\&"]
    return lines


def _between(lines: list[str], separator: str) -> list[str]:
    return [part for line in lines for part in (separator, line)][1:]


def _see_also(page: Page, titles: list[str]) -> str:
    """What is above and below the page."""
    mine = page.title
    above = [title for title in titles if mine.startswith(f"{title}-")]
    below = [title for title in titles if title.startswith(f"{mine}-") and "-" not in title[len(mine) + 1 :]]
    beside = [title for title in ("pydamon-report", "pydamon-record", "pydamon-doctor") if title != mine]
    shown = dict.fromkeys([*above, *below] if above or below else beside)
    return ",\n".join(f".BR {_plain(title)} (1)" for title in shown).replace(",\n", " ,\n")


def _running(text: str) -> str:
    """A paragraph: options in bold."""
    return _OPTION.sub(r"\\fB\1\\fR", _plain(text))


def _plain(text: str) -> str:
    """The text, with nothing in it that the language would read."""
    escaped = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    escaped = escaped.replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _lower(text: str) -> str:
    """A sentence, as a part of another."""
    first = text.split(" ", 1)[0]
    return (text if first.isupper() or first.endswith("'s") else text[:1].lower() + text[1:]).rstrip(".")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
