"""Times in reports: what a window is labelled with, and that ticks are round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import on_terminal, plain, report, stairs
from tests.unit.records.record_samples import START_NS

from pydamon.cli.render.axes import time_ticks


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stairs(Path("pydamon.damon"))


@pytest.mark.usefixtures("processes")
def test_a_window_is_labelled_with_the_time_of_the_record() -> None:
    """The seconds 7 to 9, not 0 to 2."""
    for arguments in (["heatmap"], ["wss", "--over", "time"]):
        lines = plain(on_terminal(80, 24, *arguments, "--from", "7s", "--to", "9s")).splitlines()
        (axis,) = (line.split() for line in lines if line.strip().startswith("7 s"))
        assert (axis[:2], axis[-1]) == (["7", "s"], "9")


@pytest.mark.parametrize(("first", "span"), [(0, 10**10), (7 * 10**9, 2 * 10**9), (3 * 10**12 + 1, 10**7), (5, 3)])
def test_ticks_are_round_times_within_the_span(first: int, span: int) -> None:
    ticks, _ = time_ticks(span, 8, first)
    assert 1 <= len(ticks) <= 9
    assert first <= ticks[0][0] <= ticks[-1][0] <= first + span


def test_time_windows_of_heat_and_of_working_sets_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--from", "2s", "--to", "3s", "--json"]
    found = json.loads(report(capsys, "heatmap", *window)[1])
    assert (found["time_ns"][0], found["time_ns"][-1]) == (START_NS + 2 * 10**9, START_NS + 3 * 10**9)
    (sizes,) = json.loads(report(capsys, "wss", "--over", "time", *window)[1])["targets"]
    first, *_, last = sizes["snapshots"]
    assert (first["start_ns"], last["end_ns"]) == (START_NS + 2 * 10**9, START_NS + 3 * 10**9)
