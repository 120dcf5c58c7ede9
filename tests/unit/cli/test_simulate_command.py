"""``pydamon simulate`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused

from pydamon.cli import main

SHORT = "hot, 1 MiB\ncold, 3 MiB\n\np\n3000\nhot, 0, 4096, 1\n\nquiet\n1000\nhot, 0, 4096, 0\n"
COLD = "pageout rate=0% age>=1s"


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "short.cfg"
    path.write_text(SHORT)
    return str(path)


def test_policies_side_by_side(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemes = tmp_path / "later.txt"
    schemes.write_text("pageout rate=0% age>=2s\n")
    assert main(["simulate", workload, "--scheme", COLD, "--schemes", str(schemes), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["label"] for run in runs] == ["no policy", "later.txt", COLD]
    assert 0 == runs[0]["saved_bytes"] < runs[1]["saved_bytes"] < runs[2]["saved_bytes"]
    assert main(["simulate", workload, "--scheme", COLD]) == 0
    shown = capsys.readouterr().out
    assert "used" in shown
    assert COLD in shown
    assert "pswpout" in shown


def test_schemes_as_they_are_printed(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is taken where a short form is."""
    schemes = tmp_path / "cold.txt"
    schemes.write_text(COLD)
    assert main(["schemes", "show", str(schemes), "--format", "json"]) == 0
    text = capsys.readouterr().out
    runs = []
    for scheme in (COLD, text):
        assert main(["simulate", workload, "--scheme", scheme, "--json"]) == 0
        runs.append(json.loads(capsys.readouterr().out)["runs"][1])
    assert runs[0] == runs[1] | {"label": COLD}


def test_the_run_as_a_record_and_as_a_picture(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, picture = tmp_path / "x.damon", tmp_path / "x.svg"
    assert main(["simulate", workload, "--scheme", COLD, "-o", str(record)]) == 0
    assert main(["simulate", workload, "--scheme", COLD, "-o", str(picture)]) == 0
    capsys.readouterr()
    assert main(["report", "wss", "-i", str(record)]) == 0
    assert "working set" in capsys.readouterr().out
    assert picture.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--machine", "ram=1MiB swap=off"],
            "--machine: 4.0 MiB of workloads do not fit into 1.0 MiB of memory",
        ),
        (["--machine", "rom=1"], "--machine: 'rom=1' says nothing of a machine"),
        (["--machine", "/nope"], "pydamon: --machine /nope: cannot be read: No such file"),
        (["--machine", "files=x"], "--machine: no region is called 'x'; there are: hot, cold"),
        (["--scheme", "x"], "--scheme: 'x' is no action"),
        (["--module", "x"], "--module: 'x' is no module"),
        (["--repeat", "0"], "--repeat: 0 is for ever; give --duration, too"),
        (["--scheme", COLD, "--scheme", COLD, "-o", "x.damon"], "-o: a record holds one run; 2 policies were given"),
    ],
)
def test_what_is_wrong(workload: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "simulate", workload, *options)
    assert message in told
    assert told.count("\n") == 1


def test_nonsense_in_a_cost_file(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.yaml"
    costs.write_text("costs: {zram_in_ns: -3}\n")
    told = refused(capsys, "simulate", workload, "--costs", str(costs))
    assert f"--costs {costs}: costs.zram_in_ns: is -3; it must be 0 to 1000000000" in told
    told = refused(capsys, "simulate", "lackey:/nope")
    assert "lackey: /nope: cannot be read: No such file or directory" in told
