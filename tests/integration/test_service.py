"""``pydamon start``, ``status`` and ``stop`` as a user meets them: real daemons, real signals.

They run anywhere and as anybody: through smaps, or over a simulation.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.integration.service_helpers import (  # noqa: F401 - fixtures
    SIM,
    SLEEPER,
    SMAPS,
    lives,
    runtime_fixture,
    sleeper_fixture,
    start,
    wait_for_end,
)

from pydamon.errors import PydamonError
from pydamon.primitives import kept_facts
from pydamon.records.reader import RecordReader
from pydamon.service.client import Client, running


def left_in(runtime: Path) -> list[str]:
    """What is in the runtime directory but what is known of the kernel, which stays."""
    return [name for name in os.listdir(runtime) if name != kept_facts.FILE]


class TestLife:
    def test_it_starts_is_shown_and_stops(self, sleeper: int, runtime: Path) -> None:
        pid = start(*SMAPS, str(sleeper))
        wait_until(lambda: Client().status()["snapshots"] > 1)
        shown = pydamon("status")
        head, row = shown.stdout.splitlines()[:2]  # the kernel's DAMON may follow
        assert head.split()[:5] == ["NAME", "PID", "OPS", "PRIMITIVE", "TARGETS"]
        assert row.split()[:5] == ["0", str(pid), "vaddr", "smaps", str(sleeper)]
        stopped = pydamon("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert re.match(r"kdamond 0: stopped after .*, \d+ snapshots\ncost: ", stopped.stdout)
        assert not lives(pid)
        assert lives(sleeper)  # not ours: left alone
        assert os.listdir(runtime) == []
        assert pydamon("status").stdout.splitlines()[0] == "nothing runs in the background"

    def test_status_as_json_has_integers_and_units(self, sleeper: int) -> None:
        start(*SMAPS, "--max-regions", "500", str(sleeper))
        wait_until(lambda: Client().status()["snapshots"] > 0)
        (status,) = json.loads(pydamon("status", "--json").stdout)["kdamonds"]
        assert (status["engine"], status["ops"], status["primitive"]) == ("user", "vaddr", "smaps")
        assert [target["pid"] for target in status["targets"]] == [sleeper]
        assert "time.sleep(600)" in status["targets"][0]["command"]
        assert status["intervals"] == {
            "sample_us": 10_000, "aggr_us": 50_000, "ops_update_us": 1_000_000, "intervals_goal": None,
        }  # fmt: skip
        assert status["nr_regions"] == {"min": 10, "max": 500}
        assert status["regions"] > 0
        assert status["schemes"] == []
        assert status["cost"]["cpu_ns"] > 0 < status["cost"]["checks"]
        assert status["uptime_ns"] > 0
        assert any("smaps" in line for line in status["notices"])

    def test_details_of_one(self, sleeper: int) -> None:
        start(*SMAPS, "--name", "web", str(sleeper))
        lines = pydamon("status", "web").stdout.splitlines()
        assert lines[0].startswith("kdamond    web (pid ")
        assert {"engine", "primitive", "target", "intervals", "regions", "cost"} <= {line.split()[0] for line in lines}

    def test_several_run_at_once_and_stop_all_ends_them(self) -> None:
        for name in ("b", "a"):
            start(*SIM, "--name", name)
        start(*SIM)
        assert running() == ["0", "a", "b"]
        which = pydamon("stop")
        assert which.returncode == 2
        assert "say which: 0, a, b" in only_line(which)
        done = pydamon("stop", "--all")
        assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("kdamond")] == [
            "kdamond 0", "kdamond a", "kdamond b",
        ]  # fmt: skip
        assert running() == []

    def test_a_simulation_runs_in_real_time(self) -> None:
        before = time.monotonic_ns()
        start(*SIM)
        wait_until(lambda: Client().status()["snapshots"] >= 5)
        snapshots = Client().status()["snapshots"]
        # A snapshot is 100 ms of virtual time, which is never ahead of the clock; what was late catches up.
        assert snapshots * 100_000_000 <= time.monotonic_ns() - before

    def test_it_writes_a_record_too(self, sleeper: int, tmp_path: Path) -> None:
        start(*SMAPS, "-o", "run.damon", str(sleeper), cwd=tmp_path)  # relative to where start was called
        wait_until(lambda: Client().status()["snapshots"] > 2)
        report = Client().stop()
        assert report["record"] == str(tmp_path / "run.damon")
        reader = RecordReader(str(tmp_path / "run.damon"))
        assert sum(1 for _ in reader.snapshots()) == report["snapshots"]
        assert reader.info.targets[0].pid == sleeper
        assert not reader.truncated

    def test_it_ends_with_its_target_and_the_log_says_so(self, runtime: Path) -> None:
        with subprocess.Popen(SLEEPER, stdout=-1) as child:
            assert child.stdout
            child.stdout.readline()
            pid = start(*SMAPS, str(child.pid))
            child.kill()
        wait_for_end(pid)
        assert os.listdir(runtime) == ["0.log"]
        assert "the target ended" in (runtime / "0.log").read_text()
        gone = pydamon("status", "0")
        assert gone.returncode == 2
        assert "0.log" in only_line(gone)

    def test_it_ends_after_a_duration(self, sleeper: int) -> None:
        wait_for_end(start(*SMAPS, "--duration", "300ms", str(sleeper)))
        assert running() == []

    def test_a_spec_file_is_run(self, sleeper: int, tmp_path: Path) -> None:
        context = {
            "ops": "vaddr", "primitive": "smaps", "targets": [{"pid": sleeper}],
            "intervals": {"sample_us": "20ms", "aggr_us": "100ms"}, "nr_regions": {"max": "77"},
        }  # fmt: skip
        path = tmp_path / "spec.json"
        path.write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
        start("--spec", str(path))
        status = Client().status()
        assert (status["intervals"]["sample_us"], status["nr_regions"]["max"]) == (20_000, 77)

    def test_caller_gets_its_pipes_back_at_once(self) -> None:
        # subprocess.run would wait for the daemon, had it kept the pipes
        read, write = os.pipe()
        start(*SIM, pass_fds=[write])
        os.close(write)
        assert select.select([read], [], [], GENEROUS_S)[0] == [read]  # end of file: nobody else has it
        os.close(read)


class TestCommand:
    def test_a_launched_command_is_monitored_and_ended(self, runtime: Path) -> None:
        start(*SMAPS, "--", sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(600)")
        status = Client().status()
        assert [target["pid"] for target in status["targets"]] == [status["command_pid"]]
        wait_until(lambda: "hello\n" in (runtime / "0.log").read_text())
        report = Client().stop()
        assert report["command_fate"] == "ended, as it was still running"
        assert not lives(status["command_pid"])

    def test_its_output_can_go_to_a_file_of_the_users(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("before\n")
        wait_for_end(start(*SMAPS, "--log", str(log), "--", "sh", "-c", "echo hello; sleep 0.3; exit 3"))
        assert log.read_text().startswith("before\n")
        assert "hello\n" in log.read_text()
        assert "exited with status 3" in log.read_text()

    def test_one_that_cannot_be_run_is_refused(self, runtime: Path) -> None:
        done = pydamon("start", "--", "/does/not/exist")
        assert done.returncode == 2
        assert "/does/not/exist" in only_line(done)
        assert left_in(runtime) == []


class TestRefused:
    @pytest.mark.parametrize(
        ("args", "status", "said"),
        [
            ([], 2, "start: needs a pid"),
            (["4194305"], 2, "no process has the id 4194305"),
            (["--max-regions", "2", "1"], 2, "--max-regions"),
            (["--sample", "1s", "--aggr", "1ms", "1"], 2, "--sample"),
            (["--name", "a/b", *SIM], 2, "--name"),
            (["--ops", "sim"], 2, "--workload"),
            ([*SIM, "--rotate", "1h"], 2, "--rotate"),
            ([*SIM, "--primitive", "smaps"], 2, "--primitive"),
            (["--ops", "sim", "--workload", "/does/not/exist"], 2, "/does/not/exist"),
            (["--ops", "reported", "--source", "perf-script:-"], 2, "--source"),
            (["-o", "/does/not/exist/x", *SIM], 2, "/does/not/exist"),
            (["--log", "/does/not/exist/x", *SIM], 3, "/does/not/exist"),
            (["--spec", "/does/not/exist"], 2, "--spec /does/not/exist"),
            (["--spec", "/dev/null"], 2, "--spec /dev/null: is empty"),
            (["--spec", "/dev/null", "--sample", "5ms"], 2, "--sample"),
        ],
    )
    def test_what_is_wrong_is_said_in_the_foreground_and_nothing_is_left(
        self, runtime: Path, args: list[str], status: int, said: str
    ) -> None:
        done = pydamon("start", *args)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert said in only_line(done)
        assert not runtime.exists() or left_in(runtime) == []

    def test_of_two_starts_with_one_name_one_wins(self) -> None:
        both = [
            subprocess.Popen([*PYDAMON, "start", *SIM, "--name", "web"], stdout=-1, stderr=-1, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120) for process in both]
        assert sorted(process.returncode for process in both) == [0, 2]
        assert sum("'web' is in use" in errors for _, errors in said) == 1
        assert running() == ["web"]

    def test_a_directory_of_others_is_refused(self, runtime: Path) -> None:
        runtime.mkdir()
        runtime.chmod(0o777)
        for args in (["start", *SIM], ["status"], ["stop", "--all"]):
            done = pydamon(*args)
            assert done.returncode == 3
            assert "can be written by others" in only_line(done)

    @pytest.mark.parametrize("verb", ["stop", "status", "tune"])
    def test_names_that_do_not_run_are_refused(self, verb: str) -> None:
        start(*SIM, "--name", "web")
        done = pydamon(verb, "wbe", *(["--sample", "10ms"] if verb == "tune" else []))
        assert done.returncode == 2
        assert "there are: web" in only_line(done)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_cleanly(self, runtime: Path, tmp_path: Path, number: signal.Signals) -> None:
        out = tmp_path / "run.damon"
        pid = start(*SMAPS, "-o", str(out), "--", *SLEEPER)
        command = Client().status()["command_pid"]
        wait_until(lambda: Client().status()["snapshots"] > 1)
        os.kill(pid, number)
        wait_for_end(pid)
        assert os.listdir(runtime) == ["0.log"]
        assert "interrupted" in (runtime / "0.log").read_text()
        assert not lives(command)
        assert not RecordReader(str(out)).truncated

    def test_killed_it_leaves_no_mess(self, sleeper: int, runtime: Path) -> None:
        pid = start(*SMAPS, str(sleeper))
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        assert pydamon("status").stdout.splitlines()[0] == "nothing runs in the background"
        assert os.listdir(runtime) == ["0.log"]
        assert start(*SMAPS, str(sleeper)) != pid
        assert running() == ["0"]

    def test_one_that_hangs_is_ended_by_a_signal(self, sleeper: int) -> None:
        pid = start(*SMAPS, str(sleeper))
        client = Client(timeout_s=0.3)
        os.kill(pid, signal.SIGSTOP)
        # The thread that gets the signal stops the others, once it runs: on a busy machine they may answer until then.
        threads = Path(f"/proc/{pid}/task")
        wait_until(lambda: all(") T " in (thread / "stat").read_text() for thread in threads.iterdir()))
        with pytest.raises(PydamonError, match="does not answer"):
            client.status()
        stopper = subprocess.Popen(
            [sys.executable, "-c", "from pydamon.service.client import Client as C; print(C().stop(timeout_s=1))"],
            stdout=-1, stderr=-1, text=True,
        )  # fmt: skip
        try:
            _, errors = stopper.communicate(timeout=GENEROUS_S)
            assert "does not end" in errors  # it is stopped: the signal waits for it
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for_end(pid)
        assert running() == []

    def test_ctrl_c_on_start_leaves_nothing(self, runtime: Path, tmp_path: Path) -> None:
        trace = tmp_path / "fifo"
        os.mkfifo(trace)  # start waits for the first accesses
        args = ["start", "--ops", "reported", "--source", f"lackey:{trace}"]
        foreground = subprocess.Popen([*PYDAMON, *args], stdout=-1, stderr=-1, text=True)
        wait_until(lambda: runtime.exists() and (runtime / "0.pid").exists() and (runtime / "0.pid").stat().st_size)
        pid = json.loads((runtime / "0.pid").read_text())["pid"]
        time.sleep(0.2)
        foreground.send_signal(signal.SIGINT)
        output, errors = foreground.communicate(timeout=GENEROUS_S)
        assert (foreground.returncode, output, errors) == (130, "", "")
        wait_for_end(pid)
        assert running() == []


class TestRobust:
    def test_garbage_on_the_socket_does_not_disturb(
        self, sleeper: int, runtime: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start(*SMAPS, str(sleeper))
        monkeypatch.chdir(runtime)  # its path may be too long for a socket
        for garbage in (b"\0" * 1000, b"{" * 3_000_000, b'{"do": "stop", "undo": 7}\n', b""):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("0.sock")
                try:
                    client.sendall(garbage)
                except OSError:
                    pass
        assert Client().status()["state"] == "running"

    def test_closed_pipes_and_closed_standard_files(self) -> None:
        closed = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PYDAMON, "start", *SIM], timeout=120, check=False
        )
        assert closed.returncode == 0
        assert running() == ["0"]
        read, write = os.pipe()
        os.close(read)
        for args in (["status"], ["status", "0"], ["stop"]):
            done = subprocess.run([*PYDAMON, *args], stdout=write, stderr=-1, timeout=120, check=False)
            assert (done.returncode, done.stderr) == (0, b"")
        os.close(write)
        assert running() == []

    def test_undo_says_where_there_is_nothing_to_undo(self) -> None:
        start(*SIM)
        done = pydamon("stop", "--undo")
        assert done.returncode == 0
        assert "undone: " in done.stdout
