"""``pydamon report access``: another time, another order, some regions only, other views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.report_helpers import HEAP, LIBC, MIB, STACK, on_terminal, plain, report, stairs
from tests.unit.records.record_samples import snapshot, write


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last snapshot: 9 cold MiB and a hot one of heap, 3 cold MiB and a warm one of libc, a hot stack."""
    monkeypatch.chdir(tmp_path)
    stairs(Path("pydamon.damon"))


def _starts(capsys: pytest.CaptureFixture[str], *options: str) -> list[int]:
    status, out, err = report(capsys, "access", "--json", *options)
    assert (status, err) == (0, "")
    return [region["start"] for region in json.loads(out)["regions"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--by", "hottest"], [HEAP + 9 * MIB, STACK, LIBC + 3 * MIB, LIBC, HEAP]),
        (["--by", "coldest", "--top", "2"], [LIBC, HEAP]),
        (["--by", "recency", "--top", "1"], [HEAP + 9 * MIB]),
        (["--by", "temperature"], [HEAP + 9 * MIB, STACK, LIBC + 3 * MIB, HEAP, LIBC]),
        (["--size", "1M-3M"], [HEAP + 9 * MIB, LIBC, LIBC + 3 * MIB]),
        (["--size", "-64K"], [STACK]),
        (["--rate", "50-"], [HEAP + 9 * MIB, STACK]),
        (["--rate", "0"], [HEAP, LIBC]),
        (["--age", "5s-"], [LIBC, LIBC + 3 * MIB, STACK]),
        (["--mapping", "heap"], [HEAP, HEAP + 9 * MIB]),
        (["--mapping", "libc.so.?"], [LIBC, LIBC + 3 * MIB]),
        (["--mapping", "[s*]"], [STACK]),
        (["--rate", "1-", "--mapping", "libc"], [LIBC + 3 * MIB]),
        (["--address", f"{LIBC + MIB:#x}-{LIBC + 2 * MIB:#x}"], [LIBC + MIB]),
    ],
)
def test_orders_and_filters(capsys: pytest.CaptureFixture[str], options: list[str], expected: list[int]) -> None:
    assert _starts(capsys, *options) == expected


@pytest.mark.parametrize(
    ("at", "number"), [("0s", 0), ("99ms", 0), ("100ms", 1), ("5.25s", 52), ("1h", 99), ("-1s", 90)]
)
def test_the_snapshot_of_a_time(capsys: pytest.CaptureFixture[str], at: str, number: int) -> None:
    """One snapshot takes 100 ms; which MiB is hot changes every tenth."""
    found = json.loads(report(capsys, "access", "--json", "--at", at, "--rate", "100-")[1])
    assert [(one["start"], one["age"]) for one in found["regions"]] == [(HEAP + number // 10 * MIB, number % 10)]


def test_in_a_break_the_snapshot_before_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(number, [(0, 4096, number, 0)]) for number in (0, 1, 8)])
    found = json.loads(report(capsys, "access", "--json", "--at", "500ms", "-i", "r")[1])
    assert found["regions"][0]["nr_accesses"] == 1


def test_a_target_that_joined_later_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(n, [(0, 4096, n, 0)], target=int(n > 2)) for n in range(5)], pids=(1, 2))
    _, out, _ = report(capsys, "access", "--json", "--at", "100ms", "-i", "r")
    assert [json.loads(line)["target"] for line in out.splitlines()] == [0]
    status, _, err = report(capsys, "access", "--at", "100ms", "--target", "1", "-i", "r")
    assert (status, err) == (2, "pydamon: --at: r has no snapshot by then\n")


def test_text_says_how_many_regions_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "access", "--rate", "50-", "--by", "hottest")[1].splitlines()
    assert lines[1].startswith(
        "pydamon.damon: the 100 ms up to 10 s, 2 of 5 regions, 1.0 MiB of 1.0 MiB of address ranges accessed"
    )
    assert [line.split()[0] for line in lines[4:]] == ["0x55d0c1300000-0x55d0c1400000", "0x7ffd1c2a0000-0x7ffd1c2a2000"]


def test_one_line_of_heat(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "access", "--view", "strip")[1].splitlines()
    assert len(lines) == 3
    assert set(lines[2]) == {".", "@", "+"}


def test_boxes_are_wider_the_larger_and_higher_the_older(capsys: pytest.CaptureFixture[str]) -> None:
    """Widths are on a scale of powers of two from 8 KiB to 9 MiB, heights on one of ages up to 9.9 s."""
    lines = report(capsys, "access", "--view", "boxes", "--mapping", "stack")[1].splitlines()[3:]
    assert (lines[0].endswith("8.0 KiB, 90 %, 9.9 s, [stack]"), len(lines)) == (True, 5)
    lines = report(capsys, "access", "--view", "boxes")[1].splitlines()[3:]
    heads = [line for line in lines if "," in line]
    widths = [len(line.split()[0]) for line in heads]
    assert [head.split("  ")[1].split(",")[0] for head in heads] == [
        "9.0 MiB",
        "1.0 MiB",
        "3.0 MiB",
        "1.0 MiB",
        "8.0 KiB",
    ]
    assert widths[0] > widths[2] > widths[1] == widths[3] > widths[4]
    assert len(lines) == 3 + 3 + 5 + 5 + 5  # 0.9 s and 9.9 s: log2(1 + 9) is half of log2(1 + 99)


@pytest.mark.parametrize("view", ["table", "boxes", "strip"])
@pytest.mark.parametrize("columns", [20, 80])
@pytest.mark.usefixtures("processes")
def test_no_view_exceeds_the_terminal(view: str, columns: int) -> None:
    lines = plain(on_terminal(columns, 24, "access", "--view", view, "--by", "coldest")).splitlines()
    assert max(len(line) for line in lines) <= columns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3M-1M"], "'--size': '3M-1M': the first must not be more than the second"),
        (["--rate", "101"], "'--rate': '101' is no percentage of the samples (0 to 100); write MIN-MAX, MIN- or -MAX"),
        (["--rate", "nan"], "'--rate': 'nan' is no percentage of the samples (0 to 100); write MIN-MAX, MIN- or -MAX"),
        (["--age", "x-"], "'--age': 'x' is not a time; write it like 5ms, 1.5s or 2min; write MIN-MAX, MIN- or -MAX"),
        (["--address", "5"], "'--address': '5' is not START-END"),
        (["--top", "0"], "'--top': 0 is not in the range x>=1"),
        (["--at", "soon"], "'--at': 'soon' is not a time; write it like 5ms, 1.5s or 2min"),
    ],
)
def test_bad_requests(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    told = refused(capsys, "report", "access", *options)
    assert told == f"pydamon report access: Invalid value for {message} (see pydamon report access --help)\n"
