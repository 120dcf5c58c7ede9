"""Modules that are loops on a real cgroup v2 with swap on zram: reclaim by pressure, protect, and their end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers import command
from tests.helpers.cgroups import remove
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.linux import psi, zram
from pydamon.linux.memcg_control import Cgroup
from pydamon.linux.mounts import mounts
from pydamon.modules.controller import ReclaimBytes
from pydamon.run.acts.hands import MachineHands

pytestmark = pytest.mark.guest
MIB = 1 << 20
HOT, COLD = 8 * MIB, 64 * MIB
TARGET = f"""
import mmap, time
hot, cold = mmap.mmap(-1, {HOT}), mmap.mmap(-1, {COLD})
for memory in (hot, cold):
    for page in range(0, len(memory), 4096):
        memory[page] = 1 + page // 4096 % 250
print("ready", flush=True)
while True:
    for page in range(0, len(hot), 4096):
        hot[page]
    time.sleep(0.01)
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with the memory controller, and a process in it whose larger part is idle."""
    root = mounts("cgroup2")[0]
    (root / "cgroup.subtree_control").write_text("+memory")
    path = root / f"pydamon-modules-{os.getpid()}"
    path.mkdir()
    try:
        gate = f"import sys; sys.stdin.readline()\n{TARGET}"
        with subprocess.Popen([sys.executable, "-c", gate], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                (path / "cgroup.procs").write_text(str(child.pid))  # before it has memory that would be charged
                child.stdin.write(b"\n")
                child.stdin.flush()
                assert child.stdout.readline() == b"ready\n"
                yield path
            finally:
                child.kill()
    finally:
        remove(path)


def number(path: Path, name: str) -> int:
    return int((path / name).read_text())


def pydamon(*words: str) -> str:
    done = command.pydamon(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cgroup_gives_what_it_is_asked_for(cgroup: Path) -> None:
    hands = MachineHands(Cgroup(str(cgroup)))
    before = number(cgroup, "memory.current")
    done = hands.do(ReclaimBytes(bytes=20 * MIB), 0)
    assert done is not None
    assert 10 * MIB < done <= 20 * MIB
    assert number(cgroup, "memory.current") < before - 10 * MIB
    seen = hands.observe(0)
    assert number(cgroup, "memory.swap.current") > 10 * MIB
    assert seen.memory is not None
    assert psi.read("io", cgroup).total_us >= 0
    hands.finish()


def test_by_pressure_most_of_the_cold_half_goes_and_nobody_waits_long(cgroup: Path) -> None:
    """Without access data; the bound of the pressure is wide, for the emulated guest decompresses slowly."""
    name = str(cgroup)
    module = "reclaim driver=pressure interval=500ms probe=5% psi=5% io_psi=5%"
    pydamon("start", "--cgroup", name, "--name", "p", "--module", module)
    try:
        wait_until(lambda: number(cgroup, "memory.swap.current") > COLD * 8 // 10, seconds=200, every_s=0.5)
        (told,) = json.loads(pydamon("status", "p", "--json"))["kdamonds"]
        (act,) = told["acts"]
        assert act["module"] == "reclaim"
        assert act["done_bytes"] > COLD // 2
        assert told["intervals"]["sample_us"] == 10_000_000  # accesses are not asked for
        assert told["cost"]["checks"] < 200
    finally:
        pydamon("stop", "p")
    assert psi.read("memory", cgroup).avg60_percent < 20
    assert (cgroup / "memory.high").read_text() == (cgroup / "memory.max").read_text() == "max\n"


def test_a_dry_run_says_what_would_be_asked_and_asks_nothing(cgroup: Path) -> None:
    module = "reclaim driver=pressure interval=200ms psi=100% io_psi=100%"
    options = ["--duration", "2s", "--dry-run", "-o", f"/tmp/dry-{os.getpid()}.damon"]
    said = pydamon("record", "--cgroup", str(cgroup), "--module", module, *options)
    assert "module reclaim would ask the kernel to reclaim" in said
    assert number(cgroup, "memory.swap.current") == 0


def test_protection_follows_the_working_set_and_is_put_back(cgroup: Path) -> None:
    (cgroup / "memory.low").write_text("4096")
    module = "protect interval=500ms window=3s margin=0%"
    options = ["--sample", "20ms", "--aggr", "400ms", "--name", "q", "--module", module]
    pydamon("start", "--cgroup", str(cgroup), *options)
    try:
        # All of it is young first; then the cold part is not used for as long as the window.
        wait_until(lambda: HOT // 2 < number(cgroup, "memory.low") < HOT * 3, seconds=120, every_s=0.2)
    finally:
        pydamon("stop", "q")
    assert number(cgroup, "memory.low") == 4096


def test_killed_daemons_leave_what_is_shown_and_undone(cgroup: Path) -> None:
    chance = random.Random(3)
    for _ in range(2):
        module = "protect interval=100ms window=1s margin=0%"
        options = ["--sample", "20ms", "--aggr", "200ms", "--name", "k", "--module", module]
        pydamon("start", "--cgroup", str(cgroup), *options)
        wait_until(lambda: number(cgroup, "memory.low") > 0, seconds=60, every_s=0.05)
        (told,) = json.loads(pydamon("status", "k", "--json"))["kdamonds"]
        time.sleep(chance.uniform(0, 0.5))  # anywhere in its work
        os.kill(told["pid"], signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{told['pid']}").exists())  # noqa: B023
        assert f"memory.low of {cgroup} is" in pydamon("status")
        assert pydamon("stop", "--undo") == f"undone: memory.low of {cgroup} is 0 again\n"
        assert number(cgroup, "memory.low") == 0
        assert "left behind" not in pydamon("status")


def test_a_removed_cgroup_lets_the_module_rest() -> None:
    root = mounts("cgroup2")[0]
    (root / "cgroup.subtree_control").write_text("+memory")
    path = root / f"pydamon-removed-{os.getpid()}"
    path.mkdir()
    with program(TARGET) as pid:
        (path / "cgroup.procs").write_text(str(pid))
        pydamon("start", "--cgroup", str(path), "--name", "r", "--module", "reclaim driver=pressure interval=200ms")
        (root / "cgroup.procs").write_text(str(pid))
        remove(path)
        wait_until(
            lambda: "r" not in pydamon("status").split() or "modules rest" in pydamon("status", "r"), every_s=0.5
        )


def test_zram_that_cannot_write_back_is_said_or_does(cgroup: Path) -> None:
    (device,) = zram.devices()[:1]
    said = command.pydamon("modules", "check", f"zram_writeback device={device}")
    assert said.returncode == 0, said.stderr
    try:
        zram.Zram(device).require_writeback()
    except Exception as error:  # no backing device, or CONFIG_ZRAM_WRITEBACK is off
        assert str(error) in said.stderr
        assert "nothing is written back" in said.stderr
    else:
        assert said.stderr == ""
