"""``pydamon calibrate`` as it is typed, and its file in the hands of those that read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused

from pydamon.cli import main
from pydamon.run.calibration.calibrate import Calibration
from pydamon.spec.costs import TABLE, CostFile, Costs, Spread, load

SHORT = "hot, 1 MiB\ncold, 3 MiB\n\np\n3000\nhot, 0, 4096, 1\n"
FOUND = Calibration(
    measured={
        "minor_fault_ns": Spread(value=612, low=580, high=900, samples=40),
        "zram_in_ns": Spread(value=6100, low=5900, high=9000, samples=30),
    },
    left={row.name: "it is of the program" for row in TABLE if row.name not in ("minor_fault_ns", "zram_in_ns")},
    machine='A "CPU", 2 CPUs, Linux 6.18, 2026-11-26',
    memory=64 << 20,
    directory="/var/tmp",
    took_ns=2_100_000_000,
)
FILE = CostFile(
    costs=Costs(minor_fault_ns=612, zram_in_ns=6100),
    measured=FOUND.measured,
    machine='A "CPU", 2 CPUs, Linux 6.18, 2026-11-26',
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if that had been measured."""
    monkeypatch.setattr("pydamon.run.calibration.calibrate.calibrate", lambda **options: FOUND)


def test_it_measures_here_and_others_take_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.yaml"
    assert main(["calibrate", "--quick", "--memory", "32MiB", "-o", str(costs)]) == 0
    shown, said = capsys.readouterr()
    assert "minor_fault_ns" in shown
    assert "not measured, so that the default stays:" in shown
    assert said.startswith(f"pydamon: wrote {costs}: ")
    file = load(costs.read_bytes())
    assert file.measured["minor_fault_ns"].value == file.costs.minor_fault_ns
    assert os.uname().release in file.machine
    workload = tmp_path / "w.cfg"
    workload.write_text(SHORT)
    assert main(["simulate", str(workload), "--costs", str(costs)]) == 0


@pytest.mark.usefixtures("found")
def test_text_says_what_was_measured_and_why_the_rest_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith('A "CPU", 2 CPUs, Linux 6.18, 2026-11-26, measured\n2.1 s, on 64.0 MiB of memory')
    row = next(line for line in shown.splitlines() if line.startswith("zram_in_ns"))
    assert row.split()[1:8] == ["6,100", "5,900", "-", "9,000", "30", "8,000", "an"]
    assert shown.count("it is of the program") == 1  # all of them in one line


@pytest.mark.usefixtures("found")
def test_json_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["costs"]["minor_fault_ns"] == {"value": 612, "low": 580, "high": 900, "samples": 40, "default": 500}
    assert told["not_measured"]["mark_ns"] == {"default": 100, "why": "it is of the program"}
    for name in ("costs.json", "costs.yaml"):
        assert main(["calibrate", "-o", str(tmp_path / name)]) == 0
        file = load((tmp_path / name).read_bytes())
        assert file == FILE
    assert (tmp_path / "costs.yaml").stat().st_mode & 0o777 == 0o644
    capsys.readouterr()
    assert main(["calibrate", "-o", "-"]) == 0
    assert load(capsys.readouterr().out) == FILE


@pytest.mark.usefixtures("found")
def test_a_file_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.yaml"
    costs.write_text("mine")
    assert f"-o: {costs} is there already; --force replaces it" in refused(capsys, "calibrate", "-o", str(costs))
    assert costs.read_text() == "mine"
    assert main(["calibrate", "-o", str(costs), "--force"]) == 0
    assert load(costs.read_bytes()) == FILE


@pytest.mark.usefixtures("found")
def test_a_pipe_stays_one_and_gets_the_file(tmp_path: Path) -> None:
    pipe = tmp_path / "costs.yaml"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert main(["calibrate", "-o", str(pipe)]) == 0
        assert pipe.is_fifo()
        assert load(os.read(reader, 1 << 16)) == FILE
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "1MiB"], "--memory: is 1.0 MiB; it must be 16.0 MiB to 2.0 GiB"),
        (["--memory", "many"], "--memory"),
        (["--directory", "/nope"], "--directory: '/nope' is no directory"),
        (["-o", "/nope/costs.yaml"], "-o: cannot write /nope/costs.yaml: there is no directory /nope"),
        (["--json", "-o", "-"], "-o: - and --json both go to standard output"),
        (["1234"], "1234"),
    ],
)
def test_what_is_wrong(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "calibrate", *options)
    assert words in told
