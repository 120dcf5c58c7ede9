"""``pydamon record cut``, ``merge`` and ``aggregate``."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.analysis.analysis_samples import random_snapshots, regions_of
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import HEAP, MIB, rich
from tests.unit.records.record_samples import AGGR_NS, START_NS, as_tuple, mapping, metadata, snapshot, write

from pydamon.cli import main
from pydamon.core.snapshot import Snapshot
from pydamon.records.reader import RecordReader
from pydamon.records.writer import RecordWriter


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def edit(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """(exit status, standard error) of ``pydamon record …``."""
    status = main(["record", *args])
    captured = capsys.readouterr()
    assert captured.out == ""
    return status, captured.err


def held(path: str) -> list[tuple[Any, ...]]:
    """All snapshots of a record that has nothing wrong."""
    with RecordReader(path) as reader:
        found = [as_tuple(one) for one in reader.snapshots()]
        assert reader.warnings() == []
        return found


def rows(path: str, table: str) -> list[dict[str, Any]]:
    """All rows of a side table."""
    with RecordReader(path) as reader:
        return [row for piece in reader.table(table) for row in piece.to_pylist()]


# cut


def test_cut_keeps_what_a_report_of_the_window_shows(capsys: pytest.CaptureFixture[str]) -> None:
    rich(Path("r"))
    window = ["--from", "1s", "--to", "2s", "--address", f"{HEAP + MIB // 2:#x}-{HEAP + 2 * MIB:#x}"]
    status, err = edit(capsys, "cut", "-i", "r", "-o", "part", *window)
    assert (status, err) == (0, f"pydamon: wrote part, {os.stat('part').st_size:,} bytes\n")
    shown = [report(capsys, "regions", "--json", *which)[1] for which in (["-i", "part"], ["-i", "r", *window])]
    assert shown[0] == shown[1]
    assert len(held("part")) == 10


def test_cut_keeps_names_and_costs_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Mappings hold until they change, costs are sums since the start: both are needed from before the window."""
    rich(Path("r"))
    for first in ("900ms", "1.5s"):
        assert edit(capsys, "cut", "-i", "r", "-o", "part", "--from", first, "--to", "2.5s")[0] == 0
        with RecordReader("part") as reader:
            assert [one.name for one in reader.mappings_at(0, START_NS)] == ["[heap]", "/usr/lib/libx.so.1"]
        lines = report(capsys, "cost", "-i", "part")[1].splitlines()
        assert [line.split()[-10:-8] for line in lines[3:]] == [["5.00", "%"]] * len(lines[3:])
        assert max(row["time_ns"] for row in rows("part", "footprint")) == START_NS + 2 * 10**9


def test_cut_of_one_target_leaves_nothing_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with RecordWriter("r", metadata=metadata(1, 2)) as writer:
        for number in range(3):
            for target in (0, 1):
                writer.add_snapshot(snapshot(number, [(0, 4096, target, 0)], target=target))
        for target in (0, 1):
            writer.add_mappings(START_NS, target, [mapping(0, 4096, "[heap]")])
        sizes = {"virtual_bytes": 1, "resident_bytes": 1, "swap_bytes": 0}
        writer.add_rows("footprint", [{"time_ns": START_NS, "target": target, **sizes} for target in (0, 1)])
    assert edit(capsys, "cut", "-i", "r", "-o", "part", "--target", "1")[0] == 0
    assert {one[0] for one in held("part")} == {1}
    assert [row["target"] for row in rows("part", "footprint")] == [1]
    with RecordReader("part") as reader:
        assert [(t.target, t.pid) for t in reader.info.targets] == [(1, 2)]
        assert {entry.target for entry in reader.tables() if entry.name == "maps"} == {1}


def test_cut_of_everything_is_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    rich(Path("r"))
    assert edit(capsys, "cut", "-i", "r", "-o", "part")[0] == 0
    assert held("part") == held("r")
    for table in ("maps", "footprint", "resctrl", "schemes", "tried_regions"):
        assert rows("part", table) == rows("r", table)


# merge


def _parts(seed: int, count: int) -> list[list[Snapshot]]:
    snapshots = random_snapshots(seed, targets=1, count=3 * count)
    return [snapshots[3 * part : 3 * part + 3] for part in range(count)]


def _write(path: str, snapshots: list[Snapshot], pid: int = 7, ticks: int | None = 5, **more: Any) -> None:
    about = metadata(pid, **more)
    about["targets"][0]["start_ticks"] = ticks
    with RecordWriter(path, metadata=about) as writer:
        for one in snapshots:
            writer.add_snapshot(one)


