"""One answer on one screen, and working sets of any window: of a record whose numbers are known."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.report_helpers import report

from pydamon.analysis.summary import holdings
from pydamon.core.panel import BOUNDS_S
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter

MIB = 1 << 20
SECOND = 1_000_000_000
MAPPINGS = [
    Mapping(0, 100 * MIB, "rw-p", 0, 0, ""),
    Mapping(100 * MIB, 200 * MIB, "r--p", 0, 7, "/usr/lib/libx.so"),
    Mapping(300 * MIB, 400 * MIB, "rw-s", 0, 8, "/dev/shm/s"),
]


def snapshot(at_ns: int, target: int = 0) -> Snapshot:
    """Hot 50 MiB, warm 50 MiB, cold 100 MiB of the file (40 of them there), and 100 MiB shared (10 there)."""
    start = np.array([0, 50, 100, 300], np.uint64) * np.uint64(MIB)
    end = np.array([50, 100, 200, 400], np.uint64) * np.uint64(MIB)
    return Snapshot(
        target, at_ns - SECOND, at_ns, 5000, 1_000_000, start, end,
        np.array([200, 0, 0, 0], np.uint32), np.array([9, 3, 60, 60], np.uint32),
        resident=np.array([50, 50, 40, 10], np.uint64) * np.uint64(MIB),
    )  # fmt: skip


def recorded(
    path: Path, *, panel: bool = True, seconds: int = 90, targets: int = 1, once: dict[str, Any] | None = None
) -> str:
    """All targets are alike; the second one and those behind it are there from the second half on only.

    ``once`` is what the looks of the panel say of memory that targets share.
    """
    known = [{"target": number, "pid": 77 + number, "command": "service"} for number in range(targets)]
    with RecordWriter(str(path), metadata=build_metadata(targets=known, ops="vaddr", primitive="bpf")) as writer:
        for second, number in product(range(1, seconds + 1), range(targets)):
            if number and second <= seconds // 2:
                continue
            writer.add_mappings(second * SECOND, number, MAPPINGS)
            writer.add_snapshot(snapshot(second * SECOND, number))
            if panel:
                # 100 of 1,500 pages are used all the time, 200 were used 30 s ago, the rest never.
                idle, unseen, ended = ([0] * len(BOUNDS_S) for _ in range(3))
                idle[0] = 100
                idle[BOUNDS_S.index(30)] = 200
                unseen[max(place for place, bound in enumerate(BOUNDS_S) if bound <= second)] = 1200
                row = {
                    "time_ns": second * SECOND, "target": number, "resident_bytes": 150 * MIB,
                    "pages": 1500, "unknown": 0, "idle": idle, "unseen": unseen, "ended": ended, **(once or {}),
                }  # fmt: skip
                writer.add_rows("panel", [row], time_ns=second * SECOND)
    return str(path)


def test_a_record_of_less_than_a_second_has_no_panel_for_that_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r")
    with RecordWriter(path, metadata=build_metadata(targets=[], ops="vaddr", primitive="bpf")) as writer:
        writer.add_snapshot(snapshot(SECOND).replace(start_ns=SECOND // 2))
    status, _, err = report(capsys, "wss", "--window", "1s", "-i", path)
    assert status == 1
    assert "it ended before the first look" in err


def test_memory_is_held_by_mappings() -> None:
    found = {one.name: one for one in holdings(snapshot(SECOND), MAPPINGS)}
    assert {name: (one.kind, one.hot // MIB, one.warm // MIB, one.cold // MIB) for name, one in found.items()} == {
        "anon": ("anonymous", 50, 50, 0),
        "libx.so": ("file", 0, 0, 40),
        "s": ("shared", 0, 0, 10),
    }


def test_a_region_over_several_mappings_is_divided_by_size() -> None:
    start, end = np.array([0], np.uint64), np.array([400 * MIB], np.uint64)
    whole = Snapshot(
        0, 0, SECOND, 5000, 1_000_000, start, end, np.array([0], np.uint32), np.array([60], np.uint32),
        resident=np.array([40 * MIB], np.uint64),
    )  # fmt: skip
    # (a quarter of it lies in a gap that was not cut out)
    assert [(one.name, one.cold // MIB) for one in holdings(whole, MAPPINGS)] == [
        ("anon", 10), ("libx.so", 10), ("(not mapped any more)", 10), ("s", 10),
    ]  # fmt: skip


def test_regions_that_were_not_answered_are_not_cold() -> None:
    start, end = np.array([0], np.uint64), np.array([100 * MIB], np.uint64)
    blind = Snapshot(
        0, 0, SECOND, 5000, 1_000_000, start, end, np.array([0], np.uint32), np.array([60], np.uint32),
        resident=np.array([40 * MIB], np.uint64), unknown=np.array([200], np.uint32),
    )  # fmt: skip
    (one,) = holdings(blind, MAPPINGS)
    assert (one.memory, one.unknown) == (0, 40 * MIB)


def test_one_screen_says_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r")
    status, out, err = report(capsys, "-i", path)
    assert (status, err) == (0, "")
    assert out == report(capsys, "summary", "-i", path)[1]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "service (pid 77)"
    assert "resident 150.0 MiB" in lines
    # 100 of 1,500 pages of 150 MiB; Wilson's interval of 6.67 % of 1,500 drawn from 38,400 is 5.54 to 8.02 %
    assert "used within 10 s 10.0 MiB ± 1.9 MiB" in lines
    assert "used within 1 min 30.0 MiB ± 3.0 MiB" in lines
    assert "idle for ≥ 1 min 120.0 MiB ± 3.0 MiB" in lines
    assert "idle for ≥ 10 min –: recorded for 1 min 30 s" in lines
    assert "libx.so file 40.0 MiB 0 B 0 B 40.0 MiB" in lines
    assert lines[-2] == (
        "could be taken (idle for ≥ 10 s, by regions): 40.0 MiB of files; 10.0 MiB shared, if nobody else uses it"
    )
    assert lines[-1] == (
        "regions say that 50.0 MiB are idle for ≥ 10 s, the panel 140.0 MiB ± 1.9 MiB: "
        "believe the panel in how much, the regions in where"
    )


@pytest.mark.parametrize(
    ("swap_bytes", "where"),
    [(0, "not here: there is no swap"), (4096, "to swap"), (None, "with swap, if there is any")],
)
def test_anonymous_memory_can_go_where_there_is_swap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swap_bytes: int | None, where: str
) -> None:
    about = build_metadata(targets=[{"target": 0, "pid": 77}], ops="vaddr", primitive="bpf")
    about["machine"]["swap_bytes"] = swap_bytes
    path = tmp_path / "r"
    with RecordWriter(str(path), metadata=about) as writer:
        writer.add_mappings(SECOND, 0, MAPPINGS)
        idle = snapshot(SECOND).replace(nr_accesses=np.zeros(4, np.uint32), age=np.full(4, 60, np.uint32))
        writer.add_snapshot(idle)
    words = (
        f"could be taken (idle for ≥ 10 s, by regions): 40.0 MiB of files; 100.0 MiB anonymous, {where}; "
        "10.0 MiB shared, if nobody else uses it"
    )
    for verb in ("summary", "idle"):
        assert report(capsys, verb, "-i", path)[1].splitlines()[-1] == words
    told = json.loads(report(capsys, "idle", "--json", "-i", path)[1])["reclaimable"]
    assert told == {
        "idle_at_least_s": 10.0, "file_bytes": 40 * MIB, "anonymous_bytes": 100 * MIB, "shared_bytes": 10 * MIB,
        "swap": None if swap_bytes is None else swap_bytes > 0,
    }  # fmt: skip


def test_the_summary_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, "--json", "-i", recorded(tmp_path / "r"))
    (target,) = json.loads(out)["targets"]
    assert (target["pid"], target["resident_bytes"]) == (77, 150 * MIB)
    assert [row["window_s"] for row in target["used"]] == [1, 10, 60]
    used = target["used"][1]
    assert used["low_bytes"] < used["bytes"] == 10 * MIB < used["high_bytes"]
    assert target["idle"][2] == {"window_s": 600, "bytes": None, "low_bytes": None, "high_bytes": None}


def test_without_a_panel_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r", panel=False, seconds=3)
    status, out, _ = report(capsys, "summary", "-i", path)
    assert status == 0
    assert "no page panel" in out
    status, out, err = report(capsys, "wss", "--window", "10s", "-i", path)
    assert (status, out) == (1, "")
    assert "has no page panel" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("ops", "primitive", "why"),
    [
        ("vaddr", "smaps", "smaps asks no single pages"),
        ("vaddr", "tried_regions", "the kernel's DAMON asks no single pages"),
        ("paddr", "idle", "there is none of physical memory"),
        ("vaddr", "bpf", "recorded with --panel 0 or --faithful, imported, or made before there was one"),
    ],
)
def test_why_there_is_no_panel_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ops: str, primitive: str, why: str
) -> None:
    path = str(tmp_path / "r")
    about = build_metadata(targets=[{"target": 0, "pid": 77}], ops=ops, primitive=primitive)
    with RecordWriter(path, metadata=about) as writer:
        writer.add_snapshot(snapshot(SECOND))
    lines = report(capsys, "summary", "-i", path)[1].splitlines()
    assert [line for line in lines if line.startswith("no page")] == [
        f"no page panel ({why}): how much was used within a time is not known"
    ]
    status, _, err = report(capsys, "wss", "--window", "10s", "-i", path)
    assert (status, err.count("\n")) == (1, 1)
    assert err.rstrip().endswith(why)


def test_the_working_set_of_a_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r")
    _, out, _ = report(capsys, "wss", "--window", "1min", "--json", "-i", path)
    (target,) = json.loads(out)["targets"]
    assert (target["window_s"], target["bytes"]) == (60, 30 * MIB)
    assert target["low_bytes"] < 30 * MIB < target["high_bytes"]
    _, out, _ = report(capsys, "wss", "--window", "1h", "-i", path)
    assert "used within 1 h: –: recorded for 1 min 30 s" in out


def test_used_memory_over_the_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r")
    status, out, err = report(capsys, "wss", "--over", "window", "-i", path)
    assert (status, err) == (0, "")
    rows = {line[:8].strip(): line for line in out.splitlines()[2:]}
    assert rows["20 s"].split()[2:7] == ["10.0", "MiB", "±", "1.9", "MiB"]
    # The bars are 42 columns for 150 MiB: from 8.3 MiB to 12.0 MiB, and from 27.2 to 33.2.
    assert rows["20 s"].endswith(" ██▒")
    assert rows["1 min"].endswith(" ████████▒")
    assert out.splitlines()[-1] == "2 min and longer: –: recorded for 1 min 30 s"
    _, out, _ = report(capsys, "wss", "--over", "window", "--json", "-i", path)
    (target,) = json.loads(out)["targets"]
    used = {row["window_s"]: row["bytes"] for row in target["windows"]}
    assert (used[1], used[30], used[40], used[86400]) == (10 * MIB, 10 * MIB, 30 * MIB, None)


def test_the_total_has_each_target_while_it_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three processes use 10 MiB within 10 s, two of them in the second half only.

    Of the moments after the first 8.5 s 36 have one of them and 45 all three: 21.1 MiB on average. Looks that do not
    tell what the processes share count it for each.
    """
    path = recorded(tmp_path / "r", targets=3)
    _, out, _ = report(capsys, "wss", "--window", "10s", "--json", "-i", path)
    found = json.loads(out)
    assert [one["bytes"] for one in found["targets"]] == [10 * MIB] * 3
    total = found["total"]
    assert (total["bytes"], total["resident_bytes"]) == (round((36 * 10 + 45 * 30) / 81 * MIB), 300 * MIB)
    assert total["shared_once"] is False
    # One target's error is 1.7 MiB downwards; of three that are independent it is 3 ** 0.5 of that.
    alone = 10 * MIB - found["targets"][0]["low_bytes"]
    below = (36 * alone + 45 * 3**0.5 * alone) / 81
    assert total["bytes"] - total["low_bytes"] == pytest.approx(below, rel=0.05)
    lines = report(capsys, "wss", "--window", "10s", "-i", path)[1].splitlines()
    assert (lines[0], lines[2][:26]) == ("all targets", "used within 10 s: 21.1 MiB")
    assert lines[1].endswith("memory that they share counts for each")


