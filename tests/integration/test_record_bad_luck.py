"""Bad input and bad luck while recording: each is handled, counted, and said once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON, pydamon
from tests.helpers.fake_cgroup import recorded_ns, removed
from tests.helpers.waiting import wait_until

from pydamon.cli import main
from pydamon.ops import cgroup
from pydamon.records.reader import RecordReader

SMAPS = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms", "--update", "50ms"]
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def as_nobody(*args: str) -> subprocess.CompletedProcess[str]:
    """``pydamon record ARGS -- sleep 1`` as nobody, who becomes that after the imports (they may lie where nobody may
    read); in a directory of nobody's, which must be left as it was unless the command succeeds."""
    script = (
        "import difflib, locale, os, subprocess, sys\n"
        "import pydamon.cli.command, pydamon.cli.recording, pydamon.cli.record\n"
        "import pydamon.engines.user.engine, pydamon.run.recorder\n"
        "import pydamon.primitives.bpf, pydamon.primitives.smaps, pydamon.primitives.idle, pydamon.ops.vaddr_group\n"
        "import pydamon.ops.paddr, pydamon.ops.fvaddr, pydamon.ops.cgroup, pydamon.linux.resctrl\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir(sys.argv[1])\n"
        "import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # PR_SET_DUMPABLE: /proc/self is nobody's again
        "sys.exit(pydamon.cli.main(sys.argv[2:]))"
    )
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        command = [sys.executable, "-c", script, directory, "record", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            assert os.listdir(directory) == []
    return done


def test_thousands_of_short_children_are_counted_and_said_once(tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    # Some 300 a second, and one that stays.
    storm = "sleep 600 & while :; do /bin/true; done"
    told: list[str] = []
    counted = re.compile(r"pydamon: ([0-9,]+) process(?:es)? lived too short to be monitored")
    with subprocess.Popen(["sh", "-c", storm], start_new_session=True, stderr=subprocess.DEVNULL) as root:

        def record(duration: str) -> None:
            words = ["record", "-o", str(out), "--force", *SMAPS, "--include-children", "--duration", duration]
            done = pydamon(*words, str(root.pid))
            assert done.returncode == 0, done.stderr
            told.append(done.stderr)

        try:
            for_longer(record, lambda: counted.search(told[-1]), 3)
        finally:
            os.killpg(root.pid, signal.SIGKILL)
    (said,) = counted.findall(told[-1])
    assert int(said.replace(",", "")) > 0
    # what is monitored, that smaps has no page panel, why it ended, the above, the cost
    assert len([line for line in told[-1].splitlines() if "later than asked for" not in line]) == 5
    with RecordReader(out) as reader:
        commands = [target.command for target in reader.info.targets]
    assert len(commands) < 10
    assert "sleep 600" in commands


def test_a_cgroup_that_is_removed_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A directory that looks like a cgroup.
    mount = tmp_path / "mount"
    group = mount / "service"
    group.mkdir(parents=True)
    (mount / "cgroup.procs").write_text("")
    monkeypatch.setattr(cgroup, "mounts", lambda *_: [mount])
    out = tmp_path / "run.damon"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        (group / "cgroup.procs").write_text(f"{child.pid}\n")
        with removed(group, lambda: recorded_ns(out) >= 0, child):
            status = main(["record", "-o", str(out), *SMAPS, "--cgroup", "service", "--duration", "130s"])
    said = capsys.readouterr().err
    assert status == 0, said
    assert said.count(f"the cgroup {group} was removed") == 1
    assert "the time is over" not in said  # it ended with the cgroup
    with RecordReader(out) as reader:
        (target,) = reader.info.targets
        assert target.pid == child.pid
        spec = reader.info.spec["kdamonds"][0]["contexts"][0]["targets"]
        assert [(t["cgroup"], t["pid"]) for t in spec] == [("service", None)]  # no number stands in for it
        assert list(reader.snapshots())


def test_the_record_of_a_launched_command_has_its_pid_in_the_spec(tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    done = pydamon("record", "-o", str(out), *SMAPS, "--", "sleep", "0.3")
    assert done.returncode == 0, done.stderr
    with RecordReader(out) as reader:
        (asked,) = reader.info.spec["kdamonds"][0]["contexts"][0]["targets"]
        assert asked["pid"] == reader.info.targets[0].pid != 1


@ROOT
def test_pagemap_without_frame_numbers_is_one_line() -> None:
    for primitive in ("idle", "bpf+idle"):
        done = as_nobody("--primitive", primitive, "--", "sleep", "1")
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
    assert "no permission" in done.stderr  # bpf is the first obstacle of bpf+idle
    done = as_nobody("--primitive", "idle", "--", "sleep", "1")
    assert "shows no frame numbers; run as root (CAP_SYS_ADMIN)" in done.stderr


@ROOT
def test_physical_memory_without_root_is_one_line() -> None:
    done = as_nobody("--ops", "paddr")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pydamon: --ops paddr: ")
    assert "run as root" in done.stderr


@ROOT
def test_where_bpf_is_forbidden_the_coarser_primitive_is_used_and_the_reason_said_once() -> None:
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text() == "0\n":
        pytest.skip("everybody may use BPF here")
    done = as_nobody("--duration", "500ms", "--", "sleep", "5")
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert "through smaps: coarser, one answer per mapping; bpf, which is better, cannot be used: no permi" in first
    assert done.stderr.count("no permission") == 1
    done = as_nobody("--primitive", "bpf", "--", "sleep", "1")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "--primitive bpf: no permission" in done.stderr


def test_garbage_in_a_trace_is_counted_and_said_once(tmp_path: Path) -> None:
    lines = [f"I  00400000,3\n L {0x10000000 + n % 16 * 4096:08x},8\n" for n in range(20_000)]
    for at in range(0, 20_000, 1000):
        lines[at] += "gar\x1b[31mbage \xff\n"
    trace = tmp_path / "trace"
    trace.write_text("".join(lines), encoding="latin-1")
    intervals = ["--sample", "1us", "--aggr", "5us"]
    out = tmp_path / "run.damon"
    done = pydamon("record", "-o", str(out), "--ops", "reported", "--source", f"lackey:{trace}", *intervals)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("20 lines were not understood, the first: 'gar") == 1
    assert "\x1b" not in done.stderr
    with RecordReader(out) as reader:
        assert len(list(reader.snapshots())) >= 3


def test_a_perf_script_of_the_wrong_event_is_one_line_and_no_record(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        "".join(f"  ls 12151 6619.{n:06}:  250000 cpu-clock:  7fa1df52e69e f+0x7e (a)\n" for n in range(9))
    )
    out = tmp_path / "run.damon"
    done = pydamon("record", "-o", str(out), "--ops", "reported", "--source", f"perf-script:{script}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has samples of 'cpu-clock', which carry no data address" in done.stderr
    assert not out.exists()


def test_fixed_ranges_of_a_process_that_unmaps_them_and_ends(tmp_path: Path) -> None:
    script = (
        "import ctypes, mmap\n"
        "area = mmap.mmap(-1, 4 << 20)\n"
        "start = ctypes.addressof(ctypes.c_char.from_buffer(area))\n"
        "print(start, flush=True)\n"
        "input(); ctypes.CDLL(None).munmap(ctypes.c_void_p(start), ctypes.c_size_t(4 << 20)); input()\n"
        "import os; os._exit(0)"
    )
    out = tmp_path / "run.damon"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        start = int(child.stdout.readline())
        span = f"{start:#x}-{start + (4 << 20):#x}"
        options = ["-o", str(out), *SMAPS, "--ops", "fvaddr", "--region", span, str(child.pid)]
        with subprocess.Popen([*PYDAMON, "record", *options], stderr=subprocess.PIPE, text=True) as recording:
            assert recording.stderr
            said = recording.stderr.readline()
            for _ in range(2):  # unmap, end: each after something has come into the record
                before = out.stat().st_size if out.exists() else 0
                wait_until(lambda before=before: out.exists() and out.stat().st_size > before)  # type: ignore[misc]
                child.stdin.write(b"\n")
                child.stdin.flush()
            said += recording.stderr.read()
    assert recording.returncode == 0, said
    assert "the target ended" in said
    assert said.count("cost:") == 1
    with RecordReader(out) as reader:
        assert reader.info.targets[0].pid == child.pid
        for snapshot in reader.snapshots():  # the ranges stay, whatever is mapped there
            assert (int(snapshot.start[0]), int(snapshot.end[-1])) == (start, start + (4 << 20))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["1"], "--region: is needed with --ops fvaddr"),
        (["--region", "0x1000-0x2000", "--", "true"], "--ops fvaddr: needs the pid of a running process"),
        (["--region", "0x1000-0x2000", "--cgroup", "x"], "--cgroup: is for --ops vaddr"),
        (["--region", "0x1000-0x2000", "--include-children", "1"], "--include-children: is for --ops vaddr"),
        (["--region", "0x1000-0x2000", "4194305"], "no process has the id 4194305"),
        (["--region", "0x1000-0x2001", "1"], "--region: must start and end at multiples of 4096"),
        (["--region", "0x1000-0x2000"], "needs a pid"),
        (["--region", "0x3000-0x5000", "--region", "0x1000-0x4000", "1"], "--region: overlaps the region before it"),
    ],
)
def test_wrong_requests_for_fixed_ranges(tmp_path: Path, args: list[str], message: str) -> None:
    done = pydamon("record", "-o", str(tmp_path / "x"), "--ops", "fvaddr", "--primitive", "smaps", *args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "x").exists()
