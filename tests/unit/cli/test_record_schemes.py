"""``record --scheme`` and ``--schemes``: what reaches the engine, the record and the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.again import for_longer
from tests.unit.cli.report_helpers import report

from pydamon.cli import main
from pydamon.engines.sim import SimEngine
from pydamon.records.reader import RecordReader
from pydamon.spec.actions import NO_SWAP

SIM = ["record", "--ops", "sim", "--workload", "stairs"]
MIB = 1 << 20


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.damon"


def last_statistics(path: Path) -> list[dict[str, object]]:
    with RecordReader(str(path)) as reader:
        rows = [row for piece in reader.table("schemes") for row in piece.to_pylist()]
    newest = max(row["time_ns"] for row in rows)
    return [row for row in rows if row["time_ns"] == newest]


def test_statistics_and_tried_regions_are_in_the_record(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemes = ["--scheme", "stat rate=0% age>=1s", "--scheme", "pageout rate=0% age>=2s quota=64MiB/1s name=cold"]
    assert main([*SIM, *schemes, "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert "scheme 0 (stat): counted" in said
    assert "scheme cold (pageout): was applied to" in said
    stat, pageout = last_statistics(out)
    assert (stat["action"], stat["name"], pageout["action"], pageout["name"]) == ("stat", "", "pageout", "cold")
    # The kernel's stat applies to nothing (docs/algorithms.md 1.3).
    assert (stat["sz_applied"], stat["effective_bytes"]) == (0, None)
    assert pageout["effective_bytes"] == 64 * MIB
    # Stairs: 10 regions of 10 MiB, of which 9 are cold at any time.
    assert isinstance(pageout["sz_applied"], int)
    assert pageout["sz_applied"] >= 90 * MIB
    with RecordReader(str(out)) as reader:
        pieces = list(reader.table("tried_regions"))
        first = next(piece for piece in pieces if piece["scheme"][0].as_py() == 0).to_pylist()
    assert all(row["nr_accesses"] == 0 and row["age"] >= 10 for row in first)
    assert report(capsys, "schemes", "-i", out)[1].count("64.0 MiB") > 10
    status, text, _ = report(capsys, "schemes", "-i", out, "--json")
    assert status == 0
    assert json.loads(text)["statistics"][-1]["qt_exceeds"] == pageout["qt_exceeds"]


@pytest.mark.parametrize(("swap", "scheme", "times"), [(0, "pageout", 2), (1 << 30, "pageout", 0), (0, "cold", 0)])
def test_that_there_is_no_swap_is_said_at_the_start_and_with_what_was_done(
    swap: int, scheme: str, times: int, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimEngine, "swap_bytes", lambda self: swap)
    assert main([*SIM, "--scheme", f"{scheme} rate=0%", "--duration", "3s", "-o", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum(NO_SWAP in line for line in said) == times
    assert (said[0] == f"pydamon: {NO_SWAP}") == bool(times)


@pytest.mark.parametrize(
    "text",
    [
        '[{"action": "stat", "access_pattern": {"age": {"min": "1 s", "max": "max"}}, "name": "x"}]',
        "- action: stat\n  access_pattern:\n    age: {min: 1 s, max: max}\n",
        "stat age>=1s\n",
        "# a line of damo's\nmin max 0 0 1s max stat\n",
        "4096 18446744073709551615 0 0 10 4294967295 5\n",  # debugfs of Linux 5.15: 5 is stat
    ],
)
def test_schemes_come_from_files_of_any_form(
    text: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schemes"
    path.write_text(text)
    assert main([*SIM, "--duration", "5s", "--schemes", str(path), "-o", str(out)]) == 0
    (row,) = last_statistics(out)
    assert row["action"] == "stat"
    assert isinstance(row["sz_tried"], int)
    assert row["sz_tried"] > 0


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--scheme", "pageout rat=0%"], 2, "--scheme: 'rat=0%': there is no key 'rat'; did you mean rate?"),
        (["--scheme", "pageout size>=4K size<=1K"], 2, "--scheme: access_pattern.sz_bytes.min: 4.0 KiB is above"),
        (["--scheme", "pagout"], 2, "--scheme: 'pagout' is no action; did you mean pageout?"),
        (["--scheme", "stat", "--scheme", "migrate_hot"], 2, "--scheme 'migrate_hot': target_nid: is needed"),
        (["--scheme", "migrate_hot node=9"], 3, "--scheme: target_nid: NUMA node 9 is not there"),
        (["--scheme", '{"action": "stat", "x": 1}'], 2, "--scheme: schemes[0]"),
        (["--schemes", "/does/not/exist"], 2, "--schemes /does/not/exist: cannot be read"),
        (["--schemes", "/dev/null"], 2, "--schemes /dev/null: is empty"),
        (["--schemes", "/"], 2, "--schemes /: cannot be read: Is a directory"),
        (["--dry-run"], 2, "--dry-run: is about schemes; give --scheme or --schemes"),
        (["--undo"], 2, "--undo: is about schemes"),
        (["--scheme", "stat", "--dry-run"], 2, "--dry-run: is for real memory; ops sim has none"),
        (["--scheme", "pageout goal=some_mem_psi_us:1ms/1s goal=0"], 2, "--scheme: 'goal="),
    ],
)
def test_what_is_wrong_is_one_line_and_there_is_no_record(
    args: list[str], status: int, message: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SIM, *args, "-o", str(out)]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"pydamon: {message}")
    assert said.count("\n") == 1
    assert not out.exists()


def test_an_error_in_a_file_names_the_file_and_the_field(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.json"
    path.write_text('[{"action": "stat"}, {"action": "stat", "quotas": {"sz_bytes": "many"}}]')
    assert main([*SIM, "--schemes", str(path), "-o", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"pydamon: --schemes {path}: schemes[1].quotas.sz_bytes: ")


def test_the_plan_in_words_has_the_schemes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIM, "--explain", "--scheme", "pageout rate=0% age>=60s quota=128MiB/1s"]) == 0
    text = capsys.readouterr().out
    assert "Scheme 0: every 100 ms (aggregation interval), memory that was not accessed for 60 s or more" in text
    assert "At most 128 MiB per 1 s" in text


HOLDER = """
import mmap, sys, time
m = mmap.mmap(-1, 32 << 20)
for i in range(0, 32 << 20, 4096): m[i] = 1
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(processes: None) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="process_madvise on another process needs CAP_SYS_NICE")
def test_a_dry_run_names_ranges_bytes_owner_and_quota_and_touches_nothing(
    holder: int, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--sample", "10ms", "--aggr", "100ms", "--force", "-o", str(out)]
    before = Path(f"/proc/{holder}/smaps_rollup").read_text()
    scheme = "cold age>=200ms rate=0% quota=1GiB/1s"
    plan = said = ""

    def record(duration: str) -> None:
        nonlocal plan, said
        words = ["record", *options, "--primitive", "smaps", "--dry-run", "--scheme", scheme, "--duration", duration]
        assert main([*words, str(holder)]) == 0
        plan, said = capsys.readouterr()

    def planned() -> bool:
        heads = [line for line in plan.splitlines() if "would act on" in line]
        return any(
            "scheme 0 (cold)" in line and "of target 0" in line and "effective quota 1.0 GiB" in line for line in heads
        )

    for_longer(record, planned, 1.5)
    assert f"(pid {holder})" in plan
    assert "scheme 0 (cold): would have been applied to" in said
    rss = [line for line in before.splitlines() if line.startswith("Rss:")]
    after = Path(f"/proc/{holder}/smaps_rollup").read_text()
    assert rss == [line for line in after.splitlines() if line.startswith("Rss:")]
