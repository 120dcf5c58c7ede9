"""Hostile names, lost terminals, daemons that hang: whole commands as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import wait_until
from tests.integration.service_helpers import SMAPS, start
from tests.integration.service_helpers import runtime_fixture as runtime_fixture
from tests.integration.service_helpers import sleeper_fixture as sleeper_fixture

from pydamon.records.joined import open_record
from pydamon.service.client import Client

NAMES = ("n\udcff", "a\x1b]0;owned\x07", "c1\x9b31m", "bidi\u202e\u2066", "l\ni\r\u2028ne")


def rows_of(path: Path) -> int:
    with open_record(str(path)) as reader:
        return sum(len(snapshot.start) for snapshot in reader.snapshots())


def assert_harmless(text: str) -> None:
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


# -- standard error that takes nothing --------------------------------------------------------------------------------


def lost(where: str, command: list[str]) -> int:
    """The status of a command whose standard error is closed, full, or a pipe whose reader has gone or is stuck."""
    if where == "closed":
        return subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], timeout=240).returncode
    if where == "full":
        with open("/dev/full", "wb") as full:
            return subprocess.run(command, stderr=full, timeout=240).returncode
    reading, writing = os.pipe()
    if where == "stuck":
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, bytes(4096))
        except BlockingIOError:
            os.set_blocking(writing, True)
    with subprocess.Popen(command, stderr=writing) as child:
        os.close(writing)
        if where == "gone":
            os.close(reading)
        try:
            return child.wait(240)
        finally:
            child.kill()
            if where == "stuck":
                os.close(reading)


@pytest.mark.parametrize("where", ["closed", "full", "gone", "stuck"])
def test_a_recording_goes_on_whatever_became_of_standard_error(where: str, sleeper: int, tmp_path: Path) -> None:
    output = tmp_path / "r.damon"

    def record(duration: str) -> None:
        asked = [*PYDAMON, "record", *SMAPS, "--duration", duration, "-o", str(output), str(sleeper)]
        assert lost(where, asked) == 0

    for_longer(record, lambda: rows_of(output) > 10, 2)


@pytest.mark.parametrize("where", ["closed", "full", "gone"])
def test_the_status_tells_what_cannot_be_said(where: str, tmp_path: Path) -> None:
    assert lost(where, [*PYDAMON, "record", "-o", str(tmp_path / "r"), str(2**22)]) == 2
    assert lost(where, [*PYDAMON, "no-such-verb"]) == 2
    assert lost(where, [*PYDAMON]) == 2


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_messages_drive_no_terminal(name: str, tmp_path: Path) -> None:
    here = os.fsencode(tmp_path)
    file = os.path.join(here, os.fsencode(name) + b".csv")
    head = "target,start_ns,end_ns,sample_us,aggr_us,start,end,nr_accesses,age\n"
    with open(file, "wb") as csv:
        csv.write(
            f"{head}0,0,1,5000,100000,4096,8192,1,1\n0,".encode() + os.fsencode(name).replace(b"\n", b"") + b",2\n"
        )
    (tmp_path / "s.json").write_text(json.dumps({"kdamonds": [{"contexts": [{"ops": "vaddr", name: 1}]}]}))
    argument = os.fsencode(name)
    commands: list[list[str | bytes]] = [
        ["import", file, "-o", "o.damon"],
        ["schemes", "check", "s.json"],
        ["schemes", "check", argument],
        ["report", "info", "-i", argument],
        ["record", b"--" + argument],
        ["record", "--sample", argument, "1"],
        ["record", "--ops", "sim", "--workload", argument],
        ["start", "--name", argument, "1"],
        ["status", argument],
        [argument],
    ]
    for asked in commands:
        done = subprocess.run([*PYDAMON, *asked], capture_output=True, timeout=240, cwd=tmp_path)
        assert done.returncode in (1, 2, 3) or asked[0] == "import", asked  # that leaves a bad row out
        said = done.stderr.decode()  # it is UTF-8
        assert "internal error" not in said
        assert said.count("\n") == 1 or asked[0] == "import", said
        assert_harmless(said)


@pytest.mark.parametrize("name", NAMES)
def test_json_drives_no_terminal(name: str, sleeper: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [os.fsencode(name), "-c", "import time; print(flush=True); time.sleep(600)"],
        executable=sys.executable,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        output = os.fsdecode(os.fsencode(tmp_path / f"{name}.damon"))
        words = ["record", "--force", *SMAPS, "-o", output, str(child.pid), "--duration"]
        recorded: list[subprocess.CompletedProcess[str]] = []
        for_longer(lambda some: recorded.append(pydamon(*words, some)), lambda: rows_of(Path(output)), 1)
        start("--name", "d", *SMAPS, str(child.pid))
        try:
            shown = [pydamon("status", "--json"), pydamon("status", "d"), pydamon("stop", "d", "--json")]
        finally:
            child.kill()
    assert recorded[-1].returncode == 0, recorded[-1].stderr
    shown += [pydamon("report", verb, "--json", "-i", output) for verb in ("info", "access", "wss", "summary")]
    for done in shown:
        assert done.returncode == 0, done.stderr
        assert_harmless(done.stdout + done.stderr)


def test_names_that_are_not_utf_8(sleeper: int, tmp_path: Path) -> None:
    """The first `status` once ended the control thread for ever."""
    output = os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.damon")
    start("--name", "d", *SMAPS, "-o", output, str(sleeper))
    for _ in range(2):
        assert "n\\xff.damon" in pydamon("status", "d").stdout
        assert "n\\\\xff.damon" in pydamon("status", "--json").stdout
    assert pydamon("stop", "d").returncode == 0
    assert os.path.getsize(output) > 0

    workload = os.fsencode(tmp_path) + b"/w\xff"
    Path(os.fsdecode(workload)).write_text("a, 1M\n\np\n100\na, 0, 4096, 1\n")
    output = os.fsdecode(os.fsencode(tmp_path) + b"/q\xff.damon")
    done = pydamon("record", "-o", output, "--ops", "sim", "--workload", os.fsdecode(workload), "--duration", "1s")
    assert done.returncode == 0, done.stderr
    assert pydamon("report", "info", "-i", output).returncode == 0


def test_a_cgroup_may_have_any_name(tmp_path: Path) -> None:
    root = next((path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.access(path, os.W_OK)), None)
    name = f"pydamon-test-{os.getpid()}\udc85"
    try:
        os.mkdir(f"{root}/{name}")
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error.strerror}")
    try:
        done = pydamon("record", "-o", str(tmp_path / "r"), "--duration", "1s", "--cgroup", name)
    finally:
        os.rmdir(f"{root}/{name}")
    if "no cgroup v2" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode in (0, 3), done.stderr
    assert "internal error" not in done.stderr


def test_a_carriage_return_in_a_mapped_files_name_ends_nothing(tmp_path: Path) -> None:
    script = r"""
