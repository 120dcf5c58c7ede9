"""``pydamon report regions``, and what all reports do with bad input and closed pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.unit.cli.report_helpers import report, stairs
from tests.unit.records.record_samples import START_NS, snapshot, write

from pydamon.plain import printable

REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]
REPORTS = [["access"], ["heatmap"], ["wss"], ["regions"]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, REGIONS), snapshot(1, REGIONS[1:])])
    assert report(capsys, "regions", "-i", "r") == (
        0,
        """\
snapshot 0 of program0 --flag (pid 1234): 0 s to 100 ms, 2 regions
  0x1000-0x3000     8.0 KiB  20/20  age 7
  0x3000-0x9000    24.0 KiB  0/20  age 2
snapshot 1 of program0 --flag (pid 1234): 100 ms to 200 ms, 1 region
  0x3000-0x9000    24.0 KiB  0/20  age 2
""",
        "",
    )


def test_json_is_one_object_per_snapshot_in_the_order_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    snapshots = [snapshot(0, REGIONS), snapshot(0, REGIONS[1:], target=1), snapshot(1, REGIONS)]
    write(Path("r"), snapshots, pids=(7,))
    status, out, err = report(capsys, "regions", "--json", "-i", "r")
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert found[0] == {
        "target": 0,
        "pid": 7,
        "start_ns": START_NS,
        "end_ns": START_NS + 100_000_000,
        "sample_us": 5000,
        "aggr_us": 100_000,
        "max_nr_accesses": 20,
        "regions": [
            {"start": 0x1000, "end": 0x3000, "nr_accesses": 20, "age": 7},
            {"start": 0x3000, "end": 0x9000, "nr_accesses": 0, "age": 2},
        ],
    }
    assert [(f["target"], f["pid"], f["start_ns"] - START_NS) for f in found] == [
        (0, 7, 0),
        (1, None, 0),
        (0, 7, 100_000_000),
    ]
    _, out, _ = report(capsys, "regions", "--json", "-i", "r", "--target", "1")
    assert [json.loads(line)["target"] for line in out.splitlines()] == [1]


@pytest.mark.parametrize("verb", REPORTS)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_an_empty_record_is_one_line(capsys: pytest.CaptureFixture[str], verb: list[str], as_json: list[str]) -> None:
    write(Path("r"), [])
    assert report(capsys, *verb, *as_json, "-i", "r") == (
        1,
        "",
        "pydamon: r: holds no snapshot: nothing was recorded\n",
    )


@pytest.mark.parametrize("verb", REPORTS)
def test_what_is_no_record_is_one_line(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    Path("text").write_text("no record\n")
    for name, message in (
        ("missing", "there is no such file; name a record with -i FILE"),
        ("text", "is not a pydamon record, and of no format that pydamon import knows"),
        (".", "is a directory, not a pydamon record"),
        ("x\0y", "cannot be opened: embedded null byte"),
    ):
        assert report(capsys, *verb, "-i", name) == (2, "", f"pydamon: {printable(name)}: {message}\n")


@pytest.mark.parametrize("verb", REPORTS)
def test_a_cut_record_is_reported_with_a_warning(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    write(Path("r"), [snapshot(n, REGIONS) for n in range(3)], flush_each=True)
    data = Path("r").read_bytes()
    Path("r").write_bytes(data[:-20])
    status, out, err = report(capsys, *verb, "-i", "r")
    assert status == 0
    assert "snapshot" in out or "region" in out
    (line,) = err.splitlines()
    assert line.startswith("pydamon: r: was not closed (interrupted, cut or still being written); its last ")
    Path("r").write_bytes(data[:-8])
    _, _, err = report(capsys, *verb, "-i", "r")
    assert err == (
        "pydamon: r: was not closed (interrupted, or still being written); this is all up to its last flush\n"
    )


@pytest.mark.parametrize("addresses", ["5", "-", "x-y", "5-5", "9-3", "0x-0x5", "hot", f"0-{2**64}"])
def test_bad_ranges_are_one_line(capsys: pytest.CaptureFixture[str], addresses: str) -> None:
    write(Path("r"), [snapshot(0, REGIONS)])
    status, out, err = report(capsys, "heatmap", "-i", "r", "--range", addresses)
    assert (status, out) == (2, "")
    assert err.startswith("pydamon: --range: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", [["regions"], ["regions", "--json"], ["heatmap", "--json"]])
@pytest.mark.usefixtures("processes")
def test_a_closed_pipe_ends_quietly(verb: list[str]) -> None:
    stairs(Path("r"))
    command = " ".join([*PYDAMON, "report", *verb, "-i", "r"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 100"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", 100)


@pytest.mark.usefixtures("processes")
def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from pydamon.cli import main; main(['report', 'heatmap', '--help']); "
        "print([m for m in ('numpy', 'pyarrow', 'matplotlib', 'rich', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
