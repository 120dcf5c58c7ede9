"""``pydamon modules``: what is said of a module, also by a record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.records.record_samples import snapshot, write

from pydamon.cli import main


def explain(*words: str) -> int:
    return main(["modules", "explain", *words])


@pytest.fixture
def record(tmp_path: Path) -> str:
    path = tmp_path / "stairs"
    made = main(
        ["record", "--ops", "sim", "--workload", "stairs", "--duration", "100s", "--seed", "3", "-o", str(path)]
    )
    assert made == 0
    return str(path)


def test_explain_says_what_would_come_back(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    """stairs fills ten ranges of 10 MiB and uses each for 5 s: 90 MiB come back in 44 s, 123 MiB a minute."""
    capsys.readouterr()
    assert explain("--ops", "sim", "reclaim min_age=5s watermarks=off", "-i", record) == 0
    told = capsys.readouterr()
    assert told.out.startswith("reclaim min_age=5s ")
    found = re.search(r"reclaim: about ([\d.]+) MiB a minute would come back ± ([\d.]+) MiB \(\d+ returns", told.err)
    assert found is not None
    rate, error = map(float, found.groups())
    assert abs(rate - 90 / 44 * 60) <= error
    assert "reclaim: it would thrash: at least " in told.err


def test_without_a_page_panel_the_reason_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "r", [snapshot(0, [(0x1000, 0x2000, 0, 3)])])
    assert explain("reclaim", "-i", str(path)) == 1
    message = capsys.readouterr().err
    assert "has no page panel, which tells what would come back: " in message


def test_a_record_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("reclaim", "-i", str(tmp_path / "none")) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_what_pages_nothing_out_brings_nothing_back(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert explain("--ops", "sim", "lru_sort", "-i", record) == 0
    assert "come back" not in capsys.readouterr().err
