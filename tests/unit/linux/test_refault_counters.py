"""Counters of what came back, from files like the kernel's."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from pydamon.linux.refaults import OfProcesses, Refaults, of_cgroup, of_machine

VMSTAT = "nr_free_pages 7\nworkingset_refault_anon 3\nworkingset_refault_file 40\npgmajfault 9\npswpin 2\npswpin_x 5\n"
PRESSURE = "some avg10=0.00 avg60=0.10 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "vmstat").write_text(VMSTAT)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure/memory").write_text(PRESSURE.format(1500))
    (tmp_path / "pressure/io").write_text(PRESSURE.format(2500))
    return tmp_path


def set_faults(proc: Path, pid: int, faults: int) -> None:
    """proc_pid_stat(5): the 12th field is majflt; a command may have spaces and brackets."""
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S 1 1 1 0 -1 4194304 99 0 {faults} 0 5 6\n")


def test_the_machines_are_those_of_vmstat_and_pressure(proc: Path) -> None:
    assert of_machine(proc=proc) == Refaults(
        refaulted_bytes=43 * mmap.PAGESIZE,
        major_faults=9,
        swapped_in_bytes=2 * mmap.PAGESIZE,
        memory_stall_us=1500,
        io_stall_us=2500,
    )


def test_what_the_kernel_does_not_tell_is_not_known(proc: Path) -> None:
    (proc / "vmstat").write_text("nr_free_pages 7\n")
    (proc / "pressure/io").unlink()
    assert of_machine(proc=proc) == Refaults(memory_stall_us=1500)
    assert of_machine(proc=proc / "none") == Refaults()


def test_faults_of_processes_that_have_ended_stay_counted(proc: Path) -> None:
    living = [1, 2]
    set_faults(proc, 1, 100)
    set_faults(proc, 2, 7)
    source = OfProcesses(lambda: living, proc=proc)
    assert source.read().major_faults == 0
    set_faults(proc, 1, 110)
    set_faults(proc, 2, 8)
    assert source.read().major_faults == 11
    living.remove(1)
    set_faults(proc, 3, 50)  # what it had before it became a target is not ours
    living.append(3)
    assert source.read().major_faults == 11
    set_faults(proc, 3, 51)
    assert source.read().major_faults == 12
    assert source.read().refaulted_bytes is None


def test_a_process_of_this_machine_has_a_count() -> None:
    assert OfProcesses(lambda: [os.getpid(), 2**22 + 1]).read().major_faults == 0


def test_a_cgroups_are_its_own(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.stat").write_text(VMSTAT.replace("pswpin 2\n", ""))
    (group / "memory.pressure").write_text(PRESSURE.format(77))
    found = of_cgroup(str(group), below=[tmp_path])
    assert found == Refaults(refaulted_bytes=43 * mmap.PAGESIZE, major_faults=9, memory_stall_us=77)
    assert of_cgroup(str(tmp_path / "gone"), below=[tmp_path]) == Refaults()
    assert of_cgroup(str(group), below=[]) == Refaults()


def test_growth_is_of_what_is_known_at_both_times() -> None:
    """A cgroup that was made anew counts from 0 again."""
    now, then = Refaults(refaulted_bytes=9, major_faults=3), Refaults(refaulted_bytes=4, swapped_in_bytes=1)
    assert now.since(then) == Refaults(refaulted_bytes=5)
    assert then.since(now).refaulted_bytes == 0
