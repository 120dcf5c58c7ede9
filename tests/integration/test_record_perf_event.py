"""``--source perf-event:page-faults``: live samples of a process whose faults are known, without the perf program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON

from pydamon.errors import MachineError
from pydamon.ops.reported.sources.perf_event import probe_page_faults
from pydamon.records.hits import HitsBeside
from pydamon.records.reader import RecordReader
from pydamon.workload.truth import merged, precision_recall

MIB = 1 << 20
# 64 MiB are touched once; then, until it is ended, 16 MiB of them are given back and touched again, about 50 times a
# second, by a thread whose id it prints behind the range.
FAULTS = """
import ctypes, mmap, threading, time
memory = mmap.mmap(-1, 64 << 20)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
madvise = ctypes.CDLL(None).madvise
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
for at in range(0, 64 << 20, 4096):
    memory[at] = 1
def work():
    print(base + (16 << 20), threading.get_native_id(), flush=True)
    while True:
        for at in range(16 << 20, 32 << 20, 4096):
            memory[at] = 1
        madvise(base + (16 << 20), 16 << 20, 4)
        time.sleep(0.015)
threading.Thread(target=work).start()
"""


@pytest.fixture(scope="module")
def faulting() -> Iterator[tuple[int, int, int]]:
    """A process, where its hot range begins, and the thread that faults there."""
    try:
        probe_page_faults()
    except MachineError as error:
        pytest.skip(str(error))
    process = subprocess.Popen([sys.executable, "-c", FAULTS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        start, thread = process.stdout.readline().split()
        yield process.pid, int(start), int(thread)
    finally:
        process.kill()
        process.communicate()


def record(path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [*PYDAMON, "record", "-o", str(path), "--ops", "reported", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_the_range_that_faults_is_found(faulting: tuple[int, int, int], tmp_path: Path) -> None:
    pid, start, thread = faulting
    out = tmp_path / "run.damon"
    # On a busy machine it takes the program long to touch all of the range once: an interval is longer.
    source = ["--source", "perf-event:page-faults", "--sample", "100ms", "--duration", "10s"]
    done = record(out, *source, "--threads", str(thread), str(pid))
    assert done.returncode == 0, done.stderr
    with RecordReader(out) as reader:
        snapshots = list(reader.snapshots())
        assert reader.info.primitive == "perf-event"
        # Names are those of the process, not only what was reported.
        assert any(mapping.name == "[stack]" for mapping in reader.mappings_at(0, snapshots[-1].end_ns))
    assert len(snapshots) >= 4
    scores = []
    for snapshot in snapshots[1:]:
        hot = snapshot.nr_accesses > 0
        found = np.stack([snapshot.start[hot], snapshot.end[hot]], axis=1)
        scores.append(precision_recall(found, merged([(start, start + 16 * MIB)])))
    precision, recall = np.median(np.array(scores), axis=0)
    assert min(precision, recall) > 0.9


def test_another_threads_faults_do_not_count(faulting: tuple[int, int, int], tmp_path: Path) -> None:
    pid, _, _ = faulting
    out = tmp_path / "run.damon"
    source = ["--source", "perf-event:page-faults", "--sample", "20ms", "--duration", "2s"]
    done = record(out, *source, "--threads", str(pid), str(pid))
    assert done.returncode == 0, done.stderr
    with RecordReader(out) as reader:
        assert sum(int(snapshot.nr_accesses.sum()) for snapshot in reader.snapshots()) == 0


def test_a_command_is_sampled_to_its_end(faulting: tuple[int, int, int], tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    code = "import time\nfor _ in range(40):\n  b = bytearray(50 << 20); del b; time.sleep(0.05)\nprint('done')"
    source = ["--source", "perf-event:page-faults", "--sample", "10ms"]
    done = record(out, *source, "--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    with RecordReader(out) as reader:
        assert max(int((s.end - s.start)[s.nr_accesses > 0].sum()) for s in reader.snapshots()) > 25 * MIB


@pytest.mark.parametrize(
    ("args", "status", "why"),
    [
        (["--source", "perf-event:page-faults"], 2, "--source perf-event: needs pids, or a command to run after --"),
        (["--source", "perf-event:bla", "1"], 2, "event: 'bla' is none; it is page-faults, mem-loads"),
        (["--source", "perf-event:page-faults", "--access", "write", "1"], 2, "--access: page-faults does not tell"),
        (["--source", "perf-event:page-faults", "4194305"], 2, "pid: no process has the id 4194305"),
        (["--source", "perf-event:nothing/config=1/", "1"], 3, "nothing: there is no nothing on this machine"),
    ],
)
def test_what_cannot_be_is_one_line(args: list[str], status: int, why: str, tmp_path: Path) -> None:
    done = record(tmp_path / "run.damon", *args)
    assert done.returncode == status
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run.damon").exists()


def test_doctor_says_what_there_is() -> None:
    done = subprocess.run([*PYDAMON, "doctor", "--json"], capture_output=True, text=True, timeout=240, check=True)
    sources = {item["name"]: item for item in json.loads(done.stdout)["sources"]}
    if not os.listdir("/sys/bus/event_source/devices/"):
        assert not sources["page-faults"]["usable"]
    if not any(os.path.exists(f"/sys/bus/event_source/devices/{pmu}") for pmu in ("cpu", "cpu_core", "ibs_op")):
        assert sources["perf-event"]["reason"].endswith("page-faults works anywhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to sample through page tables")
def test_reports_beside_sampling_and_the_record_says_who_answered(
    faulting: tuple[int, int, int], tmp_path: Path
) -> None:
    """The range is away whenever it is sampled: reports find what sampling cannot."""
    pid, _, _ = faulting
    out = tmp_path / "run.damon"
    rows: list[dict[str, Any]] = []

    def recorded(duration: str) -> None:
        source = ["--force", "--source", "perf-event:page-faults", "--sample", "50ms", "--duration", duration]
        command = [*PYDAMON, "record", "-o", str(out), *source, str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert "a source reports beside it" in done.stderr
        with RecordReader(out) as reader:
            rows[:] = reader.table_rows("answers")

    def enough() -> bool:
        reports, by_primitive, by_reports = (
            sum(row[name] for row in rows) for name in ("reports", "by_primitive", "by_reports")
        )
        return reports > 4096 and by_primitive > 100 and by_reports > 0

    for_longer(recorded, enough, 4)
    assert {row["target"] for row in rows} == {0}
    told = subprocess.run(
        [*PYDAMON, "report", "info", str(out)], capture_output=True, text=True, timeout=240, check=True
    )
    assert "samples of regions answered: " in told.stdout


@pytest.mark.parametrize("weight", ["", " weight=10"])
def test_an_event_as_a_probe_hits_where_it_happened(
    faulting: tuple[int, int, int], tmp_path: Path, weight: str
) -> None:
    """With a weight regions follow it; else they follow accesses, and are as coarse as these let them be."""
    pid, start, _ = faulting
    out = tmp_path / "run.damon"
    args = ["--probe", f"perf_event=page-faults{weight}", "--probe", "anon", "--sample", "100ms", "--duration", "6s"]
    command = [*PYDAMON, "record", "-o", str(out), *args, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode == 3 and not weight:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    hot, elsewhere = 0, 0
    with RecordReader(out) as reader:
        beside = HitsBeside(reader)
        for snapshot in reader.snapshots():
            hits = beside.of(snapshot)
            assert hits is not None
            touches = (snapshot.start < start + 16 * MIB) & (snapshot.end > start)
            hot += int(hits[0][touches].sum())
            elsewhere += int(hits[0][~touches].sum())
    assert hot > 0
    assert elsewhere < hot  # its stack, and what the interpreter does


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--probe", "perf_event=bla", str(os.getpid())], "'bla' is none; it is page-faults"),
        (["--probe", "perf_event=page-faults anon", "1"], "--probe: goes alone: a probe of an event has no other"),
        (["--ops", "paddr", "--probe", "perf_event=page-faults"], "--probe: is for processes (ops vaddr, fvaddr)"),
    ],
)
def test_a_probe_of_an_event_that_cannot_be_is_one_line(args: list[str], why: str, tmp_path: Path) -> None:
    command = [*PYDAMON, "record", "-o", str(tmp_path / "run.damon"), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--source", "perf-mem", "1"], "--source: is for --ops reported; beside the sampling of processes there"),
        (["--ops", "paddr", "--source", "perf-event"], "--source: is for --ops reported"),
        (["--source", "perf-event:page-faults", "--include-children", "1"], "--source: goes with processes that are"),
        (["--source", "perf-event:page-faults", "--faithful", "1"], "--faithful: does not go with --source"),
        (["--threads", "3", "1"], "--threads: goes with --source"),
    ],
)
def test_what_does_not_go_beside_sampling_is_one_line(args: list[str], why: str, tmp_path: Path) -> None:
    command = [*PYDAMON, "record", "-o", str(tmp_path / "run.damon"), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
