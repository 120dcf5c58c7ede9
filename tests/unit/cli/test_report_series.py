"""``pydamon report footprint``, ``bandwidth``, ``cost`` and ``schemes``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.cli.report_helpers import report, stairs
from tests.unit.cli.rich_record import HEAP, MIB, rich
from tests.unit.records.record_samples import START_NS, metadata, snapshot

from pydamon.library.build import make_spec
from pydamon.records.writer import RecordWriter
from pydamon.spec import to_builtins
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.statistics import STATISTICS


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rich(Path("pydamon.damon"))


def test_footprint(capsys: pytest.CaptureFixture[str]) -> None:
    """The working set is 1 and 2 MiB in turn, which is 19 % of the 8 that are resident."""
    status, out, err = report(capsys, "footprint")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: 30 snapshots, working set in address ranges: this record does not say what was resident, vaddr by bpf
                least      mean      most      last
working set   1.0 MiB   1.5 MiB   2.0 MiB   2.0 MiB
resident      8.0 MiB   8.0 MiB   8.0 MiB   8.0 MiB
virtual      64.0 MiB  64.0 MiB  64.0 MiB  64.0 MiB
swap          4.0 KiB   8.0 KiB  12.0 KiB  12.0 KiB
the working set is 19 % of what is resident (means)
"""
    )


def test_footprint_as_json_has_the_working_set_of_the_same_time(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, "footprint", "--json", "--to", "1s")
    found = json.loads(out)
    assert found["mean_working_set_bytes"] == 3 * MIB // 2
    assert found["samples"] == [
        {
            "time_ns": START_NS + 10**9,
            "working_set_bytes": 2 * MIB,
            "virtual_bytes": 64 * MIB,
            "resident_bytes": 8 * MIB,
            "swap_bytes": 4096,
        }
    ]


def test_footprint_of_a_record_without_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    stairs(Path("r"))
    status, out, _ = report(capsys, "footprint", "-i", "r")
    assert status == 0
    assert out.splitlines()[-1] == "resident, virtual and swap sizes are not in this record"


def test_bandwidth(capsys: pytest.CaptureFixture[str]) -> None:
    """1 MiB × 20 accesses in 100 ms, and in every second snapshot another one × 10: 200 and 300 MiB/s."""
    status, out, err = report(capsys, "bandwidth")
    assert (status, err) == (0, "")
    assert out.splitlines()[-2:] == [
        "mean 250.0 MiB/s, most 300.0 MiB/s",
        "domain 0 (measured by resctrl): 2.0 MiB of cache, 3.0 MiB/s",
    ]
    _, out, _ = report(capsys, "bandwidth", "--json", "--to", "200ms")
    found = json.loads(out)
    assert [one["bytes_per_s"] for one in found["snapshots"]] == [200 * MIB, 300 * MIB]
    assert found["mean_bytes_per_s"] == 250 * MIB


def test_cost(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "cost")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
pydamon.damon
pydamon.damon: what monitoring cost, vaddr by bpf
up to     CPU  checks/s  checking  clears/s  clearing  disturbed
1 s    5.00 %     2,000    2.00 %       200    1.00 %     0.50 %
2 s    5.00 %     2,000    2.00 %       200    1.00 %     0.50 %
3 s    5.00 %     2,000    2.00 %       200    1.00 %     0.50 %
all    5.00 %     2,000    2.00 %       200    1.00 %     0.50 %
"""
    )


def test_the_cost_of_a_part_is_not_that_of_all_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The counters run since the start of the recording."""
    lines = report(capsys, "cost", "--from", "1.5s", "--to", "2s")[1].splitlines()
    assert [line.split()[:4] for line in lines[3:]] == [["2", "s", "5.00", "%"], ["all", "5.00", "%", "2,000"]]


def test_cost_of_a_record_that_does_not_say(capsys: pytest.CaptureFixture[str]) -> None:
    stairs(Path("r"))
    status, out, err = report(capsys, "cost", "-i", "r")
    assert (status, out) == (1, "")
    assert err == "pydamon: r: does not say what it cost (simulated, imported, or shorter than a second)\n"


