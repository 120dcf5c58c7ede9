"""``pydamon fleet policy`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.what_if_helpers import recorded, sweep

from pydamon.cli import main
from pydamon.service.declared.file import load

AGES = "reclaim min_age=5s..40s"


@pytest.fixture(scope="module", name="folder")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of two minutes, and a file that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    recorded(folder, sweep(120)).rename(folder / "one.damon")
    (folder / "bad.damon").write_bytes(b"nothing")
    return folder


def test_it_shows_and_writes_what_a_service_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy.yaml"
    words = ["fleet", "policy", str(folder), "--search", AGES, "--limit", "refaults=2MiB/s", "--play", "0"]
    assert main([*words, "--jobs", "1", "-o", str(output)]) == 0
    told = capsys.readouterr()
    assert "within refaults=2MiB/s on 95 % of the recordings" in told.out
    assert "bad.damon: " in told.err
    assert "one recording says nothing of other hosts" in told.err
    (monitor,) = load(str(output)).monitors
    assert monitor.modules == ("reclaim",)
    assert main([*words, "--jobs", "1", "--json"]) == 0
    (service,) = json.loads(capsys.readouterr().out)["services"]
    assert service["policy"] in output.read_text()
    assert 0 < service["rest"]["saved_bytes"] < service["memory_bytes"]


def test_without_a_setting_within_the_limits_the_status_is_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy.yaml"
    words = ["fleet", "policy", str(folder), "--search", "reclaim min_age=5s|6s", "--limit", "refaults=1B/s"]
    assert main([*words, "--jobs", "1", "--play", "0"]) == 1
    told = capsys.readouterr()
    assert "none within the limits" in told.out
    assert "1 of 1 services have no setting within the limits" in told.err
    assert main([*words, "--jobs", "1", "--play", "0", "-o", str(output)]) == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--search", "reclaim min_age=5s"], "--search: 'reclaim min_age=5s' has nothing to search for"),
        (["--search", AGES, "--limit", "speed=1%"], "--limit: 'speed' is no limit"),
        (["--search", AGES, "-o", "x.txt"], "-o: 'x.txt' must end in .yaml"),
        (["--search", AGES, "--share", "150%"], "must be above 0% and at most 100%"),
        (["--search", AGES, "--share", "0%"], "must be above 0% and at most 100%"),
        (["--search", AGES, "--jobs", "2", "--cluster", "tcp://127.0.0.1:1"], "--jobs: is of this machine"),
        (["--search", "reclaim min_age=20min..1h", "--jobs", "1"], "none of 2 recordings tells of any setting"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refused(capsys, "fleet", "policy", str(folder), *words)


def test_questions_of_an_object_store_are_refused_with_what_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    assert "s3://b/x: is an object store; questions and compaction read a directory" in refused(
        capsys, "fleet", "cold", "s3://b/x"
    )
