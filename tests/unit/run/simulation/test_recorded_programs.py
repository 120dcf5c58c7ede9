"""Recordings as programs of a simulated machine: what is in them is played again, and recorded again, and taken."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.what_if_helpers import recorded, sweep
from tests.unit.records.record_samples import mapping, snapshot, write

from pydamon.analysis.wss import working_sets
from pydamon.errors import PydamonError, RequestError
from pydamon.library.policies import Recording
from pydamon.ops.sim.replay import Played
from pydamon.records.joined import open_record
from pydamon.run.simulation import programs
from pydamon.run.simulation import recorded as recordings
from pydamon.run.simulation.results import Result
from pydamon.run.simulation.runs import Policy, Setting, compare
from pydamon.spec.forms.scheme_short import parse_short
from pydamon.spec.machine import parse_machine

MIB = 1 << 20
S = 1_000_000_000
BASE = 1 << 32
SWEPT = sweep(120)
# Two programs at once, with what is idle in one minute and in use in the next.
PHASES = """#regions
a, 24 MiB
b, 40 MiB
c, 96 MiB

first
40000
a, 0, 4096, 1

second
40000
a, 0, 4096, 1
b, 1, 0, 1

third
40000
c, 0, 4096, 1
"""
SCHEMES = ("pageout rate=0% age>=10s", "pageout rate=0% age>=20s quota=8MiB/1s")


def working_set(path: Path) -> float:
    """In bytes, the mean over the time."""
    with open_record(str(path)) as reader:
        (found,) = working_sets(reader.batches())
    return found.settled().mean_bytes


def simulated(
    found: programs.Programs, *texts: str, machine: str = "", output: Path | None = None, repeat: int = 1
) -> list[Result]:
    """Without a policy, and under each scheme."""
    setting = Setting(
        programs=found.programs,
        machine=parse_machine(machine),
        intervals=found.intervals,
        nr_regions=found.nr_regions,
        repeat=repeat,
    )
    policies = [Policy(text, (parse_short(text),)) for text in texts]
    return compare(setting, policies, output="" if output is None else str(output), say=lambda line: None)


@pytest.mark.parametrize("workload", [SWEPT, PHASES])
def test_record_play_record_finds_the_same_working_set(tmp_path: Path, workload: str) -> None:
    """Within 5 %."""
    path, again = recorded(tmp_path, workload), tmp_path / "again.damon"
    simulated(programs.gather([str(path)], hidden=False), output=again)
    assert working_set(again) == pytest.approx(working_set(path), rel=0.05)


@pytest.mark.parametrize("workload", [SWEPT, PHASES])
def test_policies_do_what_they_do_in_what_if(tmp_path: Path, workload: str) -> None:
    """Bytes out of memory within 3 %, and what comes back within 5 %: the accesses are the same."""
    path = recorded(tmp_path, workload)
    nothing, *found = simulated(programs.gather([str(path)]), *SCHEMES)
    with open_record(str(path)) as reader:
        recording = Recording(reader)
        assert nothing.resident_bytes == recording.bytes
        for text, result in zip(SCHEMES, found, strict=True):
            outcome = recording.play(text, [parse_short(text)])
            out = nothing.resident_bytes - result.resident_bytes
            assert outcome.saved > 10 * MIB
            assert out == pytest.approx(outcome.saved, rel=0.03)
            assert result.refaults_per_minute == pytest.approx(outcome.per_minute, rel=0.05, abs=MIB)


def several(path: Path, *, later: int = 0) -> Path:
    """Two processes: 2 MiB in use and 2 MiB idle; 1 MiB in use in each second aggregation, ``later`` of them later."""
    found = []
    for number in range(100):
        found.append(snapshot(number, [(BASE, BASE + 2 * MIB, 20, 0), (BASE + 2 * MIB, BASE + 4 * MIB, 0, number)]))
        if number >= later:
            found.append(snapshot(number, [(BASE, BASE + MIB, 20 * (number % 2), 0)], target=1))
    return write(path, found, pids=(10, 11), maps=[mapping(BASE, BASE + 4 * MIB, "[heap]")])


def test_each_target_is_a_process_or_one_that_is_chosen(tmp_path: Path) -> None:
    path = str(several(tmp_path / "two.damon"))
    found = programs.gather([path])
    assert [one.name for one in found.programs] == [f"{path}:0", f"{path}:1"]
    assert [one.bytes for one in found.recordings] == [4 * MIB, MIB]
    assert (found.intervals.sample_us, found.intervals.aggr_us) == (5_000, 100_000)
    assert found.paths == [path]
    (chosen,) = programs.gather([path], 1).programs
    assert chosen.name == path
    (result,) = simulated(found)
    assert [one.resident_bytes for one in result.processes] == [4 * MIB, MIB]
    assert result.duration_ns == pytest.approx(10 * S, rel=0.02)


def test_recordings_run_beside_workloads(tmp_path: Path) -> None:
    path = several(tmp_path / "two.damon")
    workload = tmp_path / "w.cfg"
    workload.write_text("hot, 1 MiB\ncold, 3 MiB\n\np\n10000\nhot, 0, 4096, 1\n")
    found = programs.gather([str(workload), str(path)])
    nothing, policy = simulated(found, "pageout rate=0% age>=2s")
    assert [one.name for one in policy.processes] == [str(workload), f"{path}:0", f"{path}:1"]
    assert [one.resident_bytes for one in nothing.processes] == pytest.approx([4 * MIB, 4 * MIB, MIB], rel=0.02)
    first, second, third = policy.processes
    assert first.resident_bytes < 3 * MIB
    assert second.resident_bytes < 3.5 * MIB
    assert third.resident_bytes == MIB  # never idle for so long


def accesses(path: Path, windows: Sequence[tuple[float, float]], repeat: int = 1) -> list[float]:
    """How many accesses all of the second target gets in windows of seconds, of a process that starts at 3 s."""
    program = programs.gather([str(path)]).programs[1]
    schedule = program.schedule(3 * S, repeat=repeat, time_scale=1.0)
    field = program.accesses(program.place(0, "one"), 1, 0)
    whole = np.array([[BASE, BASE + MIB]], np.int64)
    return [
        float(field.accesses(whole, schedule, round((3 + low) * S), round((3 + high) * S))[0]) for low, high in windows
    ]


def test_accesses_are_as_many_as_were_found(tmp_path: Path) -> None:
    """20 in 100 ms to each page in each second aggregation; each that plays it begins from the beginning."""
    path = several(tmp_path / "two.damon")
    for _ in range(2):
        found = accesses(path, [(at / 10, (at + 1) / 10) for at in range(6)])
        assert found == pytest.approx([0, 20 * 256] * 3, abs=1e-6)


def test_a_process_that_came_later_is_quiet_until_then(tmp_path: Path) -> None:
    path = several(tmp_path / "two.damon", later=50)
    assert accesses(path, [(0, 5), (5, 6)]) == pytest.approx([0, 5 * 20 * 256])


def test_it_can_be_repeated_and_is_over_in_the_end(tmp_path: Path) -> None:
    """Each time anew."""
    path = several(tmp_path / "two.damon", later=10)
    lasts = programs.gather([str(path)]).programs[1]
    assert isinstance(lasts, Played)
    seconds = lasts.lasting_ms / 1000
    assert seconds == pytest.approx(10, abs=0.01)
    windows = [(turn * seconds + at / 10, turn * seconds + (at + 1) / 10) for turn in range(4) for at in range(100)]
    found = np.array(accesses(path, windows, repeat=3)).reshape(4, 100).sum(axis=1)
    assert found[:3] == pytest.approx(45 * 20 * 256, rel=0.001)
    assert found[3] == 0


def test_tools_of_others_have_recordings_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pydamon.cli import main

    path, other = several(tmp_path / "two.damon"), tmp_path / "two.txt"
    assert main(["export", str(path), "--format", "damo", "-o", str(other)]) == 0
    capsys.readouterr()
    found = programs.gather([f"record:{other}"])
    assert [one.bytes for one in found.recordings] == [4 * MIB, MIB]
    assert any("without a page panel" in line for line in found.remarks)


def test_its_file_is_known_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read the file decides who may read what is made of it."""
    several(tmp_path / "run.damon").rename(tmp_path / "stairs")
    monkeypatch.chdir(tmp_path)
    assert programs.gather(["record:stairs"]).paths == ["stairs"]
    assert programs.gather(["record:st*rs"]).paths == ["stairs"]
    assert programs.gather(["stairs"]).paths == []


