"""``pydamon record`` as a user meets it: real processes, real signals, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until

from pydamon.records.reader import RecordReader

SMAPS = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms"]
SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


def start(*args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([*PYDAMON, *args], stdout=-1, stderr=-1, text=True, **options)


def nr_snapshots(path: Path) -> int:
    return sum(1 for _ in RecordReader(str(path)).snapshots())


class TestEnds:
    def test_a_command_is_monitored_until_it_ends(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"

        def record(longest: str) -> None:
            command = [sys.executable, "-c", f"import time; time.sleep(float({longest[:-2]!r}) / 1000)"]
            done = pydamon("record", "-o", str(out), "--force", *SMAPS, "--", *command)
            assert done.returncode == 0, done.stderr
            assert "the target ended" in done.stderr

        for_longer(record, lambda: nr_snapshots(out) >= 3, 1)

    def test_a_running_process_is_monitored_for_a_duration(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            assert child.stdout
            child.stdout.readline()

            def record(duration: str) -> None:
                done = pydamon("record", "-o", str(out), "--force", *SMAPS, "--duration", duration, str(child.pid))
                assert done.returncode == 0, done.stderr
                assert "the time is over" in done.stderr
                assert "cost:" in done.stderr

            for_longer(record, lambda: nr_snapshots(out) >= 2, 0.5)
            assert child.poll() is None  # not ours: left alone
            child.kill()
        reader = RecordReader(str(out))
        assert reader.info.targets[0].pid == child.pid

    def test_a_duration_shorter_than_a_sampling_interval_holds(self, tmp_path: Path) -> None:
        began = time.monotonic()
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            intervals = ["--primitive", "smaps", "--sample", "10m", "--aggr", "10m"]
            done = pydamon("record", "-o", str(tmp_path / "x"), *intervals, "--duration", "200ms", str(child.pid))
            child.kill()
        assert done.returncode == 0
        assert time.monotonic() - began < GENEROUS_S
        assert "no snapshot was completed" in done.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_completes_the_record_and_ends_the_command(self, tmp_path: Path, number: signal.Signals) -> None:
        out = tmp_path / "run.damon"
        pid_file = tmp_path / "pid"
        script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        record = start("record", "-o", str(out), *SMAPS, "--", sys.executable, "-c", script)
        wait_until(lambda: out.exists() and out.stat().st_size > 6000)
        wait_until(lambda: pid_file.exists() and pid_file.stat().st_size)
        record.send_signal(number)
        _, errors = record.communicate(timeout=GENEROUS_S)
        assert record.returncode == 0, errors
        assert "interrupted" in errors
        assert "Traceback" not in errors
        assert not os.path.exists(f"/proc/{pid_file.read_text()}")
        reader = RecordReader(str(out))
        assert sum(1 for _ in reader.snapshots()) > 0
        assert not reader.truncated

    def test_killed_it_leaves_what_was_flushed(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            record = start("record", "-o", str(out), *SMAPS, str(child.pid))
            wait_until(lambda: out.exists() and nr_snapshots(out) >= 10)
            record.kill()
            record.communicate()
            child.kill()
        assert nr_snapshots(out) >= 10

    def test_a_process_that_ends_midway_ends_the_record(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            record = start("record", "-o", str(out), *SMAPS, str(child.pid))
            wait_until(lambda: out.exists() and out.stat().st_size > 6000)
            child.kill()
            child.wait()
            _, errors = record.communicate(timeout=GENEROUS_S)
        assert record.returncode == 0, errors
        assert "the target ended" in errors
        assert nr_snapshots(out) > 0

    def test_the_cpu_share_stays_below_the_bound(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            args = ["record", "-o", str(out), "--force", "--primitive", "smaps", "--max-cpu", "2%", str(child.pid)]

            def record(duration: str) -> None:
                done = pydamon(*args, "--duration", duration)
                assert done.returncode == 0, done.stderr

            for_longer(record, lambda: nr_snapshots(out), 4)
            child.kill()
        samples = [s.sample_us for s in RecordReader(str(out)).snapshots()]
        # Starting up alone has used more than the budget of 4 s: the first aggregation is slowed down already.
        assert samples
        assert min(samples) > 5000

    def test_auto_intervals_are_told_by_the_plan_and_kept_in_the_record(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        args = ("record", "-o", str(out), "--ops", "sim", "--workload", "zigzag", "--intervals", "auto")
        assert "4 % of the possible access events" in pydamon(*args, "--explain").stdout
        assert pydamon(*args).returncode == 0
        goal = RecordReader(str(out)).info.spec["kdamonds"][0]["contexts"][0]["intervals"]["intervals_goal"]
        assert goal == {"access_bp": 400, "aggrs": 3, "min_sample_us": 5000, "max_sample_us": 10_000_000}

    def test_a_command_that_fails_at_once_is_reported(self, tmp_path: Path) -> None:
        done = pydamon("record", "-o", str(tmp_path / "x"), *SMAPS, "--", "sh", "-c", "exit 7")
        assert done.returncode == 7
        assert "the command exited with status 7" in done.stderr
        assert "no snapshot was completed" in done.stderr


class TestRefusals:
    @pytest.mark.parametrize(
        ("args", "status", "message"),
        [
            (["4194305"], 2, "pid: no process has the id 4194305"),
            (["0"], 2, "pid: is 0; vaddr needs the id of a process"),
            (["my_service"], 2, "no process is called 'my_service'; to launch a command put it after --"),
            ([], 2, "needs a pid, or a command after --"),
            (["1", "1"], 2, "pid: the same process is named twice"),
            (["1", "x"], 2, "no process is called 'x'"),
            (["--cgroup", "/no/such", "1"], 2, "--cgroup: says which processes to monitor"),
            (["--cgroup", "/no/such"], 2, "--cgroup: "),
            (["--include-children"], 2, "needs a pid"),
            (
                ["--ops", "reported"],
                2,
                "--source: must be perf-event[:EVENT], valgrind, perf-mem, lackey:FILE or perf-script:FILE",
            ),
            (["--ops", "reported", "--source", "valgrind"], 2, "--source valgrind: needs a command"),
            (["--ops", "reported", "--source", "valgrind", "--cpus", "0", "--", "true"], 2, "--cpus: cannot be used"),
            (["--ops", "reported", "--source", "lackey:/no/such"], 2, "/no/such: cannot be read"),
            (
                ["--ops", "reported", "--source", "lackey:/dev/null", "--threads", "a"],
                2,
                "'a' is not a list of numbers",
            ),
            (["--source", "valgrind", "1"], 2, "--source: is for --ops reported"),
            (["--"], 2, "--: a command must follow it"),
            (["1", "--", "true"], 2, "give either a pid or a command"),
            (["--", "./no-such-command"], 2, "./no-such-command: cannot be run: No such file or directory"),
            (["--", "/"], 2, "/: cannot be run: Permission denied"),
            (["--sample", "200ms", "--aggr", "100ms", "1"], 2, "--sample: the sampling interval (200 ms) must not be"),
            (["--sample", "0ms", "1"], 2, "--sample: is 0 us; it must be at least 1us"),
            (["--sample", "5", "1"], 2, "'5' has no unit; write it like 5ms"),
            (["--aggr=-1s", "1"], 2, "'-1s' is not a time"),
            (["--min-regions", "20", "--max-regions", "10", "1"], 2, "--max-regions: is 10; it must not be below"),
            (["--max-regions", "1", "--min-regions", "1", "1"], 2, "--min-regions: is 1; DAMON needs at least 3"),
            (["--duration", "0s", "1"], 2, "--duration: is 0; it must be longer"),
            (["--max-cpu", "1", "1"], 2, "'1' has no percent sign; write it like 1%"),
            (["--max-cpu", "0%", "1"], 2, "must be at least 0.01%"),
            (["--max-cpu", "1%", "--ops", "sim", "--workload", "stairs"], 2, "--max-cpu: is for monitoring running"),
            (["--intervals", "sometimes", "1"], 2, "'--intervals'"),
            (["--region", "5-4", "1"], 2, "--region: 0x5-0x4 is not a range"),
            (["--ops", "sim"], 2, "--workload: is needed with --ops sim"),
            (["--ops", "sim", "--workload", "nope"], 2, "neither a built-in workload"),
            (["--ops", "sim", "--workload", "stairs", "1"], 2, "--ops sim: takes no process"),
            (["--workload", "stairs", "1"], 2, "--workload: is for --ops sim"),
            (["--bogus", "1"], 2, "No such option"),
            (["-o", "/nonexistent/x.damon", "1"], 2, "there is no directory /nonexistent"),
            (["-o", "/", "1"], 2, "cannot write /"),
        ],
    )
    def test_a_wrong_request_gets_one_line(self, args: list[str], status: int, message: str, tmp_path: Path) -> None:
        output = [] if "-o" in args else ["-o", str(tmp_path / "x.damon")]
        done = pydamon("record", *output, "--primitive", "auto", *args)
        assert done.returncode == status
        assert message in only_line(done)
        assert list(tmp_path.iterdir()) == []

    def test_a_mistake_in_line_7_of_a_workload_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "pattern.cfg"
        path.write_text("a, 10485760\nb, 10485760\n\nfirst\n1000\na, 0, 4096, 1\nc, 0, 4096, 1\n")
        done = pydamon("record", "-o", str(tmp_path / "x"), "--ops", "sim", "--workload", str(path))
        assert done.returncode == 2
        assert f"{path}:7" in only_line(done)

    def test_an_existing_file_that_is_no_record_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "precious.txt"
        path.write_text("do not lose me")
        done = pydamon("record", "-o", str(path), "--ops", "sim", "--workload", "stairs")
        assert done.returncode == 2
        assert "is not a pydamon record" in only_line(done)
        assert path.read_text() == "do not lose me"

    def test_a_kernel_thread_has_no_memory_to_monitor(self, tmp_path: Path) -> None:
        # pid 2 is kthreadd, unless this is a container with pids of its own
        if Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text() != "kthreadd\n":
            pytest.skip("pid 2 is no kernel thread here")
        done = pydamon("record", "-o", str(tmp_path / "x"), *SMAPS, "--duration", "200ms", "2")
        assert done.returncode == 2
        assert "is a kernel thread" in only_line(done)


class TestOutput:
    def test_a_limited_file_size_ends_it_with_a_readable_record(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

        done = pydamon("record", "-o", str(out), "--ops", "sim", "--workload", "stairs", preexec_fn=limit)
        assert done.returncode == 1
        assert "the limit of the file size is reached" in only_line(done)
        assert out.stat().st_size <= 60_000
        assert nr_snapshots(out) > 10

    def test_a_full_disk_ends_it_in_one_line(self) -> None:
        done = pydamon("record", "-o", "/dev/full", "--ops", "sim", "--workload", "stairs")
        assert done.returncode == 1
        assert "the disk is full" in only_line(done)

    def test_recording_again_to_the_same_file_replaces_the_record(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        args = ("record", "-o", str(out), "--ops", "sim", "--workload", "zigzag", "--duration")
        assert pydamon(*args, "2s").returncode == 0
        assert nr_snapshots(out) == 20
        assert pydamon(*args, "1s").returncode == 0
        assert nr_snapshots(out) == 10

    def test_a_simulation_with_one_seed_gives_one_result(self, tmp_path: Path) -> None:
        results = []
        for name in ("a", "b"):
            args = (
                "-o",
                str(tmp_path / name),
                "--ops",
                "sim",
                "--workload",
                "stairs",
                "--duration",
                "3s",
                "--seed",
                "9",
            )
            assert pydamon("record", *args).returncode == 0
            results.append(pydamon("report", "regions", "-i", str(tmp_path / name), "--json").stdout)
        assert results[0] == results[1]
        first = json.loads(results[0].splitlines()[0])
        assert first["max_nr_accesses"] == 20

    def test_a_closed_pipe_ends_a_report_quietly(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        assert pydamon("record", "-o", str(out), "--ops", "sim", "--workload", "stairs").returncode == 0
        report = start("report", "regions", "-i", str(out), "--json")
        assert report.stdout
        assert report.stderr
        report.stdout.readline()
        report.stdout.close()
        assert report.stderr.read() == ""
        assert report.wait() == 0
        report.stderr.close()


class TestExplain:
    def test_the_plan_is_told_and_nothing_is_run(self, tmp_path: Path) -> None:
        done = pydamon(
            "record", "--explain", "-o", str(tmp_path / "x"), "--sample", "10ms", "--", "./my_service", "--flag"
        )
        assert done.returncode == 0
        assert "the command './my_service --flag'" in done.stdout
        assert "Every 10 ms (sampling interval)" in done.stdout
        assert "Every 200 ms (aggregation interval)" in done.stdout
        assert list(tmp_path.iterdir()) == []


class TestGroups:
    def test_several_processes_are_targets_of_their_own(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        with subprocess.Popen(SLEEPER, stdout=-1) as a, subprocess.Popen(SLEEPER, stdout=-1) as b:
            pids = [a.pid, b.pid]

            def record(duration: str) -> None:
                done = pydamon("record", "-o", str(out), "--force", *SMAPS, "--duration", duration, *map(str, pids))
                assert done.returncode == 0, done.stderr

            for_longer(record, lambda: nr_snapshots(out) >= 4, 0.6)
            a.kill()
            b.kill()
        reader = RecordReader(str(out))
        assert [target.pid for target in reader.info.targets] == pids
        assert {snapshot.target for snapshot in reader.snapshots()} == {0, 1}

    def test_children_join_and_keep_their_identity(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        # The child ends with the shell, which is its parent until then.
        child = "import os, time; shell = os.getppid()\nwhile os.getppid() == shell: time.sleep(0.1)"
        script = f"sleep 0.3; {sys.executable} -c '{child}' >/dev/null 2>&1 & wait"

        def late() -> bool:
            """Whether the child is known by what it runs, and snapshots of it are in the file."""
            if not out.exists():
                return False
            with RecordReader(str(out)) as reader:
                targets = {one.target for one in reader.info.targets if "os.getppid" in (one.command or "")}
                return any(snapshot.target in targets - {0} for snapshot in reader.snapshots())

        record = start("record", "-o", str(out), *SMAPS, "--include-children", "--", "sh", "-c", script)
        try:
            wait_until(late, every_s=0.1)
        finally:
            record.send_signal(signal.SIGINT)
            _, errors = record.communicate(timeout=GENEROUS_S)
        assert record.returncode == 0, errors


class TestReported:
    def test_a_trace_becomes_a_record_in_instruction_time(self, tmp_path: Path) -> None:
        # lackey's format: an instruction, then its accesses; 100,000 instructions sweep 16 pages
        trace = tmp_path / "trace"
        trace.write_text("".join(f"I  00400000,3\n L {0x10000000 + i % 16 * 4096:08x},8\n" for i in range(100_000)))
        out = tmp_path / "run.damon"
        intervals = ["--sample", "1us", "--aggr", "10us"]
        done = pydamon("record", "-o", str(out), "--ops", "reported", "--source", f"lackey:{trace}", *intervals)
        assert done.returncode == 0, done.stderr
        snapshots = list(RecordReader(str(out)).snapshots())
        assert len(snapshots) in (9, 10)  # the trace ends where the tenth does
        last = snapshots[-1]
        swept = (last.start >= 0x10000000) & (last.end <= 0x10010000)
        assert (last.nr_accesses[swept] == 10).all()
        assert int((last.end - last.start)[swept].sum()) == 16 * 4096

    @pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
    def test_a_command_is_traced_by_valgrind(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        done = pydamon("record", "-o", str(out), "--ops", "reported", "--source", "valgrind", "--", "ls", "/")
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert "every access is told" in done.stderr


class TestUsers:
    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as sudo does")
    def test_under_sudo_the_command_and_the_record_belong_to_the_invoking_user(self, tmp_path: Path) -> None:
        out = tmp_path / "run.damon"
        environment = {**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"}

        def record(lasts: str) -> None:
            script = f"id -u; echo $HOME; sleep {int(lasts[:-2]) / 1000}"
            done = pydamon("record", "-o", str(out), "--force", *SMAPS, "--", "sh", "-c", script, env=environment)
            assert done.returncode == 0, done.stderr
            uid, home = done.stdout.splitlines()
            assert uid == "65534"
            assert home != os.environ.get("HOME")
            assert out.stat().st_uid == 65534

        for_longer(record, lambda: nr_snapshots(out) > 0, 0.3)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
    def test_an_ordinary_user_may_not_monitor_anothers_process(self) -> None:
        # Becomes nobody after its imports, which may lie where nobody may read.
        script = (
            "import difflib, locale, os, subprocess, sys\n"
            "import pydamon.cli.command, pydamon.cli.recording, pydamon.cli.record\n"
            "import pydamon.engines.user.engine, pydamon.run.recorder\n"
            "import pydamon.primitives.bpf, pydamon.primitives.smaps, pydamon.ops.vaddr_group\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "sys.exit(pydamon.cli.main(sys.argv[1:]))"
        )
        with tempfile.TemporaryDirectory() as directory:  # tmp_path lies where only root may go
            os.chmod(directory, 0o777)
            args = ["record", "-o", f"{directory}/x", str(os.getpid())]
            done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=False)
            assert os.listdir(directory) == []
        assert done.returncode == 3, done.stderr
        assert "run as its owner or as root" in only_line(done)
