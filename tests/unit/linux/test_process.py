"""Identity of a process and its mappings."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.helpers.waiting import wait_until

from pydamon.errors import RequestError
from pydamon.linux.process import Mapping, Process, parse_maps, start_ticks
from pydamon.linux.texts import Misread

# proc_pid_maps(5), with a name that has spaces and one that is empty
MAPS = """\
55d0c7a00000-55d0c7a02000 r--p 00000000 fe:00 26723                      /usr/bin/my service (deleted)
7f00c7a00000-7f00c7b00000 rw-p 00001000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_maps_are_parsed() -> None:
    assert parse_maps(MAPS.encode()) == [
        Mapping(0x55D0C7A00000, 0x55D0C7A02000, "r--p", 0, 26723, "/usr/bin/my service (deleted)"),
        Mapping(0x7F00C7A00000, 0x7F00C7B00000, "rw-p", 0x1000, 0, ""),
        Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, 0, "[vsyscall]"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "what is this",
        "55d0-zz r--p 0 fe:00 1",
        "5 r 0 0",
        "2000-1000 r--p 0 fe:00 1",
        f"1000-{1 << 64:x} r--p 0 0 1",
    ],
)
def test_lines_of_another_form_are_left_out_and_said_once(line: str) -> None:
    misread = Misread()
    for _ in range(2):
        found = parse_maps(f"{line}\n{MAPS}".encode(), misread)
        assert found == parse_maps(MAPS.encode())
    (notice,) = misread.take_notices()
    assert notice.startswith("/proc/PID/maps: ")
    assert line[:20] in notice
    assert misread.counts["/proc/PID/maps"] == 2
    assert misread.take_notices() == []


ENDS_A_LINE_ELSEWHERE = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("character", [*ENDS_A_LINE_ELSEWHERE, "\udcff"])
def test_a_name_never_ends_a_line(character: str) -> None:
    name = f"/x{character}7f0000000000-7f8000000000 rw-p 00000000 00:00 0"
    line = f"1000-2000 r--p 00000000 fe:00 1                {name}\n"
    misread = Misread()
    assert parse_maps(line.encode(errors="surrogateescape"), misread) == [Mapping(0x1000, 0x2000, "r--p", 0, 1, name)]
    assert not misread.counts


@pytest.mark.parametrize("name", [b"z\rz", b"x\r7f0000000000-7f8000000000 rw-p 00000000 00:00 0 ", b"n\xff", b"a\nb"])
def test_whatever_a_mapped_file_is_called(name: bytes, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "w+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096):
            process = Process(os.getpid())
            mappings = process.mappings()
            process.close()
    shown = os.fsdecode(path).replace("\n", "\\012")  # so does the kernel
    assert [m.end - m.start for m in mappings if m.name == shown] == [4096]
    assert not any(m.start == 0x7F0000000000 for m in mappings)


def test_proc_of_another_pid_namespace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `/proc` calls the process of a pidfd otherwise than we do (the line ``Pid:`` of its fdinfo)."""
    own = os.getpid()
    for shown in (own + 1, 0):
        monkeypatch.setattr("pydamon.linux.process._pid_in_proc", lambda pidfd, shown=shown: shown)
        with pytest.raises(RequestError, match="of another pid namespace") as caught:
            Process(own)
        assert f"{shown or 'nobody'} in /proc" in str(caught.value)


@pytest.mark.usefixtures("processes")
def test_two_processes_are_not_mixed_in_a_pid_namespace() -> None:
    """In a pid namespace with the outer /proc, pid 1 is ours by its pidfd and somebody else's by its files."""
    script = "from pydamon.linux.process import Process; Process(1)"
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no pid namespaces for this user")
    done = subprocess.run([*command, sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "in /proc, which is of another pid namespace" in done.stderr


@pytest.mark.usefixtures("processes")
def test_a_zombie_is_refused() -> None:
    # It never waits for its child. (Popen would, if nobody kept it.)
    code = "import subprocess, time; child = subprocess.Popen(['true']); print(child.pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        zombie = int(parent.stdout.readline())
        try:
            wait_until(lambda: Path(f"/proc/{zombie}/stat").read_text().split()[2] == "Z")
            with pytest.raises(RequestError, match=f"process {zombie} has ended") as caught:
                Process(zombie)
            assert caught.value.where == "pid"
        finally:
            parent.kill()


@pytest.mark.usefixtures("processes")
def test_a_command_of_ones_own_that_was_quick_has_ended() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    process = Process(child.pid)
    assert not process.alive()
    process.close()
    child.wait()


@pytest.mark.parametrize("pid", [0, -5, 2**22 + 1, 2**40])
def test_no_such_process(pid: int) -> None:
    with pytest.raises(RequestError, match="process") as caught:
        Process(pid)
    assert caught.value.where == "pid"


def test_identity_is_pidfd_and_start_time() -> None:
    process = Process(os.getpid())
    assert process.alive()
    assert process.start_ticks == start_ticks(os.getpid()) > 0
    assert any(m.name == "[stack]" for m in process.mappings())
    process.close()


@pytest.mark.usefixtures("processes")
def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen(["sleep", "600"])
    process = Process(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    child.wait()
    process.close()


@pytest.mark.usefixtures("processes")
def test_a_process_name_with_parentheses_does_not_confuse_the_start_time(tmp_path: object) -> None:
    # field 2 of /proc/PID/stat is the name in parentheses, as it is
    path = f"{tmp_path}/a) 1 (b"
    os.symlink("/bin/sleep", path)
    with subprocess.Popen([path, "60"]) as child:
        ticks = start_ticks(child.pid)
        child.kill()
    assert abs(ticks - start_ticks(os.getpid())) < 100 * 3600 * 24
    assert ticks > start_ticks(1)


def test_several_threads_may_ask_at_once() -> None:
    process = Process(os.getpid())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(lambda _: all(process.alive() for _ in range(3000)), range(4)))
    finally:
        sys.setswitchinterval(interval)
        process.close()
    assert not process.alive()
