"""Help and manual of each verb and report: whole, with examples, on any screen; and what was probably meant."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from tests.helpers.command import only_line, pydamon

from pydamon.cli import main, verbs
from pydamon.cli.command import pydamon as group
from pydamon.cli.help import man
from pydamon.cli.help.page import Page, walk
from pydamon.cli.help.text import shown

ROOT = click.Context(group, info_name="pydamon", help_option_names=["-h", "--help"])
PAGES = walk(group, ROOT)
NAMES = [page.title for page in PAGES]


def options_of(page: Page) -> set[str]:
    """All options in the rows of a page: ``-o, --output FILE`` has two."""
    names = [name for _, rows in page.groups for name, _ in rows]
    return {word for name in names for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", name)}


def page_of(*words: str) -> Page:
    (found,) = (page for page in PAGES if page.words == words)
    return found


def test_every_verb_and_every_report_has_a_page() -> None:
    assert {words[0] for page in PAGES if (words := page.words)} == set(verbs.VERBS)
    assert {"pydamon", "pydamon-record-merge", "pydamon-report-wss", "pydamon-schemes-check"} <= set(NAMES)


@pytest.mark.parametrize("width", [38, 78])
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_help_fits_the_screen_and_nothing_is_cut_off(page: Page, width: int) -> None:
    text = shown(page, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for option in options_of(page):
        assert option in text
    for _, rows in page.groups:
        for _, description in rows:
            assert " ".join(description.split()) in " ".join(text.split())


@pytest.mark.parametrize("page", PAGES[1:], ids=NAMES[1:])
def test_help_explains_each_option(page: Page) -> None:
    bare = [name for _, rows in page.groups for name, text in rows if not re.sub(r"\[.*?\]", "", text).strip()]
    assert bare == []


@pytest.mark.parametrize("page", PAGES[1:], ids=NAMES[1:])
def test_each_page_has_an_example_of_its_own(page: Page) -> None:
    assert any(
        command.replace('eval "$(', "").startswith(" ".join(("pydamon", *page.words))) for command, _ in page.examples
    )


@pytest.mark.parametrize("line", [line for page in PAGES for line, _ in page.examples], ids=lambda line: line[8:48])
def test_an_example_is_understood(line: str) -> None:
    line = line.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0]
    program, *words = shlex.split(line)
    assert program == "pydamon"
    command: click.Command = group
    context = ROOT
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, context = found, click.Context(found, parent=context, info_name=words.pop(0))
    parent = context.parent
    assert parent is not None
    command.make_context(context.info_name, words, parent=parent)  # raises UsageError for what is wrong


def test_help_by_name_says_what_the_option_says(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["record"], ["report", "wss"], ["record", "cut"], ["schemes", "explain"]):
        assert main(["help", *words]) == 0
        by_name = capsys.readouterr().out
        assert main([*words, "--help"]) == 0
        assert by_name == capsys.readouterr().out
        assert f"Usage: pydamon {' '.join(words)} " in by_name
    assert main(["help"]) == 0
    assert "Verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("recrod", "record"), ("reprot", "report"), ("wss", "report wss"), ("heatmap", "report heatmap"),
        ("1234", "record 1234"),
        ("show", "report"), ("attach 12", "record"), ("report ws", "wss"), ("report heat", "heatmap"),
        ("schemes explian x", "explain"), ("record --sampel 5ms 1", "--sample"),
        ("record --include-childern 1", "--include-children"),
        ("report access --sort size", "--by"), ("report wss --jsn", "--json"), ("record --timeout 3s 1", "--duration"),
        ("help recrod", "record"),
    ],
)  # fmt: skip
def test_what_was_probably_meant_is_said(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"; did you mean {meant}" in err


@pytest.mark.parametrize("typed", ["xyzzy", "report qqqq", "record --qqqq 1"])
def test_nothing_is_suggested_for_what_is_like_nothing(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["help record foo", "help foo", "help --man /nowhere record"])
@pytest.mark.usefixtures("processes")
def test_help_for_what_does_not_exist_is_one_line(typed: str) -> None:
    done = pydamon(*typed.split())
    assert done.returncode == 2
    assert only_line(done)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the manual."""
    directory = tmp_path_factory.mktemp("man")
    assert main(["help", "--man", str(directory)]) == 0
    return directory


class TestManual:
    def test_there_is_one_page_for_each(self, pages: Path) -> None:
        assert sorted(path.stem for path in pages.iterdir()) == sorted(NAMES)

    @pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
    @pytest.mark.usefixtures("processes")
    def test_mandoc_finds_no_mistake(self, pages: Path) -> None:
        found = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", *map(str, sorted(pages.iterdir()))], capture_output=True, text=True
        )
        assert (found.returncode, found.stdout) == (0, "")

    @pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
    @pytest.mark.usefixtures("processes")
    def test_man_shows_options_as_they_are_typed(self, pages: Path) -> None:
        env = os.environ | {"LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "80"}
        command = ["man", "--warnings", "-l", str(pages / "pydamon-record.1")]
        told = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        plain = re.sub(".\b|\x1b\\[[0-9;]*m", "", told.stdout)
        assert told.stderr == ""
        for option in options_of(page_of("record")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", plain), option
        assert "\\" not in plain.replace("\\\n", "")

    def test_nothing_in_a_text_is_read_as_a_request(self) -> None:
        assert man._plain(".so /etc/passwd") == "\\&.so /etc/passwd"
        assert man._plain("a\\b 'c' -d ~e") == "a\\eb \\(aqc\\(aq \\-d \\(tie"