def test_schemes_over_time(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = report(capsys, "schemes")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
scheme 0: reclaim
at   active  tried  tried bytes   passed  applied  quota used up  effective quota
1 s      no      2      2.0 MiB  2.0 MiB  1.0 MiB              0          1.0 MiB
2 s     yes      4      4.0 MiB  4.0 MiB  2.0 MiB              0          1.0 MiB
3 s     yes      6      6.0 MiB  6.0 MiB  3.0 MiB              0          1.0 MiB
"""
    )


@pytest.mark.parametrize(("swap_bytes", "ops", "told"), [(0, "vaddr", False), (4096, "vaddr", True), (0, "sim", None)])
def test_that_there_was_no_swap_is_said_with_schemes_that_need_it(
    swap_bytes: int, ops: str, told: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, Any] = {"time_ns": START_NS, "scheme": 0, "name": "", "action": "pageout", "active": True}
    row |= dict.fromkeys(STATISTICS, 0)
    about = metadata() | {"ops": ops}
    about["machine"]["swap_bytes"] = swap_bytes
    with RecordWriter("s", metadata=about) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 0, 0)]))
        writer.add_rows("schemes", [row, row | {"scheme": 1, "action": "cold"}], time_ns=START_NS)
    lines = report(capsys, "schemes", "-i", "s")[1].splitlines()
    assert [number for number, line in enumerate(lines) if line == NO_SWAP] == ([3] if told is False else [])
    assert json.loads(report(capsys, "schemes", "-i", "s", "--json")[1])["swap"] is told


def test_schemes_that_leave_anonymous_memory_alone_need_no_swap(capsys: pytest.CaptureFixture[str]) -> None:
    """Two alike but for the filter; a third came later, and is known by its action only."""
    row: dict[str, Any] = {"time_ns": START_NS, "scheme": 0, "name": "", "action": "pageout", "active": True}
    row |= dict.fromkeys(STATISTICS, 0)
    spec = make_spec(1, schemes=["pageout filter=reject:anon", "pageout"])
    about = metadata() | {"ops": "vaddr", "spec": to_builtins(spec)}
    about["machine"]["swap_bytes"] = 0
    with RecordWriter("s", metadata=about) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 0, 0)]))
        writer.add_rows("schemes", [row | {"scheme": number} for number in range(3)], time_ns=START_NS)
    lines = report(capsys, "schemes", "-i", "s")[1].splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("scheme ")]
    parts = [lines[low:high] for low, high in zip(heads, [*heads[1:], None], strict=True)]
    assert [NO_SWAP in part for part in parts] == [False, True, True]


def test_the_regions_that_were_tried_last(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = report(capsys, "schemes", "--tried")
    assert out.splitlines() == [
        "scheme 0: reclaim",
        "tried at 3 s: 1 region",
        "range                             size  accesses  age   passed  applied",
        "0x55d0c0c00000-0x55d0c0f00000  3.0 MiB         0   29  3.0 MiB  1.0 MiB",
    ]
    assert report(capsys, "schemes", "--tried", "--address", "0-4096")[1].splitlines()[1] == "no region was tried"
    assert report(capsys, "schemes", "--tried", "--target", "7")[1].splitlines()[1] == "no region was tried"


def test_schemes_as_json_have_all_statistics_and_the_last_pass(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(report(capsys, "schemes", "--json", "--to", "2s")[1])
    assert [row["sz_applied"] for row in found["statistics"]] == [MIB, 2 * MIB]
    assert [(row["start"], row["end"]) for row in found["tried_regions"]] == [(HEAP + 2 * MIB, HEAP + 4 * MIB)]


def test_a_record_without_schemes(capsys: pytest.CaptureFixture[str]) -> None:
    stairs(Path("r"))
    assert report(capsys, "schemes", "-i", "r") == (
        1,
        "",
        "pydamon: r: has no schemes' statistics: none was running\n",
    )


def test_side_tables_with_other_columns_are_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Of another program, or damaged: texts and nothing where numbers should be."""
    with RecordWriter("r", metadata=metadata(1)) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
        for name in ("footprint", "cost", "resctrl", "schemes", "tried_regions", "reverse_map"):
            strange = [{"time_ns": None, "target": "x"}, {"time_ns": 5, "target": "y"}]
            writer.add_opaque(name, pa.Table.from_pylist(strange))
            writer.add_opaque(name, pa.Table.from_pylist([{"a": 1.5}]))
    for verb, status in (("footprint", 0), ("bandwidth", 0), ("cost", 1), ("schemes", 1)):
        assert report(capsys, verb, "-i", "r")[0] == status
