"""Processes by the name of what they run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.helpers.waiting import wait_until

from pydamon.linux.named import processes_named


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("name", ["named-a", "named-fifteen-b", "named-longer-than-the-kernel-keeps"])
def test_a_process_is_found_by_the_name_of_its_program(tmp_path: Path, name: str) -> None:
    program, similar = tmp_path / name, tmp_path / f"{name}-not"
    for copy in (program, similar):
        shutil.copy(shutil.which("sleep") or "", copy)
    with subprocess.Popen([program, "600"]) as one, subprocess.Popen([similar, "600"]) as other:
        try:
            wait_until(lambda: bool(processes_named(name)))
            assert processes_named(name) == [one.pid]
        finally:
            one.kill()
            other.kill()


@pytest.mark.usefixtures("processes")
def test_what_has_ended_is_not_found(tmp_path: Path) -> None:
    program = tmp_path / "named-ended"
    shutil.copy(shutil.which("true") or "", program)
    with subprocess.Popen([program]) as ended:
        wait_until(lambda: Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert processes_named("named-ended") == []


def test_neither_this_process_nor_kernel_threads_are_found() -> None:
    assert os.getpid() not in processes_named(Path("/proc/self/comm").read_text().strip())
    assert processes_named("kthreadd") == []
