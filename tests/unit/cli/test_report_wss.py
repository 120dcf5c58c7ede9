"""``pydamon report wss``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.report_helpers import MIB, on_terminal, plain, report
from tests.unit.records.record_samples import AGGR_NS, START_NS, snapshot, write


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working sets of 1, 2, … 10 MiB, of which one MiB has 20 accesses and the rest one."""
    monkeypatch.chdir(tmp_path)
    snapshots = []
    for number in range(10):
        used = (number + 1) * MIB
        regions = [(0, MIB, 20, 0), (MIB, used, 1, 0), (used, 20 * MIB, 0, 0)]
        snapshots.append(snapshot(number, [region for region in regions if region[0] < region[1]]))
    write(Path("pydamon.damon"), snapshots)


def test_the_distribution_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "wss", "--all")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: 1 s, 10 snapshots, vaddr by bpf
working set: regions with at least 1 access per aggregation, address ranges: this record does not say what was resident
percentile      size
       0 %   1.0 MiB  █████▊
      25 %   3.0 MiB  █████████████████▍
      50 %   6.0 MiB  ██████████████████████████████████▊
      75 %   8.0 MiB  ██████████████████████████████████████████████▍
     100 %  10.0 MiB  ██████████████████████████████████████████████████████████
      mean   5.5 MiB  ███████████████████████████████▉
"""
    )


def test_json_has_the_agreed_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of 1..10 MiB is 5.5; of the ten sizes, 50 % is the sixth and 100 % the last."""
    status, out, err = report(capsys, "wss", "--json", "--all", "--percentiles", "0,50,99.5,100")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "resident": False,
        "targets": [
            {
                "target": 0,
                "pid": 1234,
                "mean_bytes": 55 * MIB // 10,
                "unknown_bytes": 0,
                "left_out_snapshots": 0,
                "percentiles": {"0": MIB, "50": 6 * MIB, "99.5": 10 * MIB, "100": 10 * MIB},
            }
        ],
    }


def test_what_was_recorded_while_regions_were_found_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The first snapshot has two regions, all others three: the least working set is that of the second, 2 MiB."""
    out = report(capsys, "wss")[1].splitlines()
    left_out = "9 snapshots (without the first 1, in which regions were still being found: --all)"
    assert out[1] == f"pydamon.damon: 900 ms, {left_out}, vaddr by bpf"
    assert out[4].split()[:4] == ["0", "%", "2.0", "MiB"]
    found = json.loads(report(capsys, "wss", "--json")[1])["targets"][0]
    assert (found["left_out_snapshots"], found["mean_bytes"]) == (1, 6 * MIB)
    # Neither over time nor in a later part is anything left out.
    assert len(json.loads(report(capsys, "wss", "--json", "--over", "time")[1])["targets"][0]["snapshots"]) == 10
    found = json.loads(report(capsys, "wss", "--json", "--from", "1us")[1])["targets"][0]
    assert (found["left_out_snapshots"], found["percentiles"]["0"]) == (0, MIB)


def test_a_higher_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, "wss", "--json", "--min-accesses", "2", "--percentiles", "100")
    assert json.loads(out)["targets"][0]["percentiles"] == {"100": MIB}
    _, out, _ = report(capsys, "wss", "--min-accesses", "2")
    assert out.splitlines()[2].startswith(
        "working set: regions with at least 2 accesses per aggregation, address ranges"
    )


def test_over_time_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "wss", "--over", "time")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: 1 s, 10 snapshots, vaddr by bpf
working set: regions with at least 1 access per aggregation, address ranges: this record does not say what was resident
  10M ┤                                                                ░███████
      │                                                         ▁▆▆▆▆▆▆████████
      │                                                  ▁▅▅▅▅▅▅███████████████
      │                                           ▁▃▃▃▃▃▃██████████████████████
      │                                    ▂▂▂▂▂▂▂█████████████████████████████
      │                                    ████████████████████████████████████
   5M ┤                            ░███████████████████████████████████████████
      │                     ▁▆▆▆▆▆▆████████████████████████████████████████████
      │              ▁▅▅▅▅▅▅███████████████████████████████████████████████████
      │       ▁▃▃▃▃▃▃██████████████████████████████████████████████████████████
      │▂▂▂▂▂▂▂█████████████████████████████████████████████████████████████████
      │████████████████████████████████████████████████████████████████████████
      └┬─────────────┬─────────────┬──────────────┬─────────────┬──────────────
      0 s           0.2           0.4            0.6           0.8            1
█ mean of each column, ░ up to its most
mean 5.5 MiB, most 10.0 MiB
"""
    )


