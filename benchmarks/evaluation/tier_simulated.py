"""`tier` on simulated machines of two and three NUMA nodes, in virtual time.

192 MiB of cold memory fill the fast node (64 MiB) first, so that 40 MiB that are used all the time begin on the slowest
one. Aims: at least 95 % of these on the fast node within two minutes, and from then on; its goal of free memory held;
less than 1 % of it moved to and fro per minute; at least 80 % less moved while tasks wait half of the time for a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.evaluation.report import verdict
from pydamon.library.build import make_spec
from pydamon.ops.sim.actions import node_bytes
from pydamon.ops.sim.machine import Machine
from pydamon.run.counters import machine_of
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec.machine import MachineSpec
from pydamon.workload import model

MIB = 1 << 20
TEXT = "cold, 192 MiB\nhot, 40 MiB\n\nsteady\n900000\nhot, 0, 4096, 1\n"
MACHINES = {"2 nodes": (64 * MIB, 256 * MIB), "3 nodes": (64 * MIB, 96 * MIB, 256 * MIB)}
SMALL = "quota=1MiB/1s cold_age=1s"


def run(module: str, machine: MachineSpec, seconds: int, look: Callable[[Run], object]) -> Run:
    """One run; ``look`` is called once per second of it."""
    spec = make_spec(ops="sim", modules=[module], sample=100_000, aggr=1_000_000)
    workload = model.parse(TEXT, source="tier")
    request = Request(workload=workload, machine=machine, duration_ns=seconds * 1_000_000_000, panel=0)
    with Run(spec, request) as made:
        for _ in made.monitor():
            look(made)
    return made


def hot_share(machine: Machine) -> float:
    """How much of the hot region is on node 0."""
    place = next(place for place in machine.targets[0].layout.regions if place.name == "hot")
    start, end = np.array([place.start], np.uint64), np.array([place.end], np.uint64)
    return node_bytes(machine, 0, start, end, 0) / (place.end - place.start)


def settle(name: str, node_bytes_of: tuple[int, ...], seconds: int) -> None:
    """The hot region's way to the fast node."""
    shares: list[float] = []
    free: list[int] = []

    def look(made: Run) -> None:
        machine = machine_of(made.engine)
        shares.append(hot_share(machine))
        free.append(machine.node_mem_bp(0, used=False))

    made = run("tier", MachineSpec(node_bytes=node_bytes_of), seconds, look)
    reached = next((at for at, share in enumerate(shares) if share >= 0.95), None)
    if reached is None:
        print(f"{name}: 95% not reached in {seconds} s, {shares[-1]:.1%} at the end: {verdict(False)}")
        return
    assert made.numbers is not None
    told = {key: values[0] for key, values in made.numbers.latest["tier"].items()}
    least, left = min(shares[reached:]), min(free[reached:])
    ping_pong = told["moved_back_bytes"] / told["fast_node_bytes"] / (seconds / 60)
    print(f"{name}: 95% after {reached + 1} s: {verdict(reached < 120)} (120 s); then at least ", end="")
    print(f"{least:.1%}: {verdict(least >= 0.95)}; free at least {left / 100:.2f}%: {verdict(left >= 50)}")
    up, down = told["promoted_bytes"] / MIB, told["demoted_bytes"] / MIB
    print(f"  moved up {up:.0f} MiB, down {down:.0f} MiB; ping-pong {ping_pong:.2%} a minute: ", end="")
    print(f"{verdict(ping_pong < 0.01)} (1%)")


def moved_late(machine: MachineSpec) -> int:
    """Bytes that are moved from the 15th to the 40th second."""
    at: list[int] = []
    run(f"tier {SMALL}", machine, 40, lambda made: at.append(sum(s.stats.sz_applied for s in made.engine.schemes())))
    return at[-1] - at[15]


def under_load(permil: int) -> None:
    """What is moved in 25 s with a small quota, calm and while tasks wait for CPUs."""
    moved = []
    for waits in ((), ((10, permil),)):
        machine = MachineSpec(node_bytes=MACHINES["2 nodes"], cpu_waits=waits)
        moved.append(moved_late(machine))
    fell = 1 - moved[1] / moved[0]
    print(
        f"tasks wait {permil / 10:g}% of the time: {moved[1] / MIB:.1f} instead of {moved[0] / MIB:.1f} MiB, ", end=""
    )
    print(f"{fell:.0%} less: {verdict(fell >= 0.8)} (80%)")


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="simulated, of each way (default: 300)")
    options = parser.parse_args()
    print("tier-simulated: tier; 40 MiB hot, 192 MiB cold, 64 MiB of fast memory")
    for name, sizes in MACHINES.items():
        settle(name, sizes, options.seconds)
    under_load(500)
    under_load(1000)


if __name__ == "__main__":
    main()
