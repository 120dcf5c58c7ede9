"""Bytes are of memory: what was resident, where a record tells; address ranges, where it does not, or if asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.report_helpers import report

from pydamon.analysis.bandwidth import bandwidths
from pydamon.analysis.distribution import age_s, distributions, unaccessed_s
from pydamon.analysis.distribution import total as total_distribution
from pydamon.analysis.totals import TOTAL
from pydamon.analysis.wss import WorkingSet, total, working_sets
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter

MIB = 1 << 20
SECOND = 1_000_000_000
UNKNOWN = 2**64 - 1


def snapshot(resident: list[int] | None, *, target: int = 0, at_s: int = 0) -> Snapshot:
    """100 MiB that are hot, 200 MiB that are idle, 300 MiB that are idle; 100 ms."""
    start = np.array([0, 100, 300], np.uint64) * np.uint64(MIB)
    end = np.array([100, 300, 600], np.uint64) * np.uint64(MIB)
    at_ns = at_s * SECOND
    return Snapshot(
        target, at_ns, at_ns + SECOND // 10, 5000, 100_000, start, end,
        np.array([20, 0, 0], np.uint32), np.array([5, 50, 50], np.uint32),
        resident=None if resident is None else np.array(resident, np.uint64),
    )  # fmt: skip


def test_memory_is_what_was_resident() -> None:
    batch = RegionBatch.of([snapshot([MIB, 2 * MIB, UNKNOWN]), snapshot([3 * MIB, 0, 5 * MIB])])
    assert (batch.memory // MIB).tolist() == [1, 2, 0, 3, 0, 5]
    assert (batch.unknown_memory // MIB).tolist() == [0, 0, 300, 0, 0, 0]


def test_without_residency_it_is_all_of_the_addresses() -> None:
    batch = RegionBatch.of([snapshot(None)])
    assert (batch.memory // MIB).tolist() == [100, 200, 300]
    mixed = RegionBatch.of([snapshot([1 * MIB, 0, 0]), snapshot(None)])
    assert (mixed.memory // MIB).tolist() == [1, 0, 0, 100, 200, 300]
    assert (mixed.without("resident").memory // MIB).tolist() == [100, 200, 300] * 2


def test_what_cannot_be_watched_is_neither_used_nor_idle() -> None:
    """20 samples: none of the first two regions had an answer, half of those of the third."""
    without = np.array([20, 20, 10], np.uint32)
    one = snapshot([MIB, 2 * MIB, 4 * MIB]).replace(unknown=without, nr_accesses=np.zeros(3, np.uint32))
    batch = RegionBatch.of([one, snapshot(None).replace(unknown=without)])
    assert (batch.memory // MIB).tolist() == [0, 0, 4, 100, 0, 300]  # the first was accessed after all
    assert (batch.unknown_memory // MIB).tolist() == [1, 2, 0, 0, 200, 0]


def test_every_analysis_counts_memory() -> None:
    batches = [RegionBatch.of([snapshot([MIB, 2 * MIB, 4 * MIB])])]
    assert working_sets(batches)[0].bytes.tolist() == [MIB]
    # 1 MiB in 20 samples of 100 ms
    assert bandwidths(batches)[0].bytes_per_s.tolist() == [200 * MIB]
    idle = distributions(batches, unaccessed_s, np.array([-2.0, 0.0, 1.0, 100.0]))[0]
    assert (idle.bytes / MIB).tolist() == [1, 0, 6]


def test_ages_are_the_clocks_where_it_was_recorded() -> None:
    # A busy machine: 50 aggregations of 100 ms have taken 40 s, not 5.
    late = snapshot(None).replace(age_ms=np.array([0, 40_000, 2**64 - 1], np.uint64))
    assert age_s(RegionBatch.of([late])).tolist() == [0.0, 40.0, 5.0]
    assert age_s(RegionBatch.of([snapshot(None)])).tolist() == [0.5, 5.0, 5.0]


def test_a_total_is_added_up_at_each_moment() -> None:
    def of(target: int, ends: list[int], sizes: list[int]) -> WorkingSet:
        end = np.array(ends, np.int64)
        return WorkingSet(target, np.concatenate([[end[0] - 10], end[:-1]]), end, np.array(sizes, np.uint64))

    together = total([of(0, [10, 20, 30], [1, 2, 3]), of(1, [25, 35], [100, 200])])
    # (the second lives from 15 on, the first until 30)
    assert together.target == TOTAL
    assert together.end_ns.tolist() == [10, 20, 25, 30, 35]
    assert together.bytes.tolist() == [1, 102, 103, 203, 200]


def recorded(path: Path, resident: list[int] | None, targets: int = 1) -> str:
    rows = [{"target": number, "pid": 100 + number} for number in range(targets)]
    with RecordWriter(str(path), metadata=build_metadata(targets=rows, ops="vaddr", primitive="bpf")) as writer:
        for second in range(5):
            for target in range(targets):
                writer.add_snapshot(snapshot(resident, target=target, at_s=second))
    return str(path)


def test_reports_say_which_bytes_they_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r", [MIB, 2 * MIB, 4 * MIB])
    _, out, _ = report(capsys, "wss", "-i", path)
    assert "per aggregation, resident memory" in out
    assert "50 %  1.0 MiB" in out
    _, out, _ = report(capsys, "wss", "--addresses", "-i", path)
    assert "per aggregation, address ranges\n" in out
    assert "50 %  100.0 MiB" in out
    _, out, _ = report(capsys, "idle", "-i", path)
    assert "of 7.0 MiB of resident memory" in out
    _, out, _ = report(capsys, "access", "-i", path)
    assert "1.0 MiB of 7.0 MiB of resident memory accessed" in out
    assert out.splitlines()[3].split()[:3] == ["range", "size", "resident"]
    assert out.splitlines()[5].split()[3:5] == ["2.0", "MiB"]
    _, out, _ = report(capsys, "access", "--addresses", "-i", path)
    assert "100.0 MiB of 600.0 MiB of address ranges accessed" in out
    assert "resident" not in out
    _, out, _ = report(capsys, "wss", "-i", recorded(tmp_path / "old", None))
    assert "address ranges: this record does not say what was resident" in out


def test_several_targets_have_a_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r", [MIB, 2 * MIB, 4 * MIB], targets=12)
    _, out, _ = report(capsys, "wss", "-i", path)
    assert out.startswith("all targets\n")
    assert "50 %  12.0 MiB" in out
    assert out.endswith("and 2 smaller targets, 2.0 MiB on average together; --all-targets shows each\n")
    _, out, _ = report(capsys, "wss", "--json", "-i", path)
    assert '"total":{"mean_bytes":12582912' in out
    _, out, _ = report(capsys, "wss", "--target", "3", "-i", path)
    assert "all targets" not in out


def test_every_report_has_a_total_and_sums_up_the_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r", [MIB, 2 * MIB, 4 * MIB], targets=12)
    for verb, rest in (
        ("footprint", "2.0 MiB on average"),
        ("bandwidth", "400.0 MiB/s on average"),
        ("idle", "14.0 MiB"),
        ("recency", "14.0 MiB"),
        ("temperature", "14.0 MiB"),
    ):
        _, out, _ = report(capsys, verb, "-i", path)
        assert out.startswith("all targets\n"), verb
        assert out.endswith(f"and 2 smaller targets, {rest} together; --all-targets shows each\n"), verb
        _, out, _ = report(capsys, verb, "--all-targets", "-i", path)
        assert out.count("target 11: pid 111") == 1, verb
    found = [json.loads(line) for line in report(capsys, "idle", "--json", "-i", path)[1].splitlines()]
    assert len(found) == 13
    assert found[0]["target"] == 0
    total = found[-1]["total"]
    assert (total["total_bytes"], total["idle"][1]) == (84 * MIB, {"idle_at_least_s": 1, "bytes": 72 * MIB})


def test_the_total_of_a_distribution_has_each_target_while_it_was_there() -> None:
    """The second target is there in the first two of four snapshots."""
    batches = [RegionBatch.of([snapshot([MIB, 2 * MIB, 4 * MIB], at_s=second)]) for second in range(4)]
    batches += [RegionBatch.of([snapshot([MIB, 2 * MIB, 4 * MIB], target=1, at_s=second)]) for second in (0, 1)]
    found = distributions(batches, unaccessed_s, np.array([-2.0, 0.0, 1.0, 100.0]))
    assert total_distribution(found, latest=False).total_bytes == 7 * MIB * 3 // 2
    assert total_distribution(found, latest=True).total_bytes == 7 * MIB


def test_sizes_of_processes_are_added_up_while_they_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are measured in the first three seconds, at different times; then the second one is gone."""
    path = str(tmp_path / "r")
    rows = [{"target": number, "pid": 100 + number} for number in range(2)]
    with RecordWriter(path, metadata=build_metadata(targets=rows, ops="vaddr", primitive="bpf")) as writer:
        for second in range(5):
            for target in range(2):
                writer.add_snapshot(snapshot([MIB, 2 * MIB, 4 * MIB], target=target, at_s=second))
                if target == 0 or second < 3:
                    at_ns = second * SECOND + target
                    sizes = {"virtual_bytes": 600 * MIB, "resident_bytes": 8 * MIB, "swap_bytes": 0}
                    writer.add_rows("footprint", [{"time_ns": at_ns, "target": target, **sizes}], time_ns=at_ns)
    _, out, _ = report(capsys, "footprint", "--json", "-i", path)
    samples = json.loads(out.splitlines()[-1])["total"]["samples"]
    resident = {sample["time_ns"]: sample["resident_bytes"] // MIB for sample in samples}
    assert resident == {
        0: 8, 1: 16, SECOND: 16, SECOND + 1: 16, 2 * SECOND: 16, 2 * SECOND + 1: 16, 3 * SECOND: 16, 4 * SECOND: 8,
    }  # fmt: skip
