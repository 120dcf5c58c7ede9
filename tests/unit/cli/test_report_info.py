"""``pydamon report info``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import rich
from tests.unit.records.record_samples import START_NS, metadata, snapshot, write

from pydamon.records.schema import END_OF_STREAM
from pydamon.records.walk import walk
from pydamon.records.writer import RecordWriter


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rich(Path("pydamon.damon"))


def test_what_is_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "info")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "pydamon.damon"
    assert lines[1].endswith(f"KiB, 90 region rows, {os.stat('pydamon.damon').st_size / 90:.1f} bytes a row")
    assert lines[2] == "covers 3 s"
    assert lines[4:6] == ["  program0 --flag (pid 1234)", "table maps: 1 piece"]
    assert {"table footprint: 1 piece", "table resctrl: 3 pieces"} <= set(lines)  # rows of each second go together


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(report(capsys, "info", "--json")[1])
    assert (found["start_ns"], found["end_ns"], found["region_rows"]) == (START_NS, START_NS + 3 * 10**9, 90)
    assert found["complete"] is True
    assert found["targets"] == [{"target": 0, "pid": 1234, "command": "program0 --flag", "start_ticks": 777}]
    assert found["tables"]["tried_regions"] == 3
    assert found["file_bytes"] == os.stat("pydamon.damon").st_size


def _with_samples(path: str, *counted: tuple[int, int, int]) -> None:
    """A record whose cost table has these counters, a second apart."""
    names = ("samples", "asked_ns", "sampled_ns")
    with RecordWriter(path, metadata=metadata()) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
        for second, numbers in enumerate(counted):
            time_ns = START_NS + second * 10**9
            row = {"time_ns": time_ns, **dict.fromkeys(("cpu_ns", "checks", "check_ns", "clears"), 0)}
            row |= {"clear_ns": 0, "disturb_ns": 0, **dict(zip(names, numbers, strict=True))}
            writer.add_rows("cost", [row], time_ns=time_ns)


@pytest.mark.parametrize("before", [None, (100, 10**9, 10**9)])  # what came before this part does not count
def test_late_samples_are_said_in_info_and_summary(
    before: tuple[int, int, int] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (12, 60_000_000, 1_020_000_000)
    if before is None:
        _with_samples("late", more)
    else:
        _with_samples("late", before, (before[0] + more[0], before[1] + more[1], before[2] + more[2]))
    line = "samples came 17 × later than asked for: every 85 ms, not every 5 ms; use a longer sampling interval"
    for name in ("info", "summary"):
        status, out, err = report(capsys, name, "-i", "late")
        assert (status, err) == (0, "")
        (told,) = (each for each in out.splitlines() if "later than" in each)
        assert told.startswith(line)
        assert told.endswith("(--sample, --intervals auto)")
        found = json.loads(report(capsys, name, "-i", "late", "--json")[1])
        assert found["sampled"] == dict(zip(("samples", "asked_ns", "sampled_ns"), more, strict=True))


def test_samples_in_time_are_counted_and_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    _with_samples("r", (200, 10**9, 1_010_000_000))
    assert "200 samples, one every 5.05 ms" in report(capsys, "info", "-i", "r")[1].splitlines()
    assert "later" not in report(capsys, "summary", "-i", "r")[1]


def test_a_record_that_does_not_count_samples_says_nothing_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "later than" not in report(capsys, "info")[1]
    assert json.loads(report(capsys, "info", "--json")[1])["sampled"] is None
    _with_samples("merged", (200, 10**9, 10**9), (5, 10**7, 10**7))
    assert json.loads(report(capsys, "info", "-i", "merged", "--json")[1])["sampled"] is None


def test_what_could_not_be_watched_is_said_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    blind = snapshot(0, [(0, 1 << 20, 0, 5)]).replace(unknown=np.array([20], np.uint32))
    with RecordWriter("r", metadata=metadata()) as writer:
        writer.add_snapshot(blind)
        rows = [
            {"time_ns": START_NS, "target": 0, "reason": "", "bytes": 4096},
            {"time_ns": START_NS + 1, "target": 0, "reason": "locked", "bytes": 1 << 19},
            {"time_ns": START_NS + 1, "target": 0, "reason": "huge\x1b pages", "bytes": 1 << 18},
        ]
        writer.add_rows("blind", rows, time_ns=START_NS)
    reasons = {"locked": 1 << 19, "huge\x1b pages": 1 << 18}
    words = "could not be watched: 512.0 KiB locked, 256.0 KiB huge\\x1b pages"
    assert f"  target 0 {words}" in report(capsys, "info", "-i", "r")[1].splitlines()
    assert f"1.0 MiB cannot be told: {words}" in report(capsys, "summary", "-i", "r")[1].splitlines()
    found = json.loads(report(capsys, "info", "-i", "r", "--json")[1])
    assert found["unwatched"] == [{"target": 0, "bytes_by_reason": reasons}]
    found = json.loads(report(capsys, "summary", "-i", "r", "--json")[1])
    assert found["targets"][0]["unwatched_by_reason"] == reasons


def test_parts_are_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write(Path(f"run.{number}.damon"), [snapshot(number, [(0, 4096, 1, 0)])])
    status, out, err = report(capsys, "info", "-i", "run.*.damon", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["region_rows"] == 3
    assert found["file_bytes"] == sum(path.stat().st_size for path in Path().glob("run.*"))


def test_wall_time_where_the_record_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    """5 s after an offset of 10^18 ns: 2001-09-09 01:46:45 UTC (10^9 s are 01:46:40)."""
    with RecordWriter("r", metadata=metadata(1, wall_offset_ns=10**18)) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    assert report(capsys, "info", "-i", "r")[1].splitlines()[2:4] == [
        "covers 100 ms, from 2001-09-09 01:46:45 UTC",
        "the last snapshot ended at 2001-09-09 01:46:45.100 UTC",
    ]


@pytest.mark.parametrize("offset", [2**63, -(2**63), 10**30])
def test_absurd_wall_times_are_left_out(capsys: pytest.CaptureFixture[str], offset: int) -> None:
    with RecordWriter("r", metadata=metadata(1, wall_offset_ns=max(min(offset, 2**63 - 1), -(2**63)))) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    assert report(capsys, "info", "-i", "r")[0] == 0


def test_an_empty_record_and_one_that_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("empty"), [])
    status, out, _ = report(capsys, "info", "-i", "empty")
    assert (status, "0 region rows" in out, "covers" in out) == (0, True, False)
    os.truncate("pydamon.damon", os.stat("pydamon.damon").st_size - 8)
    status, out, err = report(capsys, "info")
    assert "; not closed (interrupted, or still being written)" in out.splitlines()[1]
    assert (status, err.count("\n")) == (0, 1)


def test_a_sound_record_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "info", "--verify")
    assert (status, err) == (0, "")
    assert re.fullmatch(
        r"verified: \d+ snapshots, 90 regions, \d+ pieces of side tables; their checksums are right",
        out.splitlines()[-1],
    )
    found = json.loads(report(capsys, "info", "--verify", "--json")[1])["verified"]
    assert (found["regions"], found["has_checksums"], found["damage"]) == (90, True, [])


def test_each_damaged_message_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """One bit in the middle of the body, or of the header, of each message in turn."""
    path = Path("pydamon.damon")
    data = path.read_bytes()
    for frame in walk(lambda offset, length: data[offset : offset + length], len(data), 0).frames:
        place = frame.offset + (frame.header_len + frame.body_len) // 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        status, _, err = report(capsys, "info", "--verify")
        assert status in (1, 2), place
        assert "damaged" in err or "not a pydamon record" in err


def test_a_recording_that_was_killed_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("pydamon.damon")
    path.write_bytes(path.read_bytes()[: -len(END_OF_STREAM)])
    status, _, err = report(capsys, "info", "--verify")
    assert (status, err.count("\n")) == (0, 1)
    assert "was not closed" in err
