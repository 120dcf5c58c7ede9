"""`tier` on the engine ``kernel``: the kernel's own migrate_hot and migrate_cold between two nodes of the guest.

Which kernel can is told by its own files; an older one has to say what is missing, before anything starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guest.test_tier_guest import MIB, Holder
from tests.helpers import command
from tests.helpers.waiting import wait_until

from pydamon.linux.move_pages import memory_nodes

pytestmark = pytest.mark.guest
VERSION = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
COARSE = ("--sample", "50ms", "--aggr", "500ms")
QUICK = "cpu=off bandwidth=off quota=500ms+64MiB/1s"
# 6.16 has the goals that tier's quotas are tuned by, 7.1 the tuner that needs no minutes for the first page.
GOALS, TEMPORAL = (6, 16), (7, 1)


@pytest.fixture
def holder() -> Iterator[Holder]:
    if len(memory_nodes()) != 2:
        pytest.skip("needs a guest of two nodes")
    made = Holder(32 * MIB)
    yield made
    made.close()


def started(module: str, *words: str) -> None:
    done = command.pydamon("start", "--engine", "kernel", "--name", "t", *COARSE, "--module", module, *words)
    assert done.returncode == 0, done.stderr


def applied(scheme: str) -> int:
    (told,) = json.loads(command.pydamon("status", "t", "--json").stdout)["kdamonds"]
    return sum(one["stats"]["sz_applied_bytes"] for one in told["schemes"] if one["name"] == scheme)


@pytest.mark.skipif(VERSION >= GOALS, reason="this kernel can")
@pytest.mark.parametrize("physical", [True, False])
def test_a_kernel_without_the_goals_says_so_before_it_starts(holder: Holder, physical: bool, tmp_path: Path) -> None:
    target = ["--ops", "paddr"] if physical else [str(holder.child.pid)]
    words = ["--engine", "kernel", "--module", "tier tiers=0>1", "-o", str(tmp_path / "r"), "--duration", "1s"]
    done = command.pydamon("record", *words, *target)
    assert done.returncode in (2, 3)
    assert "node_mem_free_bp" in done.stderr or "migrate_cold" in done.stderr
    assert "Traceback" not in done.stderr
    assert holder.on(0) == len(holder.pages)


@pytest.mark.skipif(VERSION < TEMPORAL, reason="needs Linux 7.1")
def test_the_kernel_moves_cold_memory_down(holder: Holder) -> None:
    started(f"tier tiers=0>1 way=down free=100% cold_age=2s tuner=temporal {QUICK}", str(holder.child.pid))
    try:
        wait_until(lambda: holder.on(1) > len(holder.pages) * 0.8, seconds=150, every_s=1)
        wait_until(lambda: applied("tier-demote-0") >= 16 * MIB, seconds=30, every_s=1)
    finally:
        assert command.pydamon("stop", "t").returncode == 0


@pytest.mark.skipif(VERSION < TEMPORAL, reason="needs Linux 7.1")
def test_the_kernel_moves_hot_memory_up() -> None:
    """What is swept without pause begins on the slow node."""
    with Holder(8 * MIB, sweeps=True) as sweeping:
        sweeping.put(1)
        assert sweeping.on(1) > len(sweeping.pages) * 0.9
        started(f"tier tiers=0>1 way=up used=100% hot=5% tuner=temporal {QUICK}", str(sweeping.child.pid))
        try:
            wait_until(lambda: sweeping.on(0) > len(sweeping.pages) * 0.8, seconds=150, every_s=1)
        finally:
            assert command.pydamon("stop", "t").returncode == 0
