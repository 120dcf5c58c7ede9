"""Each command line in README and docs is one that pydamon understands: verbs, options, values, all of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from pydamon.cli.command import pydamon as group
from pydamon.cli.help.page import child

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Where a reader puts a word of his own, or what a shell does before pydamon sees it.
_PATTERN = re.compile(r"…|\.\.\.|\[[A-Z-]|\|$|\$\(|\b(?:VERB|OPTIONS|REPORT|TEXT|SHELL|NAME|DIR|FORMAT)\b")
_TALKS = ("command", "doctor", "top")  # pages that show what pydamon says without a prompt before the command


def code(page: Path) -> list[str]:
    """The lines of its blocks of code, with those that go on in the next line put together."""
    found, fenced = [], False
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            found.append(line)
    return found


def examples(page: Path) -> list[str]:
    """The command lines, without comments, pipes and what a shell does with the output; none that shows an error."""
    found = []
    lines = code(page)
    for line, answer in zip(lines, [*lines, ""][1:], strict=False):
        match = re.match(r"\s*(?:\$ )?(?:sudo )?(?:[A-Z_]+=\S+ )*pydamon (.*)", line)
        if match is None or answer.startswith("pydamon") or (line.startswith("pydamon") and page.stem in _TALKS):
            continue
        try:
            words = shlex.split(match[1], comments=True)
        except ValueError:
            continue  # an apostrophe of English, or a command that goes on in the next line
        for stop in ("|", "&&", "&", ">", ";", "2>", "2>&1"):
            if stop in words:
                words = words[: words.index(stop)]
        if not _PATTERN.search(" ".join(words)):
            found.append(shlex.join(words))
    return found


EXAMPLES = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in dict.fromkeys(examples(page))
]


def test_they_are_found() -> None:
    lines = [example.values[0] for example in EXAMPLES]
    assert len(lines) > 60
    assert "report run.damon" in lines


@pytest.mark.parametrize("line", EXAMPLES)
def test_it_is_understood(line: str) -> None:
    words = shlex.split(line)
    if not words or words[0].startswith("-"):
        group.make_context("pydamon", words, resilient_parsing=True)
        return
    command: click.Command = group
    context = click.Context(group, info_name="pydamon")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    if words and words[0] in ("cut", "merge", "aggregate"):
        command, context = child(command, context, words.pop(0))
    command.make_context(context.info_name, words, parent=context.parent)  # raises UsageError for what is wrong
