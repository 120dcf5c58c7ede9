"""``pydamon import`` and ``pydamon export``, and other tools' files given to reports."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.command import PYDAMON
from tests.unit.cli.rich_record import rich
from tests.unit.records.format_samples import expected, put, read, some, trace_text
from tests.unit.records.record_samples import snapshot, write

from pydamon.cli import main
from pydamon.records.reader import RecordReader
from pydamon.records.side_tables import TABLES

MADE = some(4)
TEXT = trace_text(MADE)
SAID = (
    "aggregation interval 100 ms (from the time between snapshots), "
    "sampling interval 5 ms (assumed: 20 in an aggregation)"
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = main(args)
    done = capsys.readouterr()
    return status, done.out, done.err


def test_import_says_what_it_did_and_what_it_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("t"), TEXT)
    status, out, err = run(capsys, "import", "t", "-o", "r")
    size = Path("r").stat().st_size
    assert (status, out) == (0, "")
    assert err == (f"pydamon: t: {SAID}\npydamon: trace text: 4 snapshots, 12 regions; wrote r, {size:,} bytes\n")
    assert read(Path("r")) == expected(MADE)
    assert not list(Path().glob(".r.*"))


def test_intervals_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("t"), TEXT)
    assert run(capsys, "import", "t", "-o", "r", "--sample", "1ms", "--aggr", "100 ms")[0] == 0
    assert run(capsys, "export", "r", "--format", "jsonl", "-o", "x")[0] == 0
    assert json.loads(Path("x").read_text().splitlines()[0])["sample_us"] == 1000


def test_reports_take_the_text_itself(capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("t"), TEXT)
    assert run(capsys, "import", "t", "-o", "r")[0] == 0
    for report in ("wss", "access", "heatmap", "regions"):
        direct = run(capsys, "report", report, "-i", "t", "--json")
        assert direct[0] == 0
        assert direct[1].replace('"t"', '"r"') == run(capsys, "report", report, "-i", "r", "--json")[1]
        assert direct[2] == f"pydamon: t: read as trace text: {SAID}\n"


def test_export_of_a_foreign_file_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    put(Path("t"), TEXT)
    assert main(["export", "t", "--format", "csv", "-o", "-"]) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == 13


def test_a_pipe_and_a_link_stay_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    # As root, replacing what is no regular file would take /dev/null from everybody.
    write(Path("r"), [snapshot(0, [(4096, 8192, 3, 1)])])
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    assert run(capsys, "export", "r", "--format", "parquet", "-o", "pipe")[0] == 0
    reader.join()
    assert got[0][:4] == got[0][-4:] == b"PAR1"
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    Path("link").symlink_to("behind")
    for _ in range(2):  # nothing is there at first, then it is replaced
        assert run(capsys, "export", "r", "--format", "csv", "-o", "link")[0] == 0
        assert Path("link").is_symlink()
        assert Path("behind").read_text().count("\n") == 2


def test_address_samples_are_monitored(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"redis 712/714 [003] {5 + n / 1000:.6f}: cpu/mem-loads,ldlat=30/P: {0x7F8A01766000 + n % 50 * 4096:x} "
        "68100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A 7\n"
        for n in range(2000)
    ]
    put(Path("t"), "".join(lines))
    assert run(capsys, "import", "t", "-o", "r", "--aggr", "200ms")[0] == 0
    assert len(read(Path("r"))) >= 5
    status, _, err = run(capsys, "report", "wss", "-i", "t")
    assert (status, err) == (
        2,
        "pydamon: t: holds address samples, which have to be monitored; "
        "convert it with pydamon import FILE -o RECORD\n",
    )


def test_help_names_every_format() -> None:
    from pydamon.cli import export
    from pydamon.records.formats.export import FORMATS

    assert (*FORMATS, "html") == export._FORMATS


@pytest.mark.usefixtures("processes")
def test_standard_input_is_a_file_like_any_other(tmp_path: Path) -> None:
    import subprocess

    command = [*PYDAMON, "report", "regions", "--json", "-i", "-"]
    done = subprocess.run(command, input=TEXT.encode(), capture_output=True, check=True)
    assert done.stdout.count(b'"nr_accesses"') == 12
    assert done.stderr.startswith(b"pydamon: -: read as trace text: ")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (("import", "t"), 2, "Missing option '-o'"),
        (("import", "none", "-o", "r"), 2, "none: cannot be read: No such file or directory"),
        (("import", ".", "-o", "r"), 2, ".: is a directory"),
        (("import", "empty", "-o", "r"), 2, "empty: is empty"),
        (("import", "own", "-o", "r"), 2, "own: is a pydamon record already"),
        (("import", "t", "-o", "t"), 2, "-o: t exists and is not a pydamon record"),
        (("import", "t", "-o", "none/r"), 2, "-o: cannot write none/r"),
        (("import", "t", "-o", "r", "--aggr", "5"), 2, "'5' has no unit"),
        (("import", "t", "-o", "r", "--sample", "0"), 2, "must be between 1us and 12 days"),
        (("import", "t", "-o", "r", "--sample", "1s", "--aggr", "5ms"), 2, "--sample: must not be longer than --aggr"),
        (("import", "t", "-o", "r", "--sample", "1s"), 2, "--sample: is longer than the aggregation interval, 100 ms"),
        (("import", "events", "-o", "r"), 2, "events: holds no damon_aggregated event"),
        (("export", "t", "--format", "x", "-o", "r"), 2, "'x' is not one of"),
        (("export", "t", "--format", "csv", "-o", "t"), 2, "-o: t is being read"),
        (("export", "empty", "--format", "csv", "-o", "r"), 2, "empty: is empty"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], status: int, said: str
) -> None:
    put(Path("t"), TEXT)
    put(Path("empty"), "")
    put(Path("events"), "x 1 [000] 5.1: sched:sched_switch: prev_comm=x\n" * 9)
    write(Path("own"), [snapshot(0, [(4096, 8192, 1, 1)])])
    before = sorted(Path().iterdir())
    found, out, err = run(capsys, *args)
    assert (found, out) == (status, "")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_parquet_has_a_file_for_each_side_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Readable without us: the columns that the side table is declared with."""
    rich(Path("r"))
    status, out, err = run(capsys, "export", "r", "--format", "parquet", "-o", "run.parquet")
    names = ["cost", "footprint", "maps", "probe_hits", "resctrl", "schemes", "tried_regions"]
    size = Path("run.parquet").stat().st_size
    assert (status, out) == (0, "")
    assert err == f"pydamon: wrote run.parquet, {size:,} bytes, and {len(names)} side tables beside it\n"
    assert sorted(path.name for path in Path().glob("run.*")) == sorted(
        ["run.parquet", *(f"run.{n}.parquet" for n in names)]
    )
    with RecordReader("r") as reader:
        for name in names:
            table = pq.read_table(f"run.{name}.parquet")
            assert table.schema.equals(TABLES[name].schema)
            assert table.to_pylist() == list(reader.table_rows(name)) != []
    assert pq.read_table("run.parquet").num_rows == 90
    assert run(capsys, "export", "r", "--format", "parquet", "-o", "run.parquet")[0] == 0  # again: these are ours


def test_parquet_beside_which_something_else_has_the_name_of_a_side_table(capsys: pytest.CaptureFixture[str]) -> None:
    rich(Path("r"))
    put(Path("run.schemes.parquet"), "mine")
    status, _, err = run(capsys, "export", "r", "--format", "parquet", "-o", "run.parquet")
    assert (status, err) == (
        2,
        "pydamon: -o: run.schemes.parquet exists and is no side table of an export; choose another name\n",
    )
    assert [path.name for path in Path().glob("run.*")] == ["run.schemes.parquet"]
    assert Path("run.schemes.parquet").read_text() == "mine"


@pytest.mark.parametrize(("kind", "output"), [("csv", "x.csv"), ("parquet", "-"), ("parquet", "/dev/null")])
def test_side_tables_stay_behind(capfdbinary: pytest.CaptureFixture[bytes], kind: str, output: str) -> None:
    rich(Path("r"))
    assert main(["export", "r", "--format", kind, "-o", output]) == 0
    assert [path.name for path in Path().iterdir() if path.name != "r"] == [output] * (output == "x.csv")
