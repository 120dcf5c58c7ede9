"""``pydamon top``: what does not go together, and where there is no screen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.top.seen_one import METADATA, store

from pydamon.cli import main
from pydamon.cli import top as verb
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter
from pydamon.top import order
from pydamon.top.writing import write_history


@pytest.fixture(name="record")
def record_fixture(tmp_path: Path) -> str:
    """A record of 90 s."""
    path = str(tmp_path / "a.damon")
    write_history(path, METADATA, store(90, 0))
    return path


class Terminal:
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing was written."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "3"], "times: goes with --batch"),
        (["-d", "3s"], "delay: goes with --batch"),
        (["--json"], "json: goes with --batch"),
        (["-b", "1", "-i", "x"], "input: does not go with PID or NAME; give one of them"),
        (["-b", "--cgroup", "x", "-i", "x"], "input: does not go with cgroup; give one of them"),
        (["-b", "-i", "x", "--filter", "y"], "filter: is for the list of all processes; it does not go with input"),
        (["-b", "--uid", "no-such-user"], "there is no user 'no-such-user'; give a name or a number"),
        (["-b", "-i", "no-such-file"], "no-such-file: there is no such file"),
        (["-b", "no-such-kdamond"], "no-such-kdamond: no kdamond has this name"),
        (["-b", "99999999"], "no process has the id 99999999"),
        (["-b", "--sort", "colour"], "colour"),
        (["-b", "-n", "0"], "0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["top", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1 or "Try" in err or "Usage" in err


def test_without_a_terminal_it_says_what_prints(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["top"]) == 2
    assert "is no terminal; -b prints instead" in capfd.readouterr().err


def on_terminal(monkeypatch: pytest.MonkeyPatch, term: str = "xterm") -> None:
    """Standard input and output are terminals, for those who ask."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", term)


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_can_show_no_screen_is_told_so(
    term: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch, term)
    assert main(["top"]) == 2
    assert "cannot show a screen; -b prints instead" in capfd.readouterr().err


def test_a_missing_library_is_named_with_what_installs_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["top"]) == 3
    assert capfd.readouterr().err == "pydamon: top: needs Textual: pip install 'pydamon[top]'\n"


def test_the_columns_to_sort_by_are_those_of_the_list() -> None:
    assert set(verb._SORTS) == {column.name for column in order.COLUMNS}


def test_a_record_is_printed_as_its_last_moment(record: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "-b", "-i", record]) == 0
    out = capfd.readouterr().out
    assert out.startswith("4000 x\n88.0M resident · used in 10 s 17.6M ± 2.1M")
    assert "\x1b" not in out
    assert main(["top", "-b", "-i", record, "--json", "-n", "2", "-d", "1ms"]) == 0
    told: list[dict[str, Any]] = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(told) == 2
    assert told[0]["targets"][0]["resident_bytes"] == 88 << 20
    assert told[0]["schemes"][0]["stats"]["sz_applied_bytes"] == 5 << 20


def test_a_record_without_snapshots_is_said_to_have_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "empty.damon")
    RecordWriter(path, metadata=build_metadata(**METADATA)).close()
    assert main(["top", "-b", "-i", path]) == 2
    assert capfd.readouterr().err == f"pydamon: {path}: has no snapshots\n"


@pytest.mark.usefixtures("processes")
def test_printing_imports_no_terminal_library(record: str) -> None:
    code = "import sys; from pydamon.cli import main; main(sys.argv[1:]); print('textual' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "top", "-b", "-i", record], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ran.stdout.splitlines()[-1] == "False", ran.stderr
