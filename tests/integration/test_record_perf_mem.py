"""``pydamon record --ops reported --source perf-mem``: the pipeline, with a perf on the path that prints what was once
recorded (no processor of the test machines samples addresses)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON

from pydamon.records.reader import RecordReader

# What perf does of it: `mem record -e list`, a trial, `mem record -o - [--pid=…] [-- COMMAND]` and `script -i -`.
PERF = """#!{python}
import os, signal, subprocess, sys, time
with open({log!r}, "a") as log:
    print(os.getuid(), *sys.argv[1:], file=log)
words = sys.argv[1:]
if words[:4] == ["mem", "record", "-e", "list"]:
    sys.exit({listed})
if words[:2] == ["mem", "record"] and "/dev/null" in words:
    sys.exit({trial})
if words[:2] == ["mem", "record"]:
    assert ["-o", "-"] == words[words.index("-o"):][:2]
    print("DATA", flush=True)
    if "--" in words:
        # As perf: the command's output goes to standard error, and it is ended with the recording.
        child = subprocess.Popen(words[words.index("--") + 1:], stdout=2)
        signal.signal(signal.SIGINT, lambda *_: child.terminate())
        sys.exit(child.wait() and 7)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    time.sleep(600)
if words[:1] == ["script"]:
    assert words[1:3] == ["-i", "-"], words
    if sys.stdin.readline() != "DATA\\n":
        sys.exit(255)
    sys.stdout.write({printed!r})
    sys.stdout.flush()
    sys.stdin.read()
"""
LISTED = "print('ldlat-loads  : available', file=sys.stderr)"
# 16 pages in turn, one load every 50 us of process 712, for 0.5 s; then one store of another process.
LOADS = "".join(
    f"  redis 712/714  [000]  {6618 + n * 50 // 1_000_000}.{n * 50 % 1_000_000:06}: cpu/mem-loads,ldlat=30/P:  "
    f"{0x7F8A01766000 + n % 16 * 4096:x}  68100142 |OP LOAD|LVL L1 hit|SNP None  7\n"
    for n in range(10_000)
)
Make = Callable[..., dict[str, str]]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Puts such a perf on the path; returns the environment."""

    def make(printed: str = LOADS, listed: str = LISTED, trial: str = "0") -> dict[str, str]:
        (tmp_path / "bin").mkdir()
        perf = tmp_path / "bin" / "perf"
        options = {"printed": printed, "listed": listed, "trial": trial, "log": str(tmp_path / "log")}
        perf.write_text(PERF.format(python=sys.executable, **options))
        perf.chmod(0o755)
        return {**os.environ, "PATH": f"{perf.parent}:{os.environ['PATH']}"}

    return make


def record(path: Path, environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [*PYDAMON, "record", "-o", str(path), "--ops", "reported", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def snapshots_in(path: Path) -> int:
    with RecordReader(path) as reader:
        return sum(1 for _ in reader.snapshots())


def log(tmp_path: Path) -> list[list[str]]:
    return [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()]


def test_a_command_is_sampled(made: Make, tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    intervals = ["--sample", "10ms", "--aggr", "100ms"]
    done = record(out, made(), *intervals, "--source", "perf-mem", "--", "echo", "from the command")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("from the command") == 1  # where perf puts it
    assert "reading perf-mem: samples of accesses" in done.stderr
    calls = log(tmp_path)
    assert calls[0] == ["mem", "record", "-e", "list"]
    assert calls[1][-2:] == ["--", "true"]
    assert ["script", "-i", "-", "-F", "comm,pid,tid,cpu,time,event,addr,data_src,weight"] in calls
    (started,) = [call for call in calls if call[-2:] == ["the", "command"]]
    assert {"-U", "--sample-cpu", "--timestamp"} <= set(started)
    with RecordReader(out) as reader:
        assert reader.info.primitive == "perf-mem"
        assert reader.info.targets[0].command == "echo from the command"
        snapshots = list(reader.snapshots())
    last = snapshots[-1]
    hot = last.nr_accesses > 0
    assert hot.any()
    assert int(last.start[hot].min()) >= 0x7F8A01766000 - 4096
    assert int(last.end[hot].max()) <= 0x7F8A01766000 + 17 * 4096


def test_processes_are_sampled_and_left_alone(made: Make, tmp_path: Path) -> None:
    out = tmp_path / "run.damon"
    with subprocess.Popen(["sleep", "600"]) as child:
        environment = made(LOADS.replace("712/714", f"{child.pid}/714"))
        words = ["--force", "--source", "perf-mem", "--aggr", "100ms", str(child.pid), "--duration"]

        def recorded(duration: str) -> None:
            done = record(out, environment, *words, duration)
            assert done.returncode == 0, done.stderr
            assert "the time is over" in done.stderr

        for_longer(recorded, lambda: snapshots_in(out), 0.3)
        assert child.poll() is None
        child.kill()
    started = next(call for call in log(tmp_path) if f"--pid={child.pid}" in call)
    assert "-p" not in started  # perf mem's -p is another option
    with RecordReader(out) as reader:
        assert [target.pid for target in reader.info.targets] == [child.pid]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listed": "'failed: memory events not supported'"}, "(failed: memory events not supported)"),
        ({"trial": "'Error: Access to performance monitoring is limited.'"}, "cannot sample here: Error: Access to"),
        ({"listed": "0"}, "(no event is available)"),
    ],
)
def test_a_machine_without_counters_is_one_line(
    made: Make, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    done = record(tmp_path / "run.damon", made(**options), "--source", "perf-mem", "--", "true")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pydamon: perf mem: ")
    assert message in done.stderr
    assert not (tmp_path / "run.damon").exists()


def test_without_perf_the_package_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = record(tmp_path / "run.damon", environment, "--source", "perf-mem", "--", "true")
    assert done.returncode == 3
    assert "perf mem: is not installed; on Debian and Ubuntu: apt-get install linux-perf" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--source", "perf-mem"], "--source perf-mem: needs pids, or a command to run after --"),
        (["--source", "perf-mem", "1", "--", "true"], "give either a pid or a command"),
        (["--source", "perf-mem", "4194305"], "no process has the id 4194305"),
        (["--source", "perf-mem", "--", "no-such-program"], "no-such-program: cannot be run"),
        (["--source", "perf-mem:x", "1"], "--source: must be perf-event[:EVENT], valgrind, perf-mem"),
    ],
)
def test_wrong_requests(made: Make, tmp_path: Path, args: list[str], message: str) -> None:
    done = record(tmp_path / "run.damon", made(), *args)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "run.damon").exists()


def test_a_perf_that_fails_says_so(made: Make, tmp_path: Path) -> None:
    environment = made()
    perf = tmp_path / "bin" / "perf"
    perf.write_text(perf.read_text().replace('print("DATA", flush=True)', "sys.exit(129)"))
    done = record(tmp_path / "run.damon", environment, "--source", "perf-mem", "--", "true")
    assert done.returncode == 3
    assert "gave no sample: perf script exited with status 255" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_commands_status_is_told(made: Make, tmp_path: Path) -> None:
    done = record(tmp_path / "run.damon", made(), "--source", "perf-mem", "--", "sh", "-c", "exit 4")
    assert done.returncode == 7, done.stderr
    assert "the command exited with status 7" in done.stderr  # perf's status tells of it
