"""``pydamon record --rotate … --keep …``, and its parts read as one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import report

from pydamon.cli import main

SIMULATED = ["record", "--ops", "sim", "--workload", "stairs", "--duration", "5s"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_parts_of_a_second_read_like_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed: the same recording in one file and in five parts."""
    assert main([*SIMULATED, "-o", "whole.damon"]) == 0
    assert main([*SIMULATED, "-o", "run.damon", "--rotate", "1s"]) == 0
    capsys.readouterr()
    assert sorted(os.listdir()) == [*(f"run.{number:04d}.damon" for number in range(1, 6)), "whole.damon"]
    for verb in ("regions", "heatmap", "wss", "idle", "access"):
        status, out, err = report(capsys, verb, "--json", "-i", "run.*.damon")
        assert (status, err) == (0, "")
        assert out == report(capsys, verb, "--json", "-i", "whole.damon")[1]


def test_only_the_last_parts_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATED, "-o", "run.damon", "--rotate", "1s", "--keep", "2"]) == 0
    capsys.readouterr()
    assert sorted(os.listdir()) == ["run.0004.damon", "run.0005.damon"]
    found = json.loads(report(capsys, "info", "--json", "-i", "run.*.damon")[1])
    assert found["end_ns"] - found["start_ns"] == 2 * 10**9


def test_parts_can_be_merged_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATED, "-o", "run.damon", "--rotate", "1s"]) == 0
    assert main(["record", "cut", "-i", "run.*.damon", "-o", "part.damon", "--from", "500ms", "--to", "2.5s"]) == 0
    capsys.readouterr()
    shown = report(capsys, "regions", "--json", "-i", "run.*.damon", "--from", "500ms", "--to", "2.5s")[1]
    assert report(capsys, "regions", "--json", "-i", "part.damon")[1] == shown
    status = main(["record", "cut", "-i", "run.*.damon", "-o", "run.0003.damon"])
    assert (status, capsys.readouterr().err) == (2, "pydamon: -o: run.0003.damon is being read; choose another name\n")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--keep", "2"], "--keep"),
        (["--rotate", "soon"], "--rotate"),
        (["--rotate", "1K"], "--rotate"),
        (["--rotate", "1ms"], "--rotate"),
    ],
)
def test_bad_requests(capsys: pytest.CaptureFixture[str], options: list[str], field: str) -> None:
    assert main([*SIMULATED, "-o", "run.damon", *options]) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), f"{field}: " in err) == (1, True)
    assert os.listdir() == []
