"""``pydamon report recency``, ``temperature`` and ``idle``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import MIB, rich
from tests.unit.records.record_samples import metadata, snapshot, write

from pydamon.records.writer import RecordWriter

NOMINAL = "; nominal ages"
RANGES = "; address ranges: this record does not say what was resident" + NOMINAL


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rich(Path("pydamon.damon"))


def _object(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    status, out, err = report(capsys, *args, "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert (found["target"], found["pid"]) == (0, 1234)
    return found


def test_idle_says_what_could_be_reclaimed(capsys: pytest.CaptureFixture[str]) -> None:
    """In the last snapshot two of the four MiB have had no access for 2.9 s."""
    status, out, err = report(capsys, "idle")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: last snapshot, vaddr by bpf
of 4.0 MiB of address ranges: this record does not say what was resident; idle: no access was found since; nominal ages
idle for         size   share
not accessed  2.0 MiB  50.0 %
>= 1 s        2.0 MiB  50.0 %
>= 2 s        2.0 MiB  50.0 %
>= 5 s: not known: the record is shorter
nothing has been idle for 10 s or more
"""
    )


def test_idle_over_all_snapshots_is_a_mean(capsys: pytest.CaptureFixture[str]) -> None:
    """Two idle MiB have an age of 1 s in 20 of 30 snapshots, of 2 s in 10; a third is not accessed half of the time.

    Of 3 s of a record nothing can be told of 5 s.
    """
    found = _object(capsys, "idle", "--whole")
    assert found["total_bytes"] == 4 * MIB
    sizes = {row["idle_at_least_s"]: row["bytes"] for row in found["idle"]}
    assert sizes == {0: 5 * MIB // 2, 1: round(2 * MIB * 20 / 30), 2: round(2 * MIB * 10 / 30), 5: None}


def test_recency_of_the_last_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    found = _object(capsys, "recency")
    rows = found["histogram"]
    assert (rows[0]["idle_s_min"], rows[-1]["idle_s_max"]) == (0, 2.9)
    assert [row["bytes"] for row in rows] == [2 * MIB, 0, 0, 0, 0, 0, 0, 0, 0, 2 * MIB]


def test_rates_are_in_steps_of_ten_percent(capsys: pytest.CaptureFixture[str]) -> None:
    """Over all: one MiB at 100 %, one at 50 % half of the time, the rest at 0 %."""
    rows = _object(capsys, "recency", "--rate", "--whole")["histogram"]
    assert [row["rate_percent_min"] for row in rows] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert [row["bytes"] for row in rows] == [5 * MIB // 2, 0, 0, 0, 0, MIB // 2, 0, 0, 0, MIB]


def test_temperatures_are_between_the_extremes(capsys: pytest.CaptureFixture[str]) -> None:
    """100 % for 2.9 s is 10,290; idle for 2.9 s -290."""
    rows = _object(capsys, "temperature")["histogram"]
    assert (rows[0]["temperature_min"], rows[-1]["temperature_max"]) == (-290, 10_290)
    assert sum(row["bytes"] for row in rows) == 4 * MIB
    rows = _object(capsys, "temperature", "--weights", "100,1e8")["histogram"]
    assert (rows[0]["temperature_min"], rows[-1]["temperature_max"]) == (-290_000_000, 290_010_000)


def test_the_formula_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "temperature", "--weights", "1,2")[1].splitlines()
    assert lines[2] == "temperature: 1 x rate in percent + 2 x age in seconds, negative without access" + RANGES
    lines = report(capsys, "recency")[1].splitlines()
    assert lines[2] == "idle time: the age of regions without access, 0 for accessed ones" + RANGES
    assert report(capsys, "recency", "--rate")[1].splitlines()[2].startswith("access rate: samples that found")


def test_one_value_is_a_histogram_too(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, [(0, 4096, 0, 0)])])
    for verb in ("recency", "temperature"):
        status, out, _ = report(capsys, verb, "-i", "r")
        assert status == 0
        assert "4.0 KiB  100.0 %" in out


def test_each_target_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(n, [(0, 4096 << t, 0, 9)], target=t) for n in range(2) for t in (0, 1)], pids=(1, 2))
    _, out, _ = report(capsys, "idle", "-i", "r", "--json")
    *each, total = map(json.loads, out.splitlines())
    assert [one["total_bytes"] for one in each] == [4096, 8192]
    assert total["total"]["total_bytes"] == 3 * 4096
    _, out, _ = report(capsys, "idle", "-i", "r", "--json", "--target", "1")
    assert [json.loads(line)["pid"] for line in out.splitlines()] == [2]


@pytest.mark.parametrize("verb", ["idle", "recency", "temperature", "footprint"])
def test_a_total_of_regions_says_that_it_is_a_sum(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    write(Path("r"), [snapshot(n, [(0, 4096 << t, 0, 9)], target=t) for n in range(2) for t in (0, 1)], pids=(1, 2))
    _, out, _ = report(capsys, verb, "-i", "r")
    assert out.count("\nthe sum of the targets: memory that they share counts for each\ntarget 0: ") == 1
    _, out, _ = report(capsys, verb, "-i", "r", "--target", "1")
    assert "the sum of the targets" not in out


@pytest.mark.parametrize("weights", ["", "1", "1,2,3", "x,1", "-1,1", "nan,1", "inf,inf", "1e300,1"])
def test_weights_are_two_numbers(capsys: pytest.CaptureFixture[str], weights: str) -> None:
    status, out, err = report(capsys, "temperature", "--weights", weights)
    assert (status, out) == (2, "")
    assert err == f"pydamon: --weights: {weights!r} is not two numbers of at least 0; write e.g. 100,100\n"


def test_ages_that_are_no_times_of_the_clock_are_called_nominal(capsys: pytest.CaptureFixture[str]) -> None:
    # Imports, the kernel's DAMON, and records of version 1 count aggregations.
    write(Path("r"), [snapshot(0, [(0x1000, 0x3000, 0, 28)])])
    assert "; nominal ages" in report(capsys, "idle", "-i", "r")[1]
    one = snapshot(0, [(0x1000, 0x3000, 0, 28)]).replace(age_ms=np.array([9_000], np.uint32))
    with RecordWriter("clock", metadata=metadata(1234), optional=("age_ms",)) as writer:
        writer.add_snapshot(one)
    assert "nominal" not in report(capsys, "idle", "-i", "clock")[1]
