"""`tier` on simulated machines of two and three NUMA nodes: whole runs, in virtual time.

The fast node is filled with cold memory first, so that all that is hot begins on the slowest one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.library.build import make_spec
from pydamon.ops.sim.actions import node_bytes
from pydamon.ops.sim.machine import Machine
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec.machine import MachineSpec
from pydamon.workload import model

MIB = 1 << 20
COLD, HOT = 192, 40
TEXT = f"cold, {COLD} MiB\nhot, {HOT} MiB\n\nsteady\n900000\nhot, 0, 4096, 1\n"
TWO = MachineSpec(node_bytes=(64 * MIB, 256 * MIB))
THREE = MachineSpec(node_bytes=(64 * MIB, 96 * MIB, 256 * MIB))


def run(
    *modules: str, machine: MachineSpec = TWO, seconds: int = 240, look: Callable[[Run, int], object] | None = None
) -> tuple[Run, list[str]]:
    said: list[str] = []
    spec = make_spec(ops="sim", modules=list(modules), sample=100_000, aggr=1_000_000)
    request = Request(
        workload=model.parse(TEXT, source="x"), machine=machine, duration_ns=seconds * 1_000_000_000, panel=0
    )
    with Run(spec, request, say=said.append) as made:
        for number, _ in enumerate(made.monitor()):
            if look is not None:
                look(made, number)
    return made, said


def simulated(made: Run) -> Machine:
    machine = made.engine.simulated
    assert machine is not None
    return machine


def hot_share(made: Run, node: int = 0) -> float:
    """How much of the hot region is on a node."""
    machine = simulated(made)
    place = next(place for place in machine.targets[0].layout.regions if place.name == "hot")
    start, end = np.array([place.start], np.uint64), np.array([place.end], np.uint64)
    return node_bytes(machine, 0, start, end, node) / (place.end - place.start)


def numbers(made: Run) -> dict[str, int]:
    assert made.numbers is not None
    return {name: values[0] for name, values in made.numbers.latest["tier"].items()}


def moved(made: Run) -> int:
    return sum(state.stats.sz_applied for state in made.engine.schemes())


@pytest.mark.parametrize("machine", [TWO, THREE], ids=["two nodes", "three nodes"])
def test_what_is_hot_gets_to_the_fast_node_and_stays(machine: MachineSpec) -> None:
    shares: list[float] = []
    made, _ = run("tier", machine=machine, look=lambda made, number: shares.append(hot_share(made)))
    assert shares[0] < 0.2
    assert min(shares[120:]) >= 0.95
    assert simulated(made).node_mem_bp(0, used=False) >= 50  # the goal of what is to be free
    told = numbers(made)
    assert told["moved_back_bytes"] <= 4 * 64 * MIB // 100  # 1 % of the fast node per minute
    assert told["hot_fast_bytes"] >= told["hot_bytes"] * 0.95 > 0
    assert told["promoted_bytes"] >= 0.95 * HOT * MIB
    assert told["fast_node_bytes"] == 64 * MIB


def test_it_settles() -> None:
    """Once what is hot is there, next to nothing is moved any more."""
    by_time: list[int] = []
    run("tier", look=lambda made, number: by_time.append(moved(made)))
    assert by_time[-1] - by_time[120] <= 2 * 64 * MIB // 100


def test_of_three_tiers_the_middle_one_passes_on() -> None:
    """Cold memory goes down step by step, though the slowest node has room: nothing goes there from the fast one."""
    made, _ = run("tier", machine=THREE, seconds=120)
    machine = simulated(made)
    assert machine.node_mem_bp(1, used=False) >= 50
    names = [state.scheme.name for state in made.engine.schemes()]
    assert names == ["tier-demote-1", "tier-promote-1", "tier-demote-0", "tier-promote-0"]


def test_under_a_busy_cpu_migrations_fall_by_four_fifths() -> None:
    """From the 10th second tasks wait half of the time; the quota is so small that there is work for all of the run."""
    module = "tier quota=1MiB/1s cold_age=1s"

    def in_the_first_minute(waits: tuple[tuple[int, int], ...]) -> int:
        machine = MachineSpec(node_bytes=TWO.node_bytes, cpu_waits=waits)
        at: list[int] = []
        run(module, machine=machine, seconds=40, look=lambda made, number: at.append(moved(made)))
        return at[-1] - at[15]

    calm, busy = in_the_first_minute(()), in_the_first_minute(((10, 500),))
    assert calm > 10 * MIB
    assert busy <= calm * 0.2


def test_when_it_is_calm_again_the_quota_comes_back() -> None:
    machine = MachineSpec(node_bytes=TWO.node_bytes, cpu_waits=((5, 900), (20, 0)))
    left: list[int] = []
    made, said = run(
        "tier quota=1MiB/1s cold_age=1s interval=1s",
        machine=machine,
        seconds=60,
        look=lambda made, number: left.append(made.engine.asked.schemes[0].quotas.sz_bytes),
    )
    assert min(left[10:19]) <= MIB // 20
    assert left[-1] == MIB
    assert any("set the quota of scheme tier-promote-0" in line for line in said)
    assert numbers(made)["quota_left_bp"] == 10_000


def test_a_cgroups_share_of_the_fast_node_is_kept() -> None:
    """40 MiB are hot, and the cgroup may have 25 % of 64 MiB: the hottest stay, the others are not moved up."""
    made, _ = run("tier share=25% cold_age=2s quota=1MiB/1s", seconds=120)
    assert simulated(made).node_memcg_bp(0, "/sim/0", used=True) <= 2_600


def test_one_node_is_said_before_it_starts_with_the_nearest_that_works() -> None:
    with pytest.raises(MachineError) as raised:
        run("tier", machine=MachineSpec())
    text = "modules tier: the simulated machine has one NUMA node: there is none to move to"
    assert str(raised.value) == f"{text}; reclaim pages cold memory out instead, which needs one node only"


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(MachineError, match="NUMA node 7 is not there"):
        run("tier tiers=0>7")


def test_a_full_slow_node_keeps_what_is_cold_where_it_is() -> None:
    """Nothing goes anywhere else: what finds no room stays."""
    full = MachineSpec(node_bytes=(64 * MIB, (COLD + HOT - 64) * MIB, 256 * MIB))
    made, _ = run("tier tiers=0>1", machine=full, seconds=60)
    assert simulated(made).summary().node_resident_bytes[2] == 0
    assert moved(made) == 0


def test_three_modules_meet_on_one_target() -> None:
    """reclaim takes what tier has moved down; neither undoes the other."""
    made, _ = run("tier", "reclaim min_age=60s watermarks=off", "stat", seconds=200)
    assert hot_share(made) >= 0.95
    assert simulated(made).summary().resident_bytes <= (HOT + 2) * MIB
    assert made.numbers is not None
    assert list(made.numbers.latest) == ["tier", "reclaim", "stat"]
