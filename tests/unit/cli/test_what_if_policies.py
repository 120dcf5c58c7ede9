"""``pydamon what-if`` with policies: a recording that is played again, and what they do to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.what_if_helpers import MIB, recorded, sweep, told

from pydamon.analysis.wss import working_sets
from pydamon.cli import main
from pydamon.library.policies import Recording
from pydamon.records.batch import RegionBatch
from pydamon.records.joined import open_record

SWEPT = sweep(240)
PHASES = """#regions
a, 32 MiB
b, 64 MiB
c, 96 MiB

first
60000
a, 0, 4096, 1

second
60000
a, 0, 4096, 1
b, 1, 0, 1

third
60000
c, 0, 4096, 1
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four minutes, with a page panel."""
    return recorded(tmp_path_factory.mktemp("policies"), SWEPT)


@pytest.mark.parametrize("workload", [SWEPT, PHASES])
@pytest.mark.parametrize("panel", ["0", "1024"])
def test_recording_it_again_finds_the_same_working_set(tmp_path: Path, workload: str, panel: str) -> None:
    """Within 5 %, on average over the time."""
    with open_record(str(recorded(tmp_path, workload, "--panel", panel))) as reader:
        (before,) = working_sets(reader.batches())
        (after,) = working_sets([RegionBatch.of(Recording(reader).record())])
    assert after.settled().mean_bytes == pytest.approx(before.settled().mean_bytes, rel=0.05)


def test_what_is_taken_is_out_and_comes_back(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is never used is saved; what is swept every 30 s comes back, and less of it if 60 s are waited for."""
    found = told(capsys, swept, "--scheme", "pageout rate=0% age>=10s", "--scheme", "pageout rate=0% age>=60s")
    early, late = found["policies"]
    assert early["saved_bytes"] > late["saved_bytes"] > 40 * MIB
    assert early["refaults"] == pytest.approx(128 * MIB, rel=0.35)
    assert early["refaults"] > 3 * late["refaults"]
    assert early["worst_minute_bytes"] >= early["refaults"]
    assert early["paged_out_bytes"] > late["paged_out_bytes"]
    assert len(early["seconds"]) == len(early["resident_bytes"])
    assert max(early["resident_bytes"]) <= found["memory_bytes"]
    assert any("age>=10s would thrash" in line for line in found["remarks"])


def test_the_same_recording_and_policy_do_the_same(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--scheme", "pageout rate=0% age>=20s quota=8MiB/1s", "--to", "2min"]
    assert told(capsys, swept, *wanted) == told(capsys, swept, *wanted)


def test_files_and_modules_side_by_side(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("schemes:\n- pageout rate=0% age>=40s\n- stat\n")
    module = "reclaim min_age=30s"
    capsys.readouterr()
    assert main(["what-if", str(swept), "--schemes", str(file), "--module", module]) == 0
    out, err = capsys.readouterr()
    assert str(file) in out
    assert module in out
    assert f"played as if always active, since nothing says how much memory was free: {module}" in err


def test_huge_pages_can_be_tried_on_a_recording(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many accesses they get is asked of the recording; nothing leaves memory."""
    (found,) = told(capsys, swept, "--scheme", "hugepage rate>=10%", "--to", "30s")["policies"]
    assert found["refaults"] == found["paged_out_bytes"] == 0


def test_a_picture_of_what_is_in_memory(swept: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "policies.svg"
    assert main(["what-if", str(swept), "--scheme", "pageout rate=0% age>=40s", "-o", str(drawn)]) == 0
    assert "In memory under each policy" in drawn.read_text()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--scheme", "pageout age>=nonsense"], "--scheme: "),
        (["--module", "reclaim min_age=-1s"], "--module: "),
        (["--module", "nothing"], "--module: "),
        (["--module", "reclaim driver=pressure"], "driver: pressure asks a cgroup"),
        (["--module", "zram_writeback"], "is a loop beside schemes"),
        (["--schemes", "/nonexistent"], "pydamon: --schemes /nonexistent: cannot be read: "),
        (["--scheme", "stat"] * 17, "17 policies are too many"),
    ],
)
def test_policies_that_cannot_be_are_refused(
    swept: Path, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "what-if", str(swept), *wrong)


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("MAX_TOTAL_BYTES", 4 * MIB, "were in memory; the most that is played is 4.0 MiB"),
        ("MAX_DURATION_MS", 1000, "lasts 4 min; the most that is played is 1 s"),
    ],
)
def test_a_recording_beyond_the_limits_of_workloads_is_not_played(
    swept: Path,
    limit: str,
    value: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(f"pydamon.run.simulation.recorded.{limit}", value)
    assert main(["what-if", str(swept), "--scheme", "pageout"]) == 1
    assert words in capsys.readouterr().err