def test_merge_puts_records_of_one_process_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    parts = _parts(1, 3)
    for name, part in zip("cab", parts, strict=True):
        _write(name, part)
    assert edit(capsys, "merge", "a", "b", "c", "-o", "all")[0] == 0
    assert held("all") == [as_tuple(one) for part in parts for one in part]
    with RecordReader("all") as reader:
        assert [(t.target, t.pid, t.start_ticks) for t in reader.info.targets] == [(0, 7, 5)]


def test_merge_of_two_processes_at_a_time_is_in_the_order_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    """The first record outlasts the second: the result still ends when the first ends."""
    long = [snapshot(number, [(0, 4096, 1, 0)]) for number in range(10)]
    short = [snapshot(number, [(0, 8192, 2, 0)]) for number in range(3, 5)]
    _write("long", long, pid=1)
    _write("short", short, pid=2)
    rows_of_first = [{"time_ns": START_NS, "target": 0, "virtual_bytes": 1, "resident_bytes": 1, "swap_bytes": 0}]
    with RecordWriter("short", metadata=metadata(2)) as writer:
        for one in short:
            writer.add_snapshot(one)
        writer.add_rows("footprint", rows_of_first, time_ns=START_NS)
    assert edit(capsys, "merge", "short", "long", "-o", "all")[0] == 0
    found = held("all")
    assert [one[1] for one in found] == sorted(one[1] for one in found)
    assert [one[:2] for one in found if one[0] == 1] == [(1, START_NS + n * AGGR_NS) for n in (3, 4)]
    assert [row["target"] for row in rows("all", "footprint")] == [1]
    with RecordReader("all") as reader:
        assert reader.time_range() == (START_NS, START_NS + 10 * AGGR_NS)
        assert [(t.target, t.pid) for t in reader.info.targets] == [(0, 1), (1, 2)]


def test_one_process_that_was_recorded_twice_at_a_time_becomes_two_targets(capsys: pytest.CaptureFixture[str]) -> None:
    _write("a", [snapshot(number, [(0, 4096, 1, 0)]) for number in range(4)])
    _write("b", [snapshot(number, [(0, 8192, 1, 0)]) for number in range(2, 6)])
    assert edit(capsys, "merge", "a", "b", "-o", "all")[0] == 0
    assert [len([one for one in held("all") if one[0] == target]) for target in (0, 1)] == [4, 4]


def test_records_of_two_boots_are_brought_onto_one_clock(capsys: pytest.CaptureFixture[str]) -> None:
    """The second began an hour later, on a machine whose clock had begun at zero again."""
    hour = 3600 * 10**9
    _write("a", [snapshot(0, [(0, 4096, 1, 0)])], wall_offset_ns=10**18)
    _write("b", [snapshot(0, [(0, 4096, 1, 0)])], pid=8, wall_offset_ns=10**18 + hour)
    with RecordWriter("b", metadata=metadata(8, wall_offset_ns=10**18 + hour)) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
        writer.add_mappings(START_NS, 0, [mapping(0, 4096, "[heap]")])
    assert edit(capsys, "merge", "b", "a", "-o", "all")[0] == 0
    assert [one[1] for one in held("all")] == [START_NS, START_NS + hour]
    with RecordReader("all") as reader:
        assert reader.mapping_times(1) == [START_NS + hour]
        assert [row["time_ns"] for row in rows("all", "maps")] == [START_NS + hour]


def test_merge_refuses_virtual_beside_real_time(capsys: pytest.CaptureFixture[str]) -> None:
    _write("a", _parts(1, 1)[0])
    _write("b", _parts(1, 1)[0], clock="virtual")
    assert edit(capsys, "merge", "a", "b", "-o", "all") == (
        2,
        "pydamon: FILE: virtual and real time cannot be in one record\n",
    )
    assert not Path("all").exists()


def test_merge_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("a"), [])
    write(Path("b"), [])
    status, err = edit(capsys, "merge", "a", "b", "-o", "all")
    assert (status, err) == (1, "pydamon: a, b: hold no snapshot: nothing was recorded\n")
    assert not Path("all").exists()


# aggregate


