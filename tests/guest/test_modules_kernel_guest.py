"""Modules on the engine ``kernel``: their schemes are the kernel's own, and act."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers import command
from tests.helpers.memory import swap_bytes
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.guest

MIB = 1 << 20
# 32 MiB that are not used again.
IDLE = """
import mmap, time
memory = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(memory), 4096):
    memory[page] = 1
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""
COARSE = ("--sample", "20ms", "--aggr", "400ms")


def test_the_kernel_reclaims_for_the_module() -> None:
    with program(IDLE, "-S") as pid:
        module = "reclaim min_age=2s watermarks=off quota=500ms+128MiB/1s"
        started = command.pydamon("start", "--engine", "kernel", "--name", "k", *COARSE, "--module", module, str(pid))
        assert started.returncode == 0, started.stderr
        try:
            wait_until(lambda: swap_bytes(pid) > 16 * MIB, seconds=100, every_s=0.5)
            assert "module reclaim" in command.pydamon("status", "k").stdout
        finally:
            assert command.pydamon("stop", "k").returncode == 0


@pytest.mark.parametrize("module", ["lru_sort watermarks=off quota=500ms/1s cold_min_age=1s hot_freq=5%", "stat"])
def test_the_kernel_sorts_both_halves_of_physical_memory_and_tells(module: str, tmp_path: Path) -> None:
    options = ["--engine", "kernel", "--ops", "paddr", *COARSE, "--duration", "12s", "-o", str(tmp_path / "r")]
    done = command.pydamon("record", *options, "--module", module)
    assert done.returncode == 0, done.stderr
    if module != "stat":
        told = [line for line in done.stderr.splitlines() if "scheme lru_sort-" in line]
        assert [line.split()[2] for line in told] == ["lru_sort-hot", "lru_sort-cold"]
        assert any("was applied to 0 B of" not in line for line in told)
    report = command.pydamon("report", "modules", str(tmp_path / "r"))
    assert f"module {module.split()[0]}" in report.stdout


def test_a_cgroup_is_no_target_of_the_kernels() -> None:
    done = command.pydamon("record", "--engine", "kernel", "--cgroup", "/", "--module", "reclaim", "-o", "/tmp/x")
    assert done.returncode == 2
    assert "with the engine kernel; it works with user" in done.stderr
