"""``pydamon report access``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.report_helpers import HEAP, MIB, on_terminal, plain, report, stairs
from tests.unit.records.record_samples import mapping, metadata, snapshot, write

from pydamon.records.writer import RecordWriter


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_last_snapshot_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    stairs(Path("pydamon.damon"))
    status, out, err = report(capsys, "access")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: the 100 ms up to 10 s, 5 regions, 2.0 MiB of 14.0 MiB of address ranges accessed, vaddr by bpf
................................@@@@@@@@@@@@@....................+++++++++++++@@
range                             size  access            samples     age  mapping
0x55d0c0a00000-0x55d0c1300000  9.0 MiB     0 %               0/20  900 ms  [heap]
0x55d0c1300000-0x55d0c1400000  1.0 MiB   100 %  ████████    20/20  900 ms  [heap]
0x7f31a4000000-0x7f31a4300000  3.0 MiB     0 %               0/20   9.9 s  locale-archive, libc.so.6
0x7f31a4300000-0x7f31a4400000  1.0 MiB    40 %  ███▎         8/20   9.9 s  libc.so.6
0x7ffd1c2a0000-0x7ffd1c2a2000  8.0 KiB    90 %  ███████▎    18/20   9.9 s  [stack]
"""
    )


def test_json_has_names_and_ages(capsys: pytest.CaptureFixture[str]) -> None:
    stairs(Path("r"))
    status, out, _ = report(capsys, "access", "--json", "-i", "r")
    assert status == 0
    (line,) = out.splitlines()
    found = json.loads(line)
    assert (found["target"], found["pid"], found["max_nr_accesses"]) == (0, 1234, 20)
    assert found["regions"][1] == {
        "start": HEAP + 9 * MIB,
        "end": HEAP + 10 * MIB,
        "nr_accesses": 20,
        "age": 9,
        "age_us": 900_000,
        "names": ["[heap]"],
    }
    assert [region["names"] for region in found["regions"]] == [
        ["[heap]"],
        ["[heap]"],
        ["locale-archive", "libc.so.6"],
        ["libc.so.6"],
        ["[stack]"],
    ]


def test_every_target_has_its_last_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    snapshots = [snapshot(n, [(0, 4096 << n, 5, 0)], target=t) for n in range(3) for t in range(2) if (n, t) != (2, 1)]
    write(Path("r"), snapshots, pids=(7, 8))
    _, out, _ = report(capsys, "access", "--json", "-i", "r")
    assert [(f["target"], f["regions"][0]["end"]) for f in map(json.loads, out.splitlines())] == [(0, 16384), (1, 8192)]
    _, out, _ = report(capsys, "access", "-i", "r", "--target", "1")
    assert out.splitlines()[0] == "target 1: program1 --flag (pid 8)"


def test_without_mappings_there_is_no_column_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, [(4096, 8192, 1, 3)])])
    _, out, _ = report(capsys, "access", "-i", "r")
    assert out.splitlines()[3:] == [
        "range             size  access            samples     age",
        "0x1000-0x2000  4.0 KiB     5 %  ▍            1/20  300 ms",
    ]


@pytest.mark.parametrize("columns", [20, 60, 200])
@pytest.mark.usefixtures("processes")
def test_a_terminal_of_any_width_is_not_exceeded(columns: int) -> None:
    stairs(Path("r"))
    lines = plain(on_terminal(columns, 24, "access", "-i", "r")).splitlines()
    assert max(len(line) for line in lines) <= columns
    assert "size" in lines[3]
    assert "1.0 MiB" in lines[5]


@pytest.mark.usefixtures("processes")
def test_long_commands_are_cut_before_the_pid(capsys: pytest.CaptureFixture[str]) -> None:
    about = metadata(42)
    about["targets"][0]["command"] = "/usr/bin/python3 /opt/a/serve.py --root /srv/data " + "x" * 200
    with RecordWriter("r", metadata=about) as writer:
        writer.add_snapshot(snapshot(0, [(4096, 8192, 1, 3)]))
    _, out, _ = report(capsys, "access", "-i", "r")
    assert out.splitlines()[0] == f"python3 serve.py --root /srv/data {'x' * 200} (pid 42)"
    first = plain(on_terminal(40, 24, "access", "-i", "r")).splitlines()[0]
    assert first == "python3 serve.py --root /srv/d… (pid 42)"


def test_names_from_a_record_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, [(4096, 8192, 1, 3)])], maps=[mapping(4096, 8192, "/tmp/\x1b[31mred\x07")])
    _, out, _ = report(capsys, "access", "-i", "r")
    assert "\x1b" not in out
    assert "\\x1b[31mred\\x07" in out


def test_several_targets_have_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    regions = [(0x1000, 0x1000 + 2 * MIB, 5, 1), (0x40000000, 0x40000000 + 3 * MIB, 0, 1)]
    write(Path("r"), [snapshot(0, regions), snapshot(0, regions[:1], target=1)], pids=(7, 8))
    out = report(capsys, "access", "-i", "r")[1]
    assert out.endswith("all 2 targets: 4.0 MiB of 7.0 MiB of memory accessed; shared memory counts for each\n")
    assert "all 2 targets" not in report(capsys, "access", "-i", "r", "--target", "1")[1]


def test_ages_are_those_of_the_clock_where_the_record_tells(capsys: pytest.CaptureFixture[str]) -> None:
    one = snapshot(0, [(0x1000, 0x3000, 0, 28)]).replace(age_ms=np.array([59_000], np.uint32))
    with RecordWriter("r", metadata=metadata(1234), optional=("age_ms",)) as writer:
        writer.add_snapshot(one)
    assert "59 s" in report(capsys, "access", "-i", "r")[1]
    (region,) = json.loads(report(capsys, "access", "-i", "r", "--json")[1])["regions"]
    assert (region["age"], region["age_us"]) == (28, 59_000_000)
