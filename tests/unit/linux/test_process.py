"""Identity of a process and its mappings."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pydamon.errors import RequestError
from pydamon.linux.process import Mapping, Process, parse_maps, start_ticks

# proc_pid_maps(5), with a name that has spaces and one that is empty
MAPS = """\
55d0c7a00000-55d0c7a02000 r--p 00000000 fe:00 26723                      /usr/bin/my service (deleted)
7f00c7a00000-7f00c7b00000 rw-p 00001000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_maps_are_parsed() -> None:
    assert parse_maps(MAPS.splitlines()) == [
        Mapping(0x55D0C7A00000, 0x55D0C7A02000, "r--p", 0, 26723, "/usr/bin/my service (deleted)"),
        Mapping(0x7F00C7A00000, 0x7F00C7B00000, "rw-p", 0x1000, 0, ""),
        Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, 0, "[vsyscall]"),
    ]


@pytest.mark.parametrize("line", ["", "what is this", "55d0-zz r--p 0 fe:00 1", "5 r 0 0"])
def test_lines_of_another_form_are_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse_maps([line])


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
    child = subprocess.Popen(["true"])
    process = Process(child.pid) if os.path.exists(f"/proc/{child.pid}") else None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process is not None
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
