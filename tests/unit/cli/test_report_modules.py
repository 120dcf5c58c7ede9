"""``report modules``: what modules took, what came back, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.records.record_samples import START_NS, metadata, snapshot

from pydamon.cli import main
from pydamon.records.reader import RecordReader
from pydamon.records.writer import RecordWriter
from pydamon.spec.module_numbers import NUMBERS

SECOND = 1_000_000_000
MIB = 1 << 20


def row(at_s: int, number: str, *values: int, module: str = "reclaim") -> dict[str, Any]:
    return {"time_ns": START_NS + at_s * SECOND, "module": module, "number": number, "values": list(values)}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "r.damon"
    rows = [
        row(5, "taken_bytes", 10 * MIB),
        row(5, "refaulted_bytes", 0),
        row(5, "min_age_us", 120_000_000),
        row(10, "taken_bytes", 12 * MIB),
        row(10, "refaulted_bytes", 3 * MIB),
        row(10, "min_age_us", 60_000_000),
        row(10, "of_a_later_version", 1),
        row(10, "idle_ms", *range(101), module="stat"),
    ]
    with RecordWriter(path, metadata=metadata(1234)) as writer:
        for number in range(100):
            writer.add_snapshot(snapshot(number, [(0x1000, 0x2000, 0, 3)]))
        writer.add_rows("modules", rows)
    return path


def test_counters_are_told_by_how_much_they_have_grown(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = report(capsys, "modules", record)
    assert status == 0
    lines = [line.split("  ") for line in text.splitlines()]
    assert text.splitlines()[:2] == ["module reclaim", "took 12.0 MiB, 3.0 MiB came back"]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[2:5] == [
        ["at", "taken", "min age", "back"],
        ["5 s", "10.0 MiB", "2 min", "0 B"],
        ["10 s", "2.0 MiB", "1 min", "3.0 MiB"],
    ]
    assert cells[5:] == [
        ["module stat"],
        ["at", "idle 0%", "idle 25%", "idle 50%", "idle 75%", "idle 100%"],
        ["10 s", "0 s", "25 ms", "50 ms", "75 ms", "100 ms"],
    ]


def test_json_has_all_as_it_is(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = report(capsys, "modules", record, "--json")
    reclaim, stat = json.loads(text)["modules"]
    assert reclaim["name"] == "reclaim"
    assert reclaim["numbers"][1] == {
        "time_ns": START_NS + 10 * SECOND,
        "taken_bytes": 12 * MIB,
        "refaulted_bytes": 3 * MIB,
        "min_age_us": 60_000_000,
    }
    assert stat["numbers"][0]["idle_ms"] == list(range(101))


def test_a_window_of_time_is_of_that_time(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = report(capsys, "modules", record, "--json", "--from", "6s")
    assert [len(module["numbers"]) for module in json.loads(text)["modules"]] == [1, 1]


def test_without_modules_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plain.damon"
    with RecordWriter(path, metadata=metadata(1234)) as writer:
        writer.add_snapshot(snapshot(0, [(0x1000, 0x2000, 0, 3)]))
    status, _, message = report(capsys, "modules", path)
    assert status == 1
    assert "has no modules' numbers: none was running" in message


def test_a_run_with_modules_records_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The simulated target has 100 MiB, of which 90 are idle at any time."""
    path = tmp_path / "sim.damon"
    sim = ["record", "--ops", "sim", "--workload", "stairs", "--duration", "20s", "--seed", "3", "-o", str(path)]
    assert main([*sim, "--module", "stat", "--module", "reclaim min_age=3s watermarks=off"]) == 0
    capsys.readouterr()
    with RecordReader(str(path)) as reader:
        rows = list(reader.table_rows("modules"))
    told = {(row["module"], row["number"]): row["values"] for row in rows}
    assert {row["time_ns"] for row in rows} >= {5 * SECOND, 10 * SECOND, 15 * SECOND}
    assert all(number in NUMBERS for _, number in told)
    assert len(told["stat", "idle_ms"]) == 101
    assert told["stat", "idle_ms"][0] < 0
    assert told["stat", "aggr_us"] == [100_000]
    assert told["reclaim", "taken_bytes"][0] >= 50 * MIB
    assert told["reclaim", "min_age_us"] == [3_000_000]
    assert told["reclaim", "refaulted_bytes"] == [30 * MIB]  # the steps that begin at 6, 11 and 16 s
    assert ("reclaim", "working_set_bytes") not in told  # not before two minutes


def moved(path: Path, *more: dict[str, Any]) -> Path:
    """A record of `tier`: 30 MiB up, 10 MiB down, of 20 MiB hot 15 MiB fast, 100 MiB of fast memory; 2 minutes."""
    rows = [row(0, "promoted_bytes", 0, module="tier")] + [
        row(120, f"{name}_bytes", size * MIB, module="tier")
        for name, size in (("promoted", 30), ("demoted", 10), ("hot", 20), ("hot_fast", 15), ("fast_node", 100))
    ]
    with RecordWriter(path, metadata=metadata(1234)) as writer:
        writer.add_snapshot(snapshot(0, [(0x1000, 0x2000, 0, 3)]))
        writer.add_rows("modules", [*rows, *more])
    return path


def test_ping_pong_is_a_share_of_the_fast_nodes_a_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = moved(tmp_path / "t.damon", row(120, "moved_back_bytes", 4 * MIB, module="tier"))
    _, text, _ = report(capsys, "modules", path)
    assert text.splitlines()[1] == (
        "moved 30.0 MiB up, 10.0 MiB down, 75% of what is hot is on the fastest nodes, "
        "ping-pong 4.0 MiB (2.00% of the fastest nodes a minute)"
    )


def test_the_kernel_does_not_say_what_went_to_and_fro(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = report(capsys, "modules", moved(tmp_path / "t.damon"))
    assert text.splitlines()[1].endswith("ping-pong is not known: the kernel does not say which pages it moves")
