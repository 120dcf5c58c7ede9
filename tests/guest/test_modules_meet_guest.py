"""Three modules on one process of the guest, with real nodes, huge pages and swap: each does its part of its memory."""

from __future__ import annotations

import json

import pytest
from tests.guest.test_tier_guest import MIB, Holder
from tests.helpers import command
from tests.helpers.memory import swap_bytes
from tests.helpers.waiting import wait_until

from pydamon.linux import thp
from pydamon.linux.move_pages import memory_nodes

pytestmark = pytest.mark.guest
MODULES = (
    "reclaim min_age=30s watermarks=off quota=500ms+64MiB/1s",
    "thp cold_min_age=off interval=1s quota=500ms/1s",
    "tier tiers=0>1 way=up hot=5% used=100% cpu=off bandwidth=off young=ignored quota=off",
)


def test_hot_memory_comes_up_and_becomes_huge_and_cold_memory_goes_out() -> None:
    if len(memory_nodes()) < 2:
        pytest.skip("needs a guest of two nodes")
    with Holder(16 * MIB, sweeps=True) as hot, Holder(32 * MIB) as cold:
        hot.put(1)
        pids = [str(hot.child.pid), str(cold.child.pid)]
        words = [word for module in MODULES for word in ("--module", module)]
        done = command.pydamon("start", "--name", "m", "--sample", "50ms", "--aggr", "1s", *words, *pids)
        assert done.returncode == 0, done.stderr
        try:
            wait_until(lambda: swap_bytes(cold.child.pid) > 16 * MIB, seconds=200, every_s=1)
            wait_until(lambda: hot.on(0) > len(hot.pages) * 0.8, seconds=200, every_s=1)
            wait_until(lambda: (thp.of_process(hot.child.pid) or 0) >= 8 * MIB, seconds=200, every_s=1)
            assert swap_bytes(hot.child.pid) < 2 * MIB
            again = command.pydamon("start", "--name", "n", "--module", "etmem huge=hot", pids[0])
            assert again.returncode == 2  # another maker of huge pages, which knows no bound
            assert "make huge pages" in again.stderr
            (told,) = json.loads(command.pydamon("status", "m", "--json").stdout)["kdamonds"]
            assert {one["name"].split("-")[0] for one in told["schemes"]} == {"reclaim", "thp", "tier"}
        finally:
            assert command.pydamon("stop", "m").returncode == 0