@pytest.mark.parametrize("factor", [2, 3, 64, 65, 200])
def test_aggregate_adds_up_so_many_snapshots(capsys: pytest.CaptureFixture[str], factor: int) -> None:
    """Every byte × access of the record is in the result, whatever the factor."""
    snapshots = random_snapshots(4, count=150, targets=2, aggr_us=100_000)
    write(Path("r"), snapshots, pids=(1, 2))
    assert edit(capsys, "aggregate", "-i", "r", "-o", "coarse", "--factor", str(factor))[0] == 0
    with RecordReader("coarse") as reader:
        found = list(reader.snapshots())
    for target in (0, 1):
        mine = [one for one in found if one.target == target]
        assert [one.aggr_us for one in mine] == [100_000 * min(factor, 150 - at) for at in range(0, 150, factor)]
        sums = [
            sum((e - s) * n for one in which if one.target == target for s, e, n, _ in regions_of(one))
            for which in (found, snapshots)
        ]
        assert sums[0] == sums[1]


def test_aggregate_begins_anew_where_the_intervals_change(capsys: pytest.CaptureFixture[str]) -> None:
    short = [snapshot(number, [(0, 4096, 1, 0)]) for number in range(3)]
    long = [snapshot(number, [(0, 4096, 1, 0)]).replace(aggr_us=200_000) for number in range(3, 5)]
    write(Path("r"), [*short, *long])
    assert edit(capsys, "aggregate", "-i", "r", "-o", "coarse", "--factor", "5")[0] == 0
    assert [(one[4], one[5]) for one in held("coarse")] == [(300_000, [(0, 4096, 3, 0)]), (400_000, [(0, 4096, 2, 0)])]


# What goes wrong


COMMANDS = {
    "cut": ["cut", "-i", "r"],
    "merge": ["merge", "r", "r2"],
    "aggregate": ["aggregate", "-i", "r", "--factor", "2"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_output_must_not_be_an_input(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for name in ("r", "r2"):
        _write(name, _parts(1, 1)[0])
    os.symlink("r", "link")
    before = Path("r").read_bytes()
    for output in ("r", "link"):
        status, err = edit(capsys, *COMMANDS[command], "-o", output)
        assert (status, err) == (2, f"pydamon: -o: {output} is being read; choose another name\n")
    assert Path("r").read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_record_is_not_replaced(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for name in ("r", "r2"):
        _write(name, _parts(1, 1)[0])
    Path("text").write_text("precious")
    status, err = edit(capsys, *COMMANDS[command], "-o", "text")
    assert (status, err) == (2, "pydamon: -o: text exists and is not a pydamon record; choose another name\n")
    assert Path("text").read_text() == "precious"
    status, err = edit(capsys, *COMMANDS[command], "-o", ".")
    assert (status, err.count("\n")) == (2, 1)
    assert sorted(os.listdir()) == ["r", "r2", "text"]


def test_a_record_that_is_being_recorded_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("r", "growing"):
        _write(name, _parts(1, 1)[0])
    with open("growing", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, err = edit(capsys, "cut", "-i", "r", "-o", "growing")
    assert (status, err) == (2, "pydamon: -o: another pydamon is recording to growing\n")


def test_nothing_half_written_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _write("r", _parts(1, 1)[0])
    _write("old", _parts(2, 1)[0])
    before = Path("old").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "add_snapshot", full)
    for output in ("new", "old"):
        status, err = edit(capsys, "cut", "-i", "r", "-o", output)
        assert (status, err.count("\n")) == (1, 1)
    assert sorted(os.listdir()) == ["old", "r"]
    assert Path("old").read_bytes() == before


def test_what_is_no_file_can_be_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    _write("r", _parts(1, 1)[0])
    assert edit(capsys, "cut", "-i", "r", "-o", "/dev/null")[0] == 0
    assert not Path("/dev/null").is_file()


def test_a_damaged_record_is_cut_with_a_count_of_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rich(Path("r"))
    os.truncate("r", os.stat("r").st_size - 100)
    for command in ("cut", "aggregate"):
        more = ["--factor", "2"] if command == "aggregate" else []
        status, err = edit(capsys, command, "-i", "r", "-o", "part", *more)
        assert status == 0
        assert err.splitlines()[0].startswith("pydamon: r: was not closed")
    status, err = edit(capsys, "merge", "r", "-o", "part")
    assert (status, len(err.splitlines())) == (0, 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_files_get_one_line(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, err = edit(capsys, *COMMANDS[command], "-o", "part")
    others = "; without this file the others can be merged" if command == "merge" else ""
    assert (status, err) == (2, f"pydamon: r: there is no such file; name a record with -i FILE{others}\n")