import mmap, os, time
def held(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    return mmap.mmap(fd, 1 << 20)
a = [held(b"z\rz"), held(b"x\r7f0000000000-7f8000000000 rw-p 00000000 00:00 0 ")]
print(flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        output = tmp_path / "r.damon"
        done = pydamon("record", *SMAPS, "--duration", "1s", "-o", str(output), str(child.pid))
        child.kill()
    assert done.returncode == 0, done.stderr
    with open_record(str(output)) as reader:
        assert all(int((s.end - s.start).sum()) < 1 << 39 for s in reader.snapshots())


# -- a daemon that hangs ----------------------------------------------------------------------------------------------


def has_stopped(pid: int) -> bool:
    """As proc_pid_stat(5) has it."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def test_status_says_who_does_not_answer_and_since_when(sleeper: int) -> None:
    stopped = [start("--name", name, *SMAPS, str(sleeper)) for name in ("s1", "s2")]
    start("--name", "well", *SMAPS, str(sleeper))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        # On a busy machine they go on for a moment, and give signs of life.
        wait_until(lambda: all(has_stopped(pid) for pid in stopped))
        began, began_ns = time.monotonic(), time.time_ns()
        done = pydamon("status")
        assert time.monotonic() - began < 9.5  # once for both: 5 s, and the start-up of the command
        assert done.returncode == 1
        assert "nothing runs" not in done.stdout
        assert "well" in done.stdout
        first, second = done.stderr.splitlines()
        for line, name, pid in ((first, "s1", stopped[0]), (second, "s2", stopped[1])):
            assert line.startswith(f"pydamon: {name}: does not answer; its last sign of life was at ")
            assert line.endswith(f"its process {pid} was stopped (kill -CONT {pid} lets it go on)")
        done = pydamon("status", "--json")
        assert done.returncode == 1
        told = json.loads(done.stdout)
        assert [each["name"] for each in told["kdamonds"]] == ["well"]
        assert [(each["name"], each["pid"]) for each in told["silent"]] == [("s1", stopped[0]), ("s2", stopped[1])]
        assert all(0 < began_ns - each["since_unix_ns"] < 60e9 for each in told["silent"])
        assert only_line(pydamon("status", "s1")).startswith("pydamon: s1: does not answer; its last sign")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: pydamon("status").returncode == 0)
    assert Client("s1").status()["name"] == "s1"


# -- targets that cannot be monitored ---------------------------------------------------------------------------------


VERBS = (["record", "-o", "r.damon"], ["start", "-o", "r.damon"], ["trace"])


@pytest.mark.parametrize("verb", VERBS)
def test_a_zombie_and_a_kernel_thread_are_refused(verb: list[str], tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        done = pydamon(*verb, "--primitive", "smaps", "--duration", "1s", str(child.pid), cwd=tmp_path)
    finally:
        child.wait()
    assert (done.returncode, done.stdout) == (2, "")
    assert only_line(done).startswith(f"pydamon: pid: process {child.pid} has ended")
    if os.path.exists("/proc/2/stat") and not os.path.exists("/proc/2/exe"):
        done = pydamon(*verb, "--primitive", "smaps", "--duration", "1s", "2", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "is a kernel thread" in only_line(done)
    assert os.listdir(tmp_path) == ["run"]  # where kdamonds in the background are found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("primitive", ["smaps", "bpf", "auto"])
@pytest.mark.parametrize("verb", VERBS)
def test_who_may_not_look_is_told_so_before_anything_else(verb: list[str], primitive: str, tmp_path: Path) -> None:
    """Root without CAP_SYS_PTRACE, as in containers, may load BPF programs, but not read what others map."""
    asked = [*PYDAMON, *verb, "--primitive", primitive, "--duration", "1s", "1"]
    command = ["setpriv", "--bounding-set=-sys_ptrace", *asked]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    if done.returncode == 0:
        pytest.skip("process 1 has no more rights than that")
    assert (done.returncode, done.stdout) == (3, "")
    assert "monitoring" not in only_line(done)
    assert os.listdir(tmp_path) == ["run"]  # where kdamonds in the background are found


def test_a_full_standard_output_is_named() -> None:
    with open("/dev/full", "wb") as full:
        done = pydamon("doctor", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert only_line(done) == "pydamon: standard output: No space left on device; the file system is full"
