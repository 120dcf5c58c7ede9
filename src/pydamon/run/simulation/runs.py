"""Runs programs on a simulated machine, without a policy and with each of several, and says what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import msgspec

from pydamon.engines.base import Engine
from pydamon.ops.sim.machine import Machine
from pydamon.ops.sim.target import SimTarget
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.run.simulation.results import ProcessResult, Result, SchemeResult
from pydamon.spec import Context, Intervals, Kdamond, NrRegions, Scheme, Spec, Target, validate
from pydamon.spec.machine import MachineSpec
from pydamon.workload.program import Program


class Policy(msgspec.Struct, frozen=True):
    """What is tried: schemes, or a module; ``label`` is what it is called."""

    label: str
    schemes: tuple[Scheme, ...] = ()
    modules: tuple[str, ...] = ()


NOTHING = Policy("no policy")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in all runs. ``repeat`` 0 plays for ever, until ``duration_ns``."""

    programs: tuple[Program, ...]
    machine: MachineSpec
    intervals: Intervals = Intervals()
    nr_regions: NrRegions = NrRegions()
    duration_ns: int | None = None
    repeat: int = 1
    seed: int = 0


def compare(
    setting: Setting, policies: Sequence[Policy], *, output: str = "", force: bool = False, say: Callable[[str], object]
) -> list[Result]:
    """The run without a policy, and that of each of ``policies``; ``output`` is the record of the last of them.

    Raises PydamonError.
    """
    every = [NOTHING, *policies]
    found: list[Result] = []
    for number, policy in enumerate(every):
        last = number == len(every) - 1
        result = simulate(setting, policy, output=output if last else "", force=force, say=say)
        result.saved_bytes = found[0].used_bytes - result.used_bytes if found else 0
        found.append(result)
    return found


def simulate(
    setting: Setting, policy: Policy, *, output: str = "", force: bool = False, say: Callable[[str], object]
) -> Result:
    """One run. Raises PydamonError."""
    context = Context(
        ops="sim",
        targets=(Target(),),
        intervals=setting.intervals,
        nr_regions=setting.nr_regions,
        schemes=policy.schemes,
    )
    spec = Spec(kdamonds=(Kdamond(contexts=(context,), modules=policy.modules),))
    validate(spec)
    request = Request(
        workload=setting.programs,
        machine=dataclasses.replace(setting.machine, history=True),
        repeat=setting.repeat,
        seed=setting.seed,
        duration_ns=setting.duration_ns,
        output=output,
        force=force,
        panel=None if output or policy.modules else 0,  # nobody else asks for it
    )
    checks = 0
    with Run(spec, request, say=say) as run:
        for snapshots in run.monitor():
            checks += sum(len(one.start) * (one.aggr_us // max(one.sample_us, 1)) for one in snapshots)
        return _result(run.engine, policy, setting, checks)


def _result(engine: Engine, policy: Policy, setting: Setting, checks: int) -> Result:
    machine = engine.simulated
    assert machine is not None
    assert machine.history is not None
    history = machine.history
    passed_ns = max(history.passed_ns, 1)
    costs, times = setting.machine.costs, machine.times
    cpu = {
        "monitor": checks * costs.check_ns / passed_ns,
        "schemes": times.scheme_ns / passed_ns,
        "reclaim": times.reclaim_ns / passed_ns,
    }
    parts = [_parts(target, machine, setting, passed_ns, cpu) for target in machine.targets]
    processes = [
        ProcessResult(
            name=program.name,
            resident_bytes=history.resident_bytes(number),
            refault_bytes=machine.summary(number).fault_bytes,
            stall_ns=target.counts.stall_ns,
            slowdown=sum(mine.values()),
        )
        for number, (program, target, mine) in enumerate(zip(setting.programs, machine.targets, parts, strict=True))
    ]
    summary = machine.summary()
    return Result(
        label=policy.label,
        duration_ns=passed_ns,
        used_bytes=history.used_bytes,
        kept_bytes=history.kept_bytes,
        resident_bytes=history.used_bytes - history.kept_bytes,
        node_bytes=history.nodes,
        refault_bytes=summary.fault_bytes,
        stall_ns=summary.stall_ns,
        slowdown=sum(one.slowdown for one in processes) / len(processes),
        parts={name: sum(mine[name] for mine in parts) / len(parts) for name in parts[0]},
        monitor_share=cpu["monitor"],
        scheme_share=cpu["schemes"],
        reclaim_share=cpu["reclaim"],
        psi={
            "memory some": machine.some_mem_psi_us() * 1000 / passed_ns,
            "memory full": machine.full_mem_psi_us() * 1000 / passed_ns,
            "io some": machine.some_io_psi_us() * 1000 / passed_ns,
        },
        counters=dataclasses.asdict(machine.counters),
        processes=processes,
        schemes=[
            SchemeResult(name=state.scheme.name or state.scheme.action, stats=state.stats.by_name())
            for state in engine.schemes()
        ],
        timeline=[(at_ns / 1e9, resident, used) for at_ns, resident, used in history.points],
    )


def _parts(
    target: SimTarget, machine: Machine, setting: Setting, passed_ns: int, cpu: dict[str, float]
) -> dict[str, float]:
    """What slows a process down, as shares of its time; below 0: what makes it faster."""
    costs, counts = setting.machine.costs, target.counts
    waits = counts.stall_ns / passed_ns * (1 - costs.overlap_permil / 1000)
    on_app = costs.reclaim_on_app_permil / 1000 / len(machine.targets)
    return {
        "waiting for memory": waits,
        "slow memory": counts.slow_ns / passed_ns,
        "bandwidth": counts.bandwidth_ns / passed_ns,
        "huge pages": -counts.tlb_ns / passed_ns,
        "cpu of the policy": (cpu["schemes"] + cpu["reclaim"] + cpu["monitor"]) * on_app,
    }
