"""What may stand where, as the scripts for shells are told it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click
import pytest

from pydamon.cli import main
from pydamon.cli.command import pydamon as group
from pydamon.cli.completion import values
from pydamon.cli.completion.words import answer
from pydamon.cli.verbs import VERBS

ROOT = click.Context(group, info_name="pydamon")


def words(line: str, shell: str = "bash") -> list[str]:
    """What may stand at the end of ``line``: words, or what kind of them."""
    typed = shlex.split(line) + ([""] if line.endswith(" ") else [])
    found = answer(ROOT, shell, typed, len(typed) - 1)
    return [row.value if row.kind == "word" else f"<{row.kind}>" + row.value for row in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pydamon re", ["record", "report"]),
        ("pydamon report di", ["diff", "<records>"]),
        ("pydamon report -i run.damon he", ["heatmap", "<records>"]),
        ("pydamon report diff ", ["<records>"]),
        ("pydamon report diff a.damon ", ["<records>"]),
        ("pydamon record merge a b ", ["<records>"]),
        ("pydamon record cut --fr", ["--from"]),
        ("pydamon record --access ", ["any", "write"]),
        ("pydamon record -o ", ["<files>"]),
        ("pydamon record -ox --keep 3 --access w", ["write"]),
        ("pydamon record --dry-run --dry", []),  # it is there already
        ("pydamon record --scheme x --sche", ["--schemes", "--scheme"]),  # this one may be repeated
        ("pydamon record --access any -- ls ", ["<command>5"]),
        ("pydamon report -- ", []),
        ("pydamon import ", ["<files>"]),
        ("pydamon export ", ["<records>"]),
        ("pydamon help report ws", ["wss"]),
        ("pydamon help sch", ["schemes"]),
        ("pydamon help schemes sh", ["show"]),
        ("pydamon schemes check ", ["<files>"]),
        ("pydamon workload st", ["stairs", "<files>"]),
        ("pydamon record --workload zi", ["zigzag", "<files>"]),
        ("pydamon report only", ["<records>"]),
        ("pydamon report wss ", ["<records>"]),
        ("pydamon trace -i ", ["<records>"]),
        ("pydamon nothing like ", []),
        ("perf-damon ", ["record", "report", "start", "status", "stop", "tune"]),
        ("/usr/bin/perf-damon record --access w", ["write"]),
    ],
)
def test_what_may_follow(line: str, expected: list[str]) -> None:
    assert words(line) == expected


def test_each_verb_is_offered() -> None:
    assert words("pydamon ") == [*VERBS]


@pytest.mark.parametrize("typed", [["--by", "=", "hot"], ["--by=hot"], ["--by", "hot"]])
def test_bash_takes_an_option_with_its_value_for_three_words(typed: list[str]) -> None:
    line = ["pydamon", "report", "access", *typed]
    assert [row.value for row in answer(ROOT, "bash", line, len(line) - 1)] == ["hottest"]
    line += ["--to"]
    assert [row.value for row in answer(ROOT, "bash", line, len(line) - 1)] == ["--top"]


def test_other_shells_take_them_for_one() -> None:
    assert words("pydamon report access --by=hot", "zsh") == ["--by=hottest"]


def test_processes_are_offered_by_pid_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, name = str(os.getppid()), Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    if not values._PLAIN.fullmatch(name):
        pytest.skip("the parent process has a name that needs quotes")
    assert parent in words(f"pydamon record {parent}")
    assert name in words(f"pydamon record {name}")
    assert str(os.getpid()) not in words(f"pydamon record {os.getpid()}")
    monkeypatch.setattr(values, "_PLAIN", re.compile("nobody's"))  # as if all names were hostile
    assert words("pydamon record ") == ["cut", "merge", "aggregate"]


@pytest.mark.parametrize("name", ["$(reboot)", "a b", "-x", "x\ty", "`id`", "a;b", "*", "'", ""])
def test_a_name_that_a_shell_would_read_is_not_offered(name: str) -> None:
    assert not values._PLAIN.fullmatch(name)


def test_names_of_what_runs_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydamon.service import client

    monkeypatch.setattr(client, "running", lambda: ["0", "web", "a b"])
    for verb in ("stop", "tune", "status"):
        assert words(f"pydamon {verb} ") == ["0", "web"]


def test_an_answer_is_printed_by_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh", "--at", "1", "--", "pydamon", "tun"]) == 0
    assert capsys.readouterr().out == "word\ttune\tChange what runs in the background.\n"
    assert main(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


def test_the_shell_of_the_user_is_the_one_that_is_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert main(["completion"]) == 0
    assert capsys.readouterr().out.startswith("#compdef pydamon")
    monkeypatch.setenv("SHELL", "/bin/csh")
    assert main(["completion"]) == 2
    assert capsys.readouterr().err == "pydamon: SHELL: say which one: bash, zsh, fish\n"
