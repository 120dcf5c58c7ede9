"""``pydamon report profile``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.records.record_samples import START_NS, metadata, snapshot, write

from pydamon.records.writer import RecordWriter

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one second every second 100 ms are hot, from the first on."""
    monkeypatch.chdir(tmp_path)
    write(
        Path("pydamon.damon"), [snapshot(n, [(0, MIB, 20 * (1 - n % 2), 0), (MIB, 2 * MIB, 1, 5)]) for n in range(10)]
    )


def _sample(at_ms: int, symbol: str, pid: str = "1234/1235") -> str:
    """As perf script prints it with -F comm,pid,tid,time,event,ip,sym,dso, and a caller on the next line."""
    time_ns = START_NS + at_ms * 1_000_000
    seconds = f"{time_ns // 10**9}.{time_ns % 10**9 // 1000:06d}"
    head = f"   prog ram {pid} [001] {seconds}:   10101 cpu-clock:u: \n"
    return f"{head}\t    7f001 {symbol}+0x1f (/usr/lib/libx.so.1)\n\t 55d1 main+0x1 (/bin/prog)\n\n"


def _profile(*samples: str) -> None:
    Path("perf.txt").write_text("# a comment of perf\n" + "".join(samples))


def test_what_was_executed_while_memory_was_hot(capsys: pytest.CaptureFixture[str]) -> None:
    """Hot are 0 to 100 ms, 200 to 300, …: three of four samples of copy, one of two of wait."""
    times = [(10, "copy"), (99, "copy"), (250, "copy"), (150, "copy"), (450, "wait"), (350, "wait")]
    _profile(*(_sample(at, symbol) for at, symbol in times))
    status, out, err = report(capsys, "profile", "--perf", "perf.txt")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
hot: bytes x access rate at least 50 % of the maximum; address ranges: this record does not say what was resident
hot for 500 ms with 4 samples, the rest 500 ms with 2
while hot    else  symbol
   75.0 %  50.0 %  copy (libx.so.1)
   25.0 %  50.0 %  wait (libx.so.1)
"""
    )


def test_as_json_with_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    _profile(_sample(10, "copy"), _sample(5000, "late"), _sample(10, "other", pid="99/99"), _sample(20, "x", pid="7"))
    found = json.loads(report(capsys, "profile", "--perf", "perf.txt", "--json")[1])
    assert found == {
        "target": 0,
        "hot_ns": 500_000_000,
        "rest_ns": 500_000_000,
        "resident": False,
        "samples": {"hot": 2, "rest": 0, "outside": 1, "other_processes": 1},
        "symbols": [
            {"symbol": "copy (libx.so.1)", "hot": 1, "rest": 0},
            {"symbol": "x (libx.so.1)", "hot": 1, "rest": 0},
        ],
    }


def test_hot_may_be_about_some_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    """The second MiB is equally warm all the time."""
    _profile(_sample(150, "copy"))
    found = json.loads(report(capsys, "profile", "--perf", "perf.txt", "--json", "--address", "1M-2M")[1])
    assert (found["hot_ns"], found["rest_ns"], found["samples"]["hot"]) == (10**9, 0, 1)
    found = json.loads(report(capsys, "profile", "--perf", "perf.txt", "--json", "--hot", "1")[1])
    assert found["hot_ns"] == 10**9


def test_samples_on_one_line_and_samples_without_a_symbol(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = START_NS // 10**9
    _profile(
        f"prog 1234/1 {seconds}.010000: cpu-clock:      7fd37b4c4580 f(int, char) (/usr/lib/libc.so.6)\n",
        f"prog 1234/1 {seconds}.020000: cpu-clock:      7fd37b4c4580 [unknown] ([unknown])\n",
        f"prog 1234/1 {seconds}.030000: cpu-clock: \n\n",
        f"prog 1234/1 {seconds}.040000: cpu-clock: \n",
    )
    found = json.loads(report(capsys, "profile", "--perf", "perf.txt", "--json")[1])
    assert {one["symbol"]: one["hot"] for one in found["symbols"]} == {
        "[unknown]": 2,
        "[unknown] ([unknown])": 1,
        "f(int, char) (libc.so.6)": 1,
    }


def test_samples_of_another_clock_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    _profile(_sample(10**7, "copy"))
    status, out, err = report(capsys, "profile", "--perf", "perf.txt")
    assert (status, out) == (2, "")
    assert err == (
        "pydamon: --perf: none of its 1 samples is of this process and time (5.000 to 6.000 s); "
        "record with: perf record -k CLOCK_MONOTONIC -p PID\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "--perf: perf.txt holds no samples; it must be what perf script prints"),
        (b"\x00\xff" * 70_000, "--perf: perf.txt holds no samples; it must be what perf script prints"),
        (b"hello\n" * 3, "--perf: perf.txt holds no samples; it must be what perf script prints"),
    ],
)
def test_what_is_no_profile(capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    Path("perf.txt").write_bytes(content)
    status, out, err = report(capsys, "profile", "--perf", "perf.txt")
    assert (status, out, err.splitlines()[-1]) == (2, "", f"pydamon: {message}")
    assert "\x00" not in err


def test_files_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for path, reason in (
        ("none", "cannot be opened: No such file or directory"),
        (".", "cannot be read: Is a directory"),
    ):
        assert report(capsys, "profile", "--perf", path) == (2, "", f"pydamon: --perf: {path} {reason}\n")


def test_virtual_time_has_no_samples(capsys: pytest.CaptureFixture[str]) -> None:
    _profile(_sample(1, "copy"))
    with RecordWriter("r", metadata=metadata(1, clock="virtual")) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    status, _, err = report(capsys, "profile", "--perf", "perf.txt", "-i", "r")
    assert (status, err) == (2, "pydamon: --perf: r is in virtual time; there are no CPU samples of that\n")


def test_a_record_of_several_targets_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(0, [(0, 4096, 1, 0)], target=t) for t in (0, 1)], pids=(1234, 2))
    _profile(_sample(1, "copy"))
    assert report(capsys, "profile", "--perf", "perf.txt", "-i", "r")[2] == (
        "pydamon: --target: r has 2 targets; choose one\n"
    )
    assert report(capsys, "profile", "--perf", "perf.txt", "-i", "r", "--target", "0")[0] == 0
