"""Where what came back of the targets' memory, and how long they waited for it, is counted for a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydamon.engines.base import Engine
from pydamon.errors import MachineError
from pydamon.linux import memcg, thp
from pydamon.linux.refaults import Refaults, of_targets

if TYPE_CHECKING:
    from pydamon.ops.sim.machine import Machine

_TRIES = 20


def counters_of(engine: Engine) -> Callable[[], Refaults]:
    """The counters of what ``engine`` monitors; of accesses that are reported, none. Read by one thread, any one.

    A simulated machine counts the faults of its targets.
    """
    context = engine.context
    if engine.simulated is not None:
        return lambda: _of_simulated(machine_of(engine))
    if context.ops == "reported":
        return Refaults
    return of_targets(context.cgroup, physical=context.ops == "paddr", pids=lambda: _living(engine))


def huge_of(engine: Engine) -> Callable[[], int | None]:
    """How many bytes of what ``engine`` monitors are in huge pages; None where that is not told."""
    context = engine.context
    if engine.simulated is not None:
        return lambda: machine_of(engine).summary().huge_bytes
    if context.ops == "paddr":
        return thp.of_machine
    if context.cgroup is not None:
        path = context.cgroup
        return lambda: _huge_of_cgroup(path)

    def of_processes() -> int | None:
        told = [huge for pid in _living(engine) if (huge := thp.of_process(pid)) is not None]
        return sum(told) if told else None

    return of_processes


def _huge_of_cgroup(path: str) -> int | None:
    try:
        return thp.of_cgroup(memcg.directory(path))
    except MachineError:
        return None


def _living(engine: Engine) -> list[int]:
    """The processes that live, though the loop's thread may change what tells of them meanwhile."""
    for _ in range(_TRIES):
        try:
            return [pid for pid in engine.living().values() if pid is not None]
        except (RuntimeError, KeyError):
            time.sleep(0)
    return []


def machine_of(engine: Engine) -> Machine:
    """The simulated machine of an engine that has one."""
    machine = engine.simulated
    assert machine is not None
    return machine


def _of_simulated(machine: Machine) -> Refaults:
    return Refaults(refaulted_bytes=machine.fault_bytes(), memory_stall_us=machine.some_mem_psi_us())
