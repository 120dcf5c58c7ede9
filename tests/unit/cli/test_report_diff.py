"""``pydamon report diff``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import HEAP, MIB, rich
from tests.unit.records.record_samples import mapping, snapshot, write

ELSEWHERE = 0x560000000000


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rich(Path("a"))
    heap, library = mapping(HEAP, HEAP + 2 * MIB, "[heap]"), mapping(HEAP + 2 * MIB, HEAP + 4 * MIB, "/x/libx.so.1")
    regions = [(HEAP, HEAP + MIB, 4, 0), (HEAP + MIB, HEAP + 2 * MIB, 5, 0), (HEAP + 2 * MIB, HEAP + 3 * MIB, 20, 0)]
    write(Path("b"), [snapshot(number, regions) for number in range(10)], maps=[heap, library])


def test_by_address(capsys: pytest.CaptureFixture[str]) -> None:
    """100 %, 25 % (a half in every second), twice 0 became 20, 25, 100 and nothing; the working set 1.5 MiB 3 MiB."""
    status, out, err = report(capsys, "diff", "a", "b")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
a -> b, target 0
mean working set 1.5 MiB -> 3.0 MiB (+1.5 MiB), address ranges: this record does not say what was resident
two processes: where their addresses differ, compare with --by mapping
colder 1.0 MiB, gone 1.0 MiB, hotter 1.0 MiB
range                             size  change  before  after  mapping
0x55d0c0a00000-0x55d0c0b00000  1.0 MiB  colder   100 %   20 %  [heap]
0x55d0c0c00000-0x55d0c0d00000  1.0 MiB  hotter     0 %  100 %  libx.so.1
0x55d0c0d00000-0x55d0c0e00000  1.0 MiB    gone     0 %      -  libx.so.1
"""
    )


def test_by_address_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(report(capsys, "diff", "a", "b", "--json")[1])
    assert found["mean_working_set_bytes"] == {"before": 3 * MIB // 2, "after": 3 * MIB}
    assert found["changes"][0] == {
        "start": HEAP,
        "end": HEAP + MIB,
        "kind": "colder",
        "rate_before": 1.0,
        "rate_after": 0.2,
        "bytes": MIB,
    }


def test_a_record_is_the_same_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "diff", "a", "a")[1].splitlines()
    assert lines[1].startswith("mean working set 1.5 MiB -> 1.5 MiB (+0 B), address ranges")
    assert lines[2:] == ["no range differs by 5 % of the samples or more"]


def test_by_mapping_the_same_program_at_other_addresses_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What address space randomization does: by address everything is gone and new, by name nothing has changed."""
    rich(Path("c"), base=ELSEWHERE, pid=99, ticks=1)
    by_address = json.loads(report(capsys, "diff", "a", "c", "--json")[1])
    assert {change["kind"] for change in by_address["changes"]} == {"gone", "new"}
    found = json.loads(report(capsys, "diff", "a", "c", "--by", "mapping", "--json")[1])
    heap = {"bytes": 2 * MIB, "rate": 0.625}  # one MiB at 100 %, one at 25 %
    library = {"bytes": 2 * MIB, "rate": 0.0}
    assert found["mappings"] == [
        {"name": "[heap]", "kind": "same", "before": heap, "after": heap},
        {"name": "libx.so.1", "kind": "same", "before": library, "after": library},
    ]


def test_by_mapping_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "diff", "a", "b", "--by", "mapping")[1].splitlines()
    assert lines[2:] == [
        "mapping    change     size      now    rate      now",
        "libx.so.1  hotter  2.0 MiB  1.0 MiB   0.0 %  100.0 %",
        "[heap]     colder  2.0 MiB  2.0 MiB  62.5 %   22.5 %",
    ]


def test_by_mapping_needs_mappings(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("bare"), [snapshot(0, [(0, 4096, 1, 0)])])
    status, out, err = report(capsys, "diff", "a", "bare", "--by", "mapping")
    assert (status, out) == (2, "")
    assert err == "pydamon: bare: does not say what was mapped: compare by address\n"


def test_windows_hold_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(
        report(capsys, "diff", "a", "b", "--json", "--to", "100ms", "--address", f"{HEAP:#x}-{HEAP + MIB:#x}")[1]
    )
    assert found["mean_working_set_bytes"] == {"before": MIB, "after": MIB}
    assert [(c["start"], c["end"]) for c in found["changes"]] == [(HEAP, HEAP + MIB)]