def idle(path: Path, regions: Sequence[tuple[int, int, int, int]], snapshots: int = 3) -> str:
    return str(write(path, [snapshot(number, regions) for number in range(snapshots)]))


class TestRefused:
    def test_nothing_to_play(self, tmp_path: Path) -> None:
        with pytest.raises(PydamonError, match="holds no snapshot: nothing was recorded"):
            programs.gather([idle(tmp_path / "a.damon", [], 0)])

    def test_a_target_that_it_does_not_have(self, tmp_path: Path) -> None:
        path = str(several(tmp_path / "two.damon"))
        with pytest.raises(RequestError, match=r"^target: .*two\.damon has no target 2; it has 0, 1$"):
            programs.gather([path], 2)
        with pytest.raises(RequestError, match=r"^target: is of recordings, and none was given$"):
            programs.gather(["stairs"], 0)

    def test_more_regions_than_can_be_held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All programs together."""
        path = str(several(tmp_path / "two.damon"))  # 300 regions
        monkeypatch.setattr(programs, "MOST_HELD", 599)
        with pytest.raises(RequestError, match=r"at most 599 can be played, with the programs before it 299: cut it"):
            programs.gather([path, path])
        assert len(programs.gather([path]).programs) == 2

    def test_a_trace_counts_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        trace = tmp_path / "trace"
        trace.write_text("".join(f"I  {0x400000:x},4\n L {0x800000 + page * 8192:x},8\n" for page in range(64)))
        monkeypatch.setattr(programs, "MOST_HELD", 100)
        with pytest.raises(RequestError, match=r"accesses more than 35 pages and stretches of time: too much to hold"):
            programs.gather([f"lackey:{trace}", f"lackey:{trace}"])

    def test_more_processes_than_there_can_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(programs.gather(["stairs"] * 64).programs) == 64
        with pytest.raises(RequestError, match=r"^program: 65 processes are too many; the most is 64$"):
            programs.gather(["stairs"] * 65)

    def test_longer_or_larger_than_workloads_may_be(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = str(several(tmp_path / "two.damon"))
        monkeypatch.setattr(recordings, "MAX_DURATION_MS", 9_000)
        with pytest.raises(PydamonError, match="lasts 10 s; the most that is played is 9 s"):
            programs.gather([path])
        monkeypatch.setattr(recordings, "MAX_TOTAL_BYTES", 3 * MIB)
        with pytest.raises(PydamonError, match=r"4\.0 MiB were in memory; the most that is played is 3\.0 MiB"):
            programs.gather([path])

    @pytest.mark.parametrize("at", [(1 << 64) - 8192, (1 << 63) - 4096, 1 << 62])
    def test_where_no_memory_is(self, tmp_path: Path, at: int) -> None:
        with pytest.raises(PydamonError, match=r"has a region above 0x4000000000000000, where no memory is"):
            programs.gather([idle(tmp_path / "far.damon", [(at, at + 4096, 3, 0)])])

    def test_larger_than_the_machine(self, tmp_path: Path) -> None:
        found = programs.gather([str(several(tmp_path / "two.damon"))])
        words = r"5\.0 MiB of workloads do not fit into 4\.0 MiB of memory and no swap"
        with pytest.raises(RequestError, match=words):
            simulated(found, machine="ram=4MiB swap=off")

    @pytest.mark.parametrize("name", ["record:", "record:/nope", "/nope.damon", "record:stairs"])
    def test_what_is_not_there(self, name: str) -> None:
        with pytest.raises(RequestError, match=r"there is no such file|neither a built-in workload"):
            programs.gather([name])


def test_memory_is_bounded_by_the_number_of_regions(tmp_path: Path) -> None:
    """At most 60 bytes for each of them while it is read, 26 afterwards: with `MOST_HELD` within a gigabyte."""
    per, snapshots = 20_000, 25
    start = BASE + np.arange(per) * 4096
    regions = np.stack([start, start + 4096, np.arange(per) % 3, np.zeros(per, np.int64)], axis=1)
    path = idle(tmp_path / "many.damon", regions.tolist(), snapshots)
    tracemalloc.start()
    try:
        found = programs.gather([path])
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.programs) == 1
    rows = per * snapshots
    assert now < 26 * rows + 4 * MIB
    assert peak < 60 * rows + 16 * MIB
