"""What damo puts beside its records: processes, their sizes and mappings, statistics of schemes; there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.records.format_samples import Made, damo_object, damo_record, put, read, some

from pydamon.cli import main
from pydamon.errors import RequestError
from pydamon.records.formats.damo_beside import Beside
from pydamon.records.formats.damo_parts import parts_of
from pydamon.records.joined import AnyReader, open_record
from pydamon.spec import from_builtins

PID, OTHER = 4711, 4712
WALL_S = 1_795_745_645.25  # when damo 3.4.3 wrote the files that these were made after
STATISTICS = ("nr_tried", "sz_tried", "nr_applied", "sz_applied", "sz_ops_filter_passed", "qt_exceeds", "nr_snapshots")


def kdamonds(*pids: int, schemes: int = 1) -> list[dict[str, Any]]:
    """As damo writes it, of what it has read from the files of the kernel: with a newline behind the tuner."""
    scheme = {"action": "stat", "quotas": {"goal_tuner": "consist\n", "effective_sz_bytes": "0 B"}, "stats": {}}
    context = {
        "ops": "vaddr",
        "addr_unit": "1 B",
        "targets": [{"pid": pid, "obsolete": False, "regions": []} for pid in pids],
        "intervals": {"sample_us": "5 ms", "aggr_us": "100 ms", "ops_update_us": "1 s"},
        "nr_regions": {"min": "10", "max": "1,000"},
        "probes": [],
        "sample_control": {"primitives_enabled": {"page_table": True, "page_fault": False}, "sample_filters": []},
        "pause": False,
        "schemes": [scheme] * schemes,
    }
    return [{"state": "on", "pid": "20647", "refresh_ms": 0, "contexts": [context]}]


def footprints(*times_s: float) -> list[dict[str, Any]]:
    """Of two processes, 1 MiB virtual and a page more resident each time; and of the machine."""
    rest = {"shared": 1, "trs": 1, "lrs": 0, "drs": 1, "dt": 0}
    return [
        {
            "time": time_s,
            "footprints": [
                {"pid": PID, "footprint": {"size": 256, "resident": 10 + number} | rest},
                {"pid": OTHER, "footprint": {"size": 0, "resident": 0} | rest},  # it has ended
                {"pid": None, "footprint": {"total": 24683656, "free": 21061252, "buffers": 1, "cached": 1}},
            ],
        }
        for number, time_s in enumerate(times_s)
    ]


def mappings(*times_s: float) -> list[dict[str, Any]]:
    """The same each time; of an anonymous mapping damo takes the inode for its name."""
    vmas = [{"start": 4096, "end": 8192, "name": "/usr/bin/x"}, {"start": 8192, "end": 16384, "name": "0"}]
    return [
        {"time": time_s, "procvmas": [{"pid": PID, "vmas": vmas}, {"pid": OTHER, "vmas": []}]} for time_s in times_s
    ]


def processes(name: str) -> list[dict[str, Any]]:
    """Lines of /proc/PID/stat, cut at blanks: its start is the 22nd field."""
    fields = [*f"{PID} ({name}) S".split(), *map(str, range(4, 53))]
    return [{"time": WALL_S, "proc_stats": [{"fields": None}, {"fields": fields}]}]


def put_beside(path: Path, **files: Any) -> None:
    for kind, content in files.items():
        put(Path(f"{path}.{kind}"), content if isinstance(content, str | bytes) else json.dumps(content, indent=4))


def whole(path: Path, made: list[Made], **changes: Any) -> Path:
    """A record with all files beside it."""
    put(path, damo_record(damo_object(made, **changes)))
    times = [WALL_S, WALL_S + 1, WALL_S + 2]
    put_beside(
        path,
        kdamonds=kdamonds(PID, OTHER),
        mem_footprint=footprints(*times),
        vmas=mappings(*times),
        proc_stats=processes("my prog) ram"),
    )
    return path


def imported(path: Path, capsys: pytest.CaptureFixture[str], name: str = "imported.damon") -> tuple[AnyReader, str]:
    output = path.parent / name
    assert main(["import", str(path), "-o", str(output), "--force"]) == 0
    return open_record(str(output)), capsys.readouterr().err


def test_processes_are_named_and_their_sizes_and_mappings_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, said = imported(whole(tmp_path / "r", some(3)), capsys)
    with reader:
        target = reader.info.target(0)
        assert (target.pid, target.command, target.start_ticks) == (PID, "my prog) ram", 22)
        rows = list(reader.table_rows("footprint"))
        # The first snapshot begins at 5 s; the times are of another clock.
        assert [(row["time_ns"], row["resident_bytes"] // 4096) for row in rows] == [
            (5_000_000_000, 10),
            (6_000_000_000, 11),
            (7_000_000_000, 12),
        ]
        assert {(row["target"], row["virtual_bytes"], row["swap_bytes"]) for row in rows} == {(0, 1 << 20, None)}
        assert reader.mapping_times(0) == [5_000_000_000]  # when they changed
        found = reader.mappings_at(0, 5_000_000_000)
        assert [(one.start, one.end, one.name) for one in found] == [(4096, 8192, "/usr/bin/x"), (8192, 16384, "")]
        context = from_builtins(reader.info.request).context
        assert (context.pids, [scheme.action for scheme in context.schemes]) == ((PID, OTHER), ["stat"])
        assert reader.info.ops == "vaddr"
    assert "r.mem_footprint and r.vmas: on another clock; taken to begin with the first snapshot" in said
    for report in ("footprint", "access", "summary", "info"):
        assert main(["report", report, str(tmp_path / "imported.damon")]) == 0
    assert "my prog) ram" in capsys.readouterr().out


def test_times_of_snapshots_that_are_the_walls_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin_ns = round(WALL_S * 10**9)
    reader, said = imported(whole(tmp_path / "r", some(3, first_ns=begin_ns)), capsys)
    with reader:
        assert next(reader.table_rows("footprint"))["time_ns"] == begin_ns
    assert "another clock" not in said


def test_statistics_of_schemes_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tried(scheme: int) -> dict[str, Any]:
        about = damo_object(some(2), scheme_idx=scheme, target_id=None)
        for number, snapshot in enumerate(about["snapshots"]):
            snapshot["damos_stats"] = dict.fromkeys(STATISTICS, f"{1000 * number + 7:,}")
        return about

    path = put(tmp_path / "r", damo_record(tried(1), tried(2)))  # the last is damo's own, for its snapshots
    put_beside(path, kdamonds=kdamonds(PID, schemes=2))
    reader, said = imported(path, capsys)
    with reader:
        rows = list(reader.table_rows("schemes"))
        assert [(row["scheme"], row["action"], row["nr_tried"]) for row in rows] == [(1, "stat", 7), (1, "stat", 1007)]
        assert [(row["time_ns"], row["sz_added"]) for row in rows] == [(5_100_000_000, None), (5_200_000_000, None)]
    assert "left out" not in said
    assert main(["report", "schemes", str(tmp_path / "imported.damon")]) == 0
    assert "scheme 1: stat" in capsys.readouterr().out


@pytest.mark.parametrize("told", [1, "x", [], {}, dict.fromkeys(STATISTICS, "x"), dict.fromkeys(STATISTICS[1:], 1)])
def test_statistics_that_are_none_are_counted(tmp_path: Path, told: Any) -> None:
    about = damo_object(some(2), scheme_idx=0)
    about["snapshots"][1]["damos_stats"] = told
    path = put(tmp_path / "r", damo_record(about))
    put_beside(path, kdamonds=kdamonds(PID))
    with open_record(str(path)) as reader:
        assert [line for line in reader.warnings() if "statistics of schemes in 1 snapshot left out" in line]
        assert len(list(reader.snapshots())) == 2


HOSTILE = ["", "[", "{}", "1", "[1, 2]", "[" * 100_000, "[{}]", b"\xff\xfe", b"\0" * 100, "nul", '[{"time": 1e999}]']


@pytest.mark.parametrize("content", HOSTILE)
@pytest.mark.parametrize("kind", ["kdamonds", "mem_footprint", "vmas", "proc_stats"])
def test_files_beside_that_are_none_cost_only_themselves(tmp_path: Path, kind: str, content: str | bytes) -> None:
    made = some(2)
    path = whole(tmp_path / "r", made)
    put_beside(path, **{kind: content})
    with open_record(str(path)) as reader:
        assert len(list(reader.snapshots())) == 2
        lines = reader.warnings()
    assert any(f"r.{kind}" in line for line in lines), lines
    assert not any("\n" in line or "\0" in line for line in lines)


def test_parameters_that_are_too_large_are_said_to_be(tmp_path: Path) -> None:
    path = whole(tmp_path / "r", some(2))
    put_beside(path, kdamonds=b"[" + b" " * (4 << 20) + b"]")
    with open_record(str(path)) as reader:
        assert len(list(reader.snapshots())) == 2
        assert any(line.endswith("r.kdamonds: is larger than 4 MiB") for line in reader.warnings())


@pytest.mark.parametrize("kind", ["mem_footprint", "vmas", "proc_stats"])
def test_files_beside_that_are_cut_give_what_came_before(tmp_path: Path, kind: str) -> None:
    path = whole(tmp_path / "r", some(2))
    beside = Path(f"{path}.{kind}")
    data = beside.read_bytes()
    for size in range(1, len(data) - 1, len(data) // 20):
        beside.write_bytes(data[:size])
        with open_record(str(path)) as reader:
            assert len(list(reader.snapshots())) == 2
            assert any(f"r.{kind}: ends early, or is damaged" in line for line in reader.warnings()), size


@pytest.mark.parametrize(
    "change",
    [{"time": -1}, {"time": 1e300}, {"footprints": [{"pid": PID, "footprint": {"size": 1, "resident": 1 << 63}}]}],
)
def test_numbers_that_cannot_be_are_counted(tmp_path: Path, change: dict[str, Any]) -> None:
    path = whole(tmp_path / "r", some(2))
    told = footprints(WALL_S, WALL_S + 1)
    put_beside(path, mem_footprint=[told[0] | change, told[1]])
    with open_record(str(path)) as reader:
        assert len(list(reader.table_rows("footprint"))) == 1
        assert any("r.mem_footprint: 1 part that cannot be understood left out" in line for line in reader.warnings())


def test_without_parameters_nobody_knows_whose_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = whole(tmp_path / "r", some(2))
    Path(f"{path}.kdamonds").unlink()
    put_beside(path, profile=b"PERFILE2")
    reader, said = imported(path, capsys)
    with reader:
        assert reader.info.target(0).command == "target_id=0"
        assert not list(reader.table_rows("footprint"))
    assert "r.mem_footprint left out: which process is which target is not told" in said
    assert "r.profile is not read (perf's samples of functions" in said


@pytest.mark.parametrize("target_id", ["-1", 2, 1 << 63, "x", None, [0]])
def test_targets_that_are_no_number_of_a_process_have_none(tmp_path: Path, target_id: Any) -> None:
    assert Beside(str(whole(tmp_path / "r", some(1)))).process(0, 0, target_id) is None


def test_a_record_goes_to_damo_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = whole(tmp_path / "r", some(3))
    with imported(source, capsys)[0] as reader:
        sizes, maps = list(reader.table_rows("footprint")), reader.mappings_at(0, 5_000_000_000)
    out = tmp_path / "out.data"
    for _ in range(2):  # it may be written over
        assert main(["export", str(tmp_path / "imported.damon"), "--format", "damo", "-o", str(out)]) == 0
    assert "and 3 files beside it" in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("out*")} == {
        "out.data", "out.data.kdamonds", "out.data.mem_footprint", "out.data.vmas",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.glob("out*"))
    reader, said = imported(out, capsys, "again.damon")
    with reader:
        assert list(reader.table_rows("footprint")) == sizes
        assert reader.mappings_at(0, 5_000_000_000) == maps
        assert [scheme.action for scheme in from_builtins(reader.info.request).context.schemes] == ["stat"]
        assert reader.info.target(0).pid == PID
    assert "another clock" not in said
    assert read(tmp_path / "again.damon") == read(tmp_path / "imported.damon")


def test_reports_do_without_the_swap_that_damo_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(whole(tmp_path / "r", some(3)), capsys)[0].close()
    record = str(tmp_path / "imported.damon")
    assert main(["report", "footprint", record, "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [(one["resident_bytes"] // 4096, one["swap_bytes"]) for one in samples] == [
        (10, None),
        (11, None),
        (12, None),
    ]
    assert main(["report", "footprint", record]) == 0
    assert "swap                -         -         -         -" in capsys.readouterr().out
    assert main(["report", "footprint", record, "-o", str(tmp_path / "x.png")]) == 0
    capsys.readouterr()
    assert main(["export", record, "--format", "trace-events", "-o", "-"]) == 0
    memory = [one for one in json.loads(capsys.readouterr().out)["traceEvents"] if one["name"] == "memory"]
    assert [one["args"] for one in memory] == [{"resident": 40960}, {"resident": 45056}, {"resident": 49152}]


@pytest.mark.parametrize("kind", ["binary", "record", "json_compressed", "damo 1"])
def test_old_formats_of_damo_are_not_written(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "x.damon", "--format", kind, "-o", "y"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the list of its releases 2 and 3 is written" in said


def test_what_is_beside_another_record_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(whole(tmp_path / "r", some(2)), capsys)[0].close()
    (tmp_path / "out.data.vmas").write_text("[]")
    assert main(["export", str(tmp_path / "imported.damon"), "--format", "damo", "-o", str(tmp_path / "out.data")]) == 2
    assert "out.data.vmas exists and is of another record of damo" in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("out*")} == {"out.data.vmas"}


def parts(folder: Path, name: str = "run.data") -> list[Path]:
    """A recording in three folders; the second does not tell its processes."""
    found = []
    for number in range(3):
        one = folder / f"{name}.2026-11-27-02-14-{25 + number}"
        one.mkdir(parents=True)
        found.append(whole(one / name, some(2, first_ns=5_100_000_000 + number * 200_000_000, seed=number)))
        if number == 1:
            put_beside(found[-1], proc_stats=[])
    return found


def test_folders_of_parts_become_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = parts(tmp_path / "all")
    for what in (tmp_path / "all", tmp_path / "all" / "run.data"):
        assert parts_of(str(what)) == list(map(str, found))
        with imported(what, capsys)[0] as reader:
            assert [one.end_ns for one in reader.snapshots()] == [5_100_000_000 + n * 100_000_000 for n in range(6)]
            assert [(target.pid, target.command) for target in reader.info.targets] == [(PID, "my prog) ram")]
            assert len(list(reader.table_rows("footprint"))) == 9
    assert parts_of(str(found[1].parent)) == [str(found[1])]


def test_folders_without_a_recording_or_with_several_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(tmp_path), "-o", str(tmp_path / "o")]) == 2
    assert "is a directory, not a file, and holds no record of damo" in capsys.readouterr().err
    parts(tmp_path)
    assert main(["report", "access", str(tmp_path)]) == 2
    assert (
        "is a directory with parts of a recording of damo (3); one record of them is made by" in capsys.readouterr().err
    )
    parts(tmp_path, "other.data")
    with pytest.raises(RequestError, match=r"holds parts of several recordings \(other.data, run.data\); name one"):
        parts_of(str(tmp_path))
    assert main(["import", str(tmp_path / "run.data"), "-o", str(tmp_path / "o"), "--aggr", "1s"]) == 2
    assert "--aggr: is told in the parts of a recording" in capsys.readouterr().err
    assert parts_of(str(tmp_path / "no.data")) == []
