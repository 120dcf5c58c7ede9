"""Bad luck on a real kernel: a bitmap that refuses, memory that goes offline, a storm of forks, a cgroup that goes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.command import PYDAMON, pydamon
from tests.helpers.records import recorded
from tests.helpers.waiting import wait_until

from pydamon.linux.idle_bitmap import BITMAP
from pydamon.linux.mounts import mounts
from pydamon.records.reader import RecordReader

pytestmark = pytest.mark.guest

BLOCKS = Path("/sys/devices/system/memory")
SLOW = ("--sample", "50ms", "--aggr", "500ms", "--update", "500ms")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def refusing_bitmap() -> Iterator[None]:
    """/dev/full in its place: it can be opened and read, and refuses to be written."""
    subprocess.run(["mount", "--bind", "/dev/full", BITMAP], check=True)
    yield
    subprocess.run(["umount", BITMAP], check=True)


@pytest.mark.usefixtures("refusing_bitmap")
def test_a_bitmap_that_refuses_is_one_line_and_no_record(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    for args in (["--primitive", "idle", str(sleeper.pid)], ["--ops", "paddr"]):
        done = pydamon("record", "-o", str(out), "--duration", "2s", *args)
        assert done.returncode == 3
        (line,) = done.stderr.splitlines()
        assert BITMAP in line or "idle" in line
        assert "No space left" in line  # what /dev/full answers
        assert not out.exists()


@pytest.mark.usefixtures("refusing_bitmap")
def test_where_the_bitmap_refuses_another_primitive_is_taken(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    done = pydamon("record", "-o", str(tmp_path / "run.damon"), *SLOW, "--duration", "3s", str(sleeper.pid))
    assert done.returncode == 0, done.stderr
    assert "through bpf" in done.stderr.splitlines()[0]
    assert "through bpf+idle" not in done.stderr


def wait_for_bytes(size: int, out: Path, record: subprocess.Popen[Any]) -> None:
    """Until the record that is being written to ``out`` has so many."""

    def written() -> bool:
        assert record.poll() is None
        return out.exists() and out.stat().st_size >= size

    wait_until(written, every_s=0.1)


def movable_block() -> Path:
    """A memory block that can be taken offline: most hold something that cannot be moved. It is online again."""
    why = f"there is none in {BLOCKS}"
    for block in sorted(BLOCKS.glob("memory[0-9]*"), key=lambda at: -int(at.name[6:])):
        try:
            (block / "state").write_text("offline")
        except OSError as error:
            why = f"{block.name}: {error.strerror}"
            continue
        (block / "state").write_text("online")
        return block
    pytest.skip(f"no memory block can be taken offline; {why}")


def test_memory_that_goes_offline_is_not_accessed_and_monitoring_goes_on(tmp_path: Path) -> None:
    block = movable_block()
    size = int((BLOCKS / "block_size_bytes").read_text(), 16)
    start = int((block / "phys_index").read_text(), 16) * size
    out = tmp_path / "phys.damon"
    with out.with_suffix(".log").open("w+") as log:
        command = [*PYDAMON, "record", "-o", str(out), "--ops", "paddr", *SLOW]
        command += ["--region", f"{start:#x}-{start + size:#x}", "--min-regions", "50"]
        record = subprocess.Popen(command, stderr=log)
        try:
            wait_for_bytes(10_000, out, record)
            (block / "state").write_text("offline")
            gone_ns = time.monotonic_ns()
            wait_until(lambda: sum(one.start_ns > gone_ns for one in recorded(out)) >= 4, every_s=0.5)
            (block / "state").write_text("online")
            back_ns = time.monotonic_ns()
            wait_until(lambda: any(one.end_ns > back_ns for one in recorded(out)), every_s=0.5)
            assert record.poll() is None
        finally:
            with contextlib.suppress(OSError):
                (block / "state").write_text("online")
            record.send_signal(signal.SIGINT)
            record.wait(120)
        log.seek(0)
        said = log.read()
    print(said)
    assert record.returncode == 0
    assert "Traceback" not in said
    with RecordReader(out) as reader:
        snapshots = list(reader.snapshots())
    offline = [s for s in snapshots if s.start_ns > gone_ns and s.end_ns < back_ns]
    assert offline
    assert snapshots[-1].end_ns > back_ns
    # An offline frame has no idle bit, and nobody accesses it; a region that says nothing keeps what it had at most.
    last = offline[-1]
    accessed = int((last.end - last.start)[last.nr_accesses > 0].sum())
    assert accessed < size // 2


def test_thousands_of_short_children(tmp_path: Path) -> None:
    """A shell forks subshells that end at once, and one process that stays."""
    out = tmp_path / "run.damon"
    storm = "sleep 600 & read go; i=0; while [ $i -lt 3000 ]; do (:) ; i=$((i+1)); done; echo done; wait"
    with subprocess.Popen(["sh", "-c", storm], start_new_session=True, stdin=-1, stdout=-1) as root:
        record = subprocess.Popen(
            [*PYDAMON, "record", "-o", str(out), *SLOW, "--include-children", str(root.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert root.stdin
            assert root.stdout
            wait_for_bytes(10_000, out, record)
            root.stdin.write(b"\n")
            root.stdin.flush()
            assert root.stdout.readline() == b"done\n"
            status = Path(f"/proc/{record.pid}/status").read_text()
            files = len(os.listdir(f"/proc/{record.pid}/fd"))
        finally:
            os.killpg(root.pid, signal.SIGKILL)
            _, said = record.communicate(timeout=120)
    print(said)
    assert record.returncode == 0
    assert "Traceback" not in said
    assert said.count("lived too short to be monitored") == 1
    # A line for each thing that there is to say, not for each child; a slow machine has more to say than a fast one
    # (samples that are late, a panel that is asked more seldom).
    kinds = [re.sub(r"\d[\d,.]*", "N", line) for line in said.splitlines()]
    assert len(kinds) == len(set(kinds)) <= 12
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak
    assert int(peak[1]) < 200 << 10
    assert files < 64  # of those that ended nothing is open
    with RecordReader(out) as reader:
        commands = [target.command for target in reader.info.targets]
    assert "sleep 600" in commands
    assert len(commands) < 100  # whoever lives for a millisecond is not monitored


def test_record_ends_when_its_cgroup_is_removed(tmp_path: Path) -> None:
    cgroup = mounts("cgroup2")[0] / f"pydamon-gone-{os.getpid()}"
    cgroup.mkdir()
    out = tmp_path / "run.damon"
    member = subprocess.Popen(["sleep", "600"])
    (cgroup / "cgroup.procs").write_text(str(member.pid))
    record = subprocess.Popen(
        [*PYDAMON, "record", "-o", str(out), *SLOW, "--cgroup", cgroup.name],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_bytes(5_000, out, record)
        member.kill()
        member.wait()
        cgroup.rmdir()
        _, said = record.communicate(timeout=120)
    finally:
        member.kill()
        record.kill()
        if cgroup.exists():
            cgroup.rmdir()
    print(said)
    assert record.returncode == 0
    assert said.count(f"the cgroup {cgroup} was removed") == 1
    with RecordReader(out) as reader:
        assert [target.pid for target in reader.info.targets] == [member.pid]
        assert list(reader.snapshots())