def weighed(**changes: Any) -> dict[str, Any]:
    """Of 1,500 pages half are mapped by two targets; 300 were used just now, 50 of them are of those."""
    nothing = [0.0] * len(BOUNDS_S)
    found = {"weighed": 1500, "weights": 1125.0, "squares": 937.5, "once_squares": 937.5}
    return found | {"once_idle": [275.0, *nothing[1:-1], 850.0], "once_unseen": nothing} | changes


def test_the_total_counts_shared_memory_once_where_the_record_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two targets of 150 MiB that have 3/4 of it alone: 225 MiB; 275 of 1,125 were used. One until second 45."""
    path = recorded(tmp_path / "r", targets=2, once=weighed())
    total = json.loads(report(capsys, "summary", "--json", "-i", path)[1])["total"]
    assert total["shared_once"] is True
    assert (total["sum_bytes"], total["resident_bytes"]) == (225 * MIB, round(0.75 * 225 * MIB))
    used = total["used"][1]
    assert used["bytes"] == round((36 + 2 * 45) / 81 * 112.5 * MIB * 275 / 1125)
    lines = report(capsys, "summary", "-i", path)[1].splitlines()
    assert lines[0] == "all targets (2)"
    assert lines[1].startswith("resident together: 168.8 MiB ± ")
    assert lines[1].endswith("; memory that they share counts once (225.0 MiB if it did for each)")
    assert any(line == lines[1] for line in report(capsys, "wss", "-i", path)[1].splitlines())


@pytest.mark.parametrize(
    "changes",
    [
        {"once_idle": [1.0]},
        {"once_squares": -1.0},
        {"weights": float("nan")},
        {"once_unseen": [float("inf")] * len(BOUNDS_S)},
        {"squares": None},
    ],
)
def test_what_cannot_be_is_taken_for_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    path = recorded(tmp_path / "r", targets=2, once=weighed(**changes), seconds=4)
    status, out, _ = report(capsys, "summary", "-i", path)
    assert status == 0
    assert out.splitlines()[1] == (
        "resident together: 225.0 MiB; memory that they share counts for each: the record does not say what is shared"
    )


@pytest.mark.parametrize("options", [["--over", "window"], ["--window", "10s"]])
def test_a_picture_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install matplotlib)")
    path, picture = recorded(tmp_path / "r", targets=2), tmp_path / "w.svg"
    status, out, err = report(capsys, "wss", *options, "-o", picture, "-i", path)
    assert (status, out, err) == (0, f"wrote {picture}\n", "")
    assert picture.read_text().count("<svg") == 1


def test_what_was_touched_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """300 of the 1,500 pages of 150 MiB were; two processes together 60 MiB: errors add up about as squares."""
    path = recorded(tmp_path / "r", targets=2)
    lines = report(capsys, "footprint", "-i", path)[1].splitlines()
    assert [line for line in lines if line.startswith("touched")] == [
        "touched at all since the start: 60.0 MiB ± 4.2 MiB of what is resident",
        *["touched at all since the start: 30.0 MiB ± 3.0 MiB of what is resident"] * 2,
    ]
    found = [json.loads(line) for line in report(capsys, "footprint", "--json", "-i", path)[1].splitlines()]
    assert [one["touched"]["bytes"] for one in (found[0], found[1], found[2]["total"])] == [
        30 * MIB, 30 * MIB, 60 * MIB,
    ]  # fmt: skip
    without = recorded(tmp_path / "w", panel=False, seconds=3)
    assert json.loads(report(capsys, "footprint", "--json", "-i", without)[1])["touched"] is None
    assert "touched at all" not in report(capsys, "footprint", "-i", without)[1]