def test_over_time_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, "wss", "--over", "time", "--json")
    assert json.loads(out)["targets"][0]["snapshots"] == [
        {"start_ns": START_NS + n * AGGR_NS, "end_ns": START_NS + (n + 1) * AGGR_NS, "bytes": (n + 1) * MIB}
        for n in range(10)
    ]


@pytest.mark.parametrize("columns", [20, 200])
@pytest.mark.parametrize("over", [[], ["--over", "time"]])
@pytest.mark.usefixtures("processes")
def test_a_terminal_of_any_width_is_not_exceeded(columns: int, over: list[str]) -> None:
    lines = plain(on_terminal(columns, 24, "wss", *over)).splitlines()
    assert max(len(line) for line in lines) <= columns
    assert len(lines) <= 24


@pytest.mark.parametrize("over", [[], ["--over", "time"]])
def test_pictures(capsys: pytest.CaptureFixture[str], over: list[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install matplotlib)")
    status, out, err = report(capsys, "wss", *over, "-o", "wss.png")
    assert (status, out, err) == (0, "wrote wss.png\n", "")
    assert Path("wss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--percentiles", "0,x"], "--percentiles: 'x' is not a number; write e.g. 0,50,99.9"),
        (["--percentiles", ""], "--percentiles: '' is not a number; write e.g. 0,50,99.9"),
        (["--percentiles", "nan"], "--percentiles: nan is not between 0 and 100"),
        (["--percentiles", "-1"], "--percentiles: -1 is not between 0 and 100"),
        (["--percentiles", "100.1"], "--percentiles: 100.1 is not between 0 and 100"),
        (["-o", "wss.txt"], "-o: wss.txt: pictures are .png, .svg or .html; choose such a name"),
        (["--target", "3"], "--target: pydamon.damon has no snapshot of target 3; its targets are: 0"),
    ],
)
def test_bad_requests(capsys: pytest.CaptureFixture[str], option: list[str], message: str) -> None:
    assert refused(capsys, "report", "wss", *option) == f"pydamon: {message}\n"


def test_a_picture_of_many_targets_says_how_much_the_rest_has(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    snapshots = [snapshot(n, [(MIB, (t + 2) * MIB, 1, 0)], target=t) for n in range(3) for t in range(41)]
    path = write(tmp_path / "r", snapshots, pids=tuple(range(41)))
    words = "and 36 smaller targets, 666.0 MiB on average together"
    status, out, err = report(capsys, "wss", "-i", path, "-o", tmp_path / "x.svg")
    assert (status, err) == (0, "")
    assert out == f"wrote {tmp_path / 'x.svg'}\n{words}; --all-targets shows each\n"
    assert words in (tmp_path / "x.svg").read_text()
    status, out, err = report(capsys, "wss", "-i", path, "-o", tmp_path / "all.svg", "--all-targets")
    assert (status, out, err) == (0, f"wrote {tmp_path / 'all.svg'}\n", "")


@pytest.mark.parametrize("what", [["--window", "5s"], ["--over", "window"]])
@pytest.mark.parametrize("more", [["--percentiles", "0,50"], ["--min-accesses", "2"], ["--all"]])
def test_options_that_a_window_knows_nothing_of_are_refused(
    capsys: pytest.CaptureFixture[str], what: list[str], more: list[str]
) -> None:
    status, _, err = report(capsys, "wss", *what, *more)
    assert status == 2
    assert f"{more[0]}: is of sizes by snapshot" in err
