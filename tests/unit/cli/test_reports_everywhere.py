"""What holds for every report: plain pipes, narrow terminals, windows, records with nothing in them, damaged ones."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.unit.cli.report_helpers import plain, report
from tests.unit.cli.rich_record import HEAP, MIB, rich
from tests.unit.records.record_samples import snapshot, write

from pydamon.cli import main

# Each report with options that bring out all it has.
REPORTS = {
    "access": [],
    "boxes": ["--view", "boxes", "--by", "temperature"],
    "heatmap": [],
    "wss": [],
    "wss over time": ["--over", "time"],
    "regions": [],
    "raw": [],
    "recency": [],
    "rates": ["--rate", "--whole"],
    "temperature": ["--whole"],
    "idle": [],
    "footprint": [],
    "bandwidth": [],
    "cost": [],
    "files": ["--all"],
    "schemes": [],
    "tried": ["--tried"],
    "attrs": [],
    "diff": ["r"],
    "diff by mapping": ["r", "--by", "mapping"],
    "info": [],
}
VERBS = {"boxes": "access", "wss over time": "wss", "rates": "recency", "tried": "schemes", "diff by mapping": "diff"}
WINDOWED = [name for name in REPORTS if name not in ("access", "boxes", "info")]


def _arguments(name: str, path: str) -> list[str]:
    verb = VERBS.get(name, name)
    return [verb, path, *REPORTS[name]] if verb == "diff" else [verb, "-i", path, *REPORTS[name]]


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rich(Path("r"))


@pytest.mark.parametrize("name", REPORTS)
def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, err = report(capsys, *_arguments(name, "r"))
    assert (status, err) == (0, "")
    assert out.endswith("\n")
    assert "\x1b" not in out


@pytest.mark.parametrize("name", REPORTS)
def test_json_is_json(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, err = report(capsys, *_arguments(name, "r"), "--json")
    assert (status, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()]
    assert "NaN" not in out


class _Terminal(io.StringIO):
    """A terminal, as far as a report can tell. (`on_terminal` has a real one, and takes half a second.)"""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", [name for name in REPORTS if name not in ("regions", "raw")])
def test_a_terminal_of_20_columns_is_not_exceeded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Not so the raw regions, which are for programs."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for variable, value in (("COLUMNS", "20"), ("LINES", "24"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["report", *_arguments(name, "r")]) == 0
    lines = plain(terminal.getvalue()).splitlines()
    assert 0 < max(len(line) for line in lines) <= 20


@pytest.mark.parametrize("name", REPORTS)
def test_ascii_will_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert main(["report", *_arguments(name, "r")]) == 0
    assert written.getvalue().decode("ascii")


@pytest.mark.parametrize("name", REPORTS)
def test_a_record_without_snapshots(capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(Path("r"), [])
    status, out, err = report(capsys, *_arguments(name, "r"))
    if name == "info":
        assert (status, err) == (0, "")
    else:
        assert (status, out) == (1, "")
        assert err.count("\n") == 1


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("what", ["empty", "directory", "text", "missing"])
def test_what_is_no_record(capsys: pytest.CaptureFixture[str], name: str, what: str) -> None:
    Path("empty").touch()
    Path("directory").mkdir()
    Path("text").write_text("hello\n")
    status, out, err = report(capsys, *_arguments(name, what))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f"pydamon: {what}: " in err


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_may_be_anywhere(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A window with something in it gives an answer, one beside everything one line."""
    for window in (["--from", "1s"], ["--to", "1.05s"], ["--from", "-1s", "--to", "-100ms"]):
        assert report(capsys, *_arguments(name, "r"), *window)[0] == 0
    assert report(capsys, *_arguments(name, "r"), "--address", f"{HEAP + 1:#x}-{HEAP + MIB:#x}")[0] == 0
    status, out, err = report(capsys, *_arguments(name, "r"), "--from", "2s", "--to", "1s")
    assert (status, out, err) == (2, "", "pydamon: --from: is not before --to\n")
    status, out, err = report(capsys, *_arguments(name, "r"), "--from", "1h")
    assert (status in (1, 2), out, err.count("\n")) == (True, "", 1)


@pytest.mark.parametrize("name", REPORTS)
def test_another_target_than_there_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, err = report(capsys, *_arguments(name, "r"), "--target", "5")
    if name in ("info", "cost", "schemes", "tried"):
        assert (status, err) == (0, "")  # which are about the recording
    else:
        assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("name", REPORTS)
def test_one_snapshot_of_one_region(capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(Path("r"), [snapshot(0, [(0, 1, 20, 0)])])
    status, out, err = report(capsys, *_arguments(name, "r"))
    assert status == (1 if name in ("cost", "schemes", "tried", "attrs") else 2 if name == "diff by mapping" else 0)
    assert (out != "", err != "") == (status == 0, status != 0)


@pytest.mark.parametrize("name", REPORTS)
def test_the_ends_of_all_numbers(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The whole address space, the latest of times, the oldest of ages."""
    last = 2**64 - 1
    one = snapshot(0, [(0, 1 << 63, 0, 2**32 - 1), (1 << 63, last, 20, 2**32 - 1)])
    late = snapshot(90_000_000_000, [(0, last, 20, 2**32 - 1)])
    write(Path("r"), [one, late])
    for form in ([], ["--json"]):
        status, _, err = report(capsys, *_arguments(name, "r"), *form)
        assert status in (0, 1, 2), err
        assert "internal error" not in err
        assert (status == 0) == (err == "")


def test_a_heatmap_of_one_pixel(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, [(0, 1, 10, 0)])])
    found = json.loads(report(capsys, "heatmap", "-i", "r", "--json", "--range", "0-1", "--to", "1ns")[1])
    assert found["address"] == [0, 1]
    assert found["heat"] == [[0.5]]


@pytest.mark.parametrize("name", ["heatmap", "regions", "idle"])
@pytest.mark.usefixtures("processes")
def test_a_closed_pipe_ends_quietly(name: str) -> None:
    command = [*PYDAMON, "report", *_arguments(name, "r")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 0)


def _answer(capsys: pytest.CaptureFixture[str], name: str, path: str) -> None:
    """Whatever the file holds: an answer, with lines about what was left out, or one line."""
    status, out, err = report(capsys, *_arguments(name, path))
    assert status in (0, 1, 2), err
    assert "internal error" not in err, err
    assert "Traceback" not in err
    lines = err.splitlines()
    assert all(line.startswith("pydamon: ") for line in lines)
    if status:
        assert lines
        assert name in ("regions", "raw") or out == ""


@pytest.mark.parametrize("name", REPORTS)
def test_cut_off_anywhere(capsys: pytest.CaptureFixture[str], name: str) -> None:
    rng = random.Random(name)
    data = rich(Path("sound"), seconds=1).read_bytes()
    for _ in range(12):
        Path("r").write_bytes(data[: rng.randrange(len(data))])
        _answer(capsys, name, "r")


@pytest.mark.parametrize("name", REPORTS)
def test_flipped_bits_anywhere(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Also in the side tables, whose text is compressed: a flip there is found, or harmless."""
    rng = random.Random(name)
    data = rich(Path("sound"), seconds=1).read_bytes()
    for flips in [1] * 15 + [20] * 5:
        damaged = bytearray(data)
        for _ in range(flips):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        Path("r").write_bytes(damaged)
        _answer(capsys, name, "r")
