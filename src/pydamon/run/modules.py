"""What the modules of a spec need of this machine: facts, that each runs once on a target, monitoring that fits."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from pydamon.engines.user.open_ops import choose_for
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux import balloon, compaction, psi, thp, tiers, zram
from pydamon.linux.memcg_control import Cgroup
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.mounts import mounts
from pydamon.linux.move_pages import memory_nodes
from pydamon.linux.swap import swap_bytes, swap_free_bytes
from pydamon.modules import meeting
from pydamon.modules.base import MAKES_HUGE, EngineName, Facts, Target, Use
from pydamon.modules.chains import Chains
from pydamon.modules.registry import expand, fitted, target_of, uses
from pydamon.run.alone import Alone
from pydamon.run.request import Request
from pydamon.spec import Context, Intervals, NrRegions, Spec
from pydamon.spec.defaults import has_default_goal
from pydamon.spec.primitives import facts as by_name

# Where nobody asks what is accessed: the end of targets is told anyway, and they are looked for as often as usual.
_A: dict[Target, str] = {"process": "a process", "cgroup": "a cgroup", "physical": "physical memory"}
_COARSE = Intervals(sample_us=10_000_000, aggr_us=60_000_000, ops_update_us=60_000_000)


def facts(
    ops: str,
    target: Target,
    *,
    engine: str = "user",
    cgroup: str | None = None,
    primitive: str | None = None,
    sim_nodes: int = 1,
) -> Facts:
    """What modules ask about this machine, for targets of ``ops`` that are asked through ``primitive``.

    Of a simulated machine it is known only that it has ``sim_nodes`` nodes, the fastest first.
    """
    if ops == "sim":
        chain = tuple(((nid, 1),) for nid in range(sim_nodes))
        one = "the simulated machine has one NUMA node: there is none to move to"
        return Facts(
            engine="sim",
            target=target,
            tiers=(chain,) if sim_nodes > 1 else (),
            tiers_obstacle=None if sim_nodes > 1 else one,
            cgroup="/sim/0",
        )
    free_permil, metrics = None, MachineMetrics()
    with contextlib.suppress(MachineError):
        free_permil = metrics.free_mem_permil()
    found, obstacle = _tiers()
    known = Facts(
        tiers=found,
        tiers_obstacle=obstacle,
        cpu_psi=_tells("cpu", None),
        cgroup=cgroup,
        knows_ages=None if primitive is None else by_name(primitive).knows_ages,
        engine=engine,
        target=target,
        swap_bytes=swap_bytes(),
        swap_free_bytes=swap_free_bytes(),
        free_permil=free_permil,
        node_free_permil=_free_by_node(metrics),
        psi=_tells("memory", None),
        io_psi=_tells("io", None),
        kernel=_kernel(),
        reporting_obstacle=balloon.reporting_obstacle(),
        compact_obstacle=_obstacle(compaction.require),
        huge_pages=thp.mode() or "absent",
        zram={device: _zram_obstacle(device) for device in zram.devices()},
    )
    path = next((str(root) for root in mounts("cgroup2")), None) if target == "physical" else cgroup
    if target == "physical" and path is None:
        return msgspec.structs.replace(known, reclaim_obstacle="no cgroup v2 is mounted on this machine")
    return known if path is None else _with_cgroup(known, path)


def _tiers() -> tuple[Chains, str | None]:
    """Those of this machine, or why there are none."""
    try:
        return tiers.chains(tiers.read()), None
    except MachineError as error:
        return (), str(error)


def _free_by_node(metrics: MachineMetrics) -> dict[int, int]:
    """Free memory of each NUMA node in 1/1000 of it; nothing where the machine does not tell."""
    try:
        return {nid: metrics.node_mem_bp(nid, used=False) // 10 for nid in memory_nodes()}
    except MachineError:
        return {}


def _with_cgroup(known: Facts, path: str) -> Facts:
    """What the cgroup says."""
    try:
        cgroup = Cgroup(path)
    except MachineError:
        return known  # whoever opens it says so
    try:
        own = None if cgroup.is_root else cgroup.directory
        return msgspec.structs.replace(
            known,
            psi=_tells("memory", own),
            io_psi=_tells("io", own),
            reclaim_obstacle=_obstacle(lambda: cgroup.require("memory.reclaim")),
            low_obstacle=_obstacle(lambda: cgroup.require("memory.low")),
            low_limited_by=cgroup.unprotected_above(),
        )
    finally:
        cgroup.close()


def _tells(resource: psi.Resource, cgroup: Path | None) -> bool:
    try:
        psi.read(resource, cgroup)
    except MachineError:
        return False
    return True


def _obstacle(require: Callable[[], object]) -> str | None:
    """What ``require`` says is in the way; None: nothing."""
    try:
        require()
    except PydamonError as error:
        return str(error)
    return None


def _zram_obstacle(device: str) -> str | None:
    return _obstacle(lambda: zram.Zram(device).require_writeback())


def prepare(spec: Spec, request: Request, alone: Alone, say: Callable[[str], object]) -> tuple[Spec, Request]:
    """``spec`` with the schemes of its modules, and how it is to be run; ``alone`` holds their targets.

    What they cannot do here goes to ``say``. Raises RequestError for a target that has the module already, MachineError
    where a module can do nothing at all.
    """
    _check_where(spec, request)
    known = facts_of(spec, request)
    if request.launch is not None and any(use.module.makes_huge_pages for use in uses(spec)):
        known = msgspec.structs.replace(known, launches=True, only_advised=thp.can_be_only_advised())
        request = msgspec.structs.replace(request, launch_only_advised=True)
    expanded = expand(fitted(spec, known))
    if request.launch is None:
        hold(spec, request, alone)
    for use in uses(spec):
        for line in use.cannot(known):
            say(f"module {use.module.name}: {line}")
    for line in meeting.lines(uses(expanded), target_of(spec.context)):
        say(line)
    return _coarse(_monitored(expanded, request, say), request, say)


def facts_of(spec: Spec, request: Request | None = None) -> Facts:
    """The same for a spec, and how it is run."""
    context = spec.context
    machine = request.machine if request is not None else None
    return facts(
        context.ops,
        target_of(context),
        engine=(request.engine if request is not None else None) or "user",
        cgroup=context.cgroup,
        primitive=_primitive(context, request),
        sim_nodes=len(machine.node_bytes) if machine is not None else 1,
    )


def _primitive(context: Context, request: Request | None) -> str | None:
    """What pages will be asked through, by our own engine; None if another asks, or it cannot be told (then who opens
    it says so)."""
    if context.ops in ("sim", "reported") or (request is not None and request.engine == "kernel"):
        return None
    try:
        return choose_for(context).name
    except PydamonError:
        return None


def filled(spec: Spec, request: Request | None = None) -> Spec:
    """``spec`` with what its modules leave to this machine. Raises PydamonError."""
    return fitted(spec, facts_of(spec, request)) if spec.kdamonds and spec.kdamonds[0].modules else spec


def _kernel() -> tuple[int, int] | None:
    """The version of the kernel, like 6.12."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", os.uname().release, re.ASCII)
    return None if found is None else (int(found[1]), int(found[2]))


def _check_where(spec: Spec, request: Request) -> None:
    """Raise RequestError for a module that does nothing on such a target with that engine."""
    target = target_of(spec.context)
    engine: EngineName = "sim" if spec.context.ops == "sim" else "kernel" if request.engine == "kernel" else "user"
    for use in uses(spec):
        able = use.module.where.get(engine, ())
        if target in able or (engine == "sim" and able):
            continue
        there = ", ".join(f"{name} ({' or '.join(kinds)})" for name, kinds in use.module.where.items())
        text = f"does nothing on a target that is {_A[target]} with the engine {engine}; it works with {there}"
        raise RequestError(text, where=f"modules {use.module.name}")


def _monitored(spec: Spec, request: Request, say: Callable[[str], object]) -> Spec:
    """With the intervals and regions that a module needs; that what was said of them does not hold is told."""
    context = spec.context
    for use in uses(spec):
        needed = use.module.monitoring(use.knobs)
        if needed is None:
            continue
        if not has_default_goal(context.intervals) and context.intervals != needed[0] and context.ops != "sim":
            say(f"module {use.module.name}: its own intervals hold, not those that were said")
        context = msgspec.structs.replace(context, intervals=needed[0], nr_regions=needed[1])
    return spec.with_context(context)


def _coarse(spec: Spec, request: Request, say: Callable[[str], object]) -> tuple[Spec, Request]:
    """Monitoring that costs next to nothing, where no module asks what is accessed and nobody has said how to look."""
    context = spec.context
    loops = [use.controllers(target_of(context)) for use in uses(spec)]
    asked = context.schemes or request.panel or not has_default_goal(context.intervals)
    if asked or any(not mine or any(loop.needs_accesses for loop in mine) for mine in loops):
        return spec, request
    say("accesses are not asked for: no module here goes by them (a sample every 10 s, 10 regions, no page panel)")
    context = msgspec.structs.replace(context, intervals=_COARSE, nr_regions=NrRegions(min=3, max=10))
    return spec.with_context(context), msgspec.structs.replace(request, panel=0)


def hold(spec: Spec, request: Request, alone: Alone, *, launched: int | None = None) -> None:
    """Have ``alone`` hold the targets of the modules, and a process that was ``launched`` for them.

    A simulation has no target on this machine, and a dry run is in nobody's way. Raises RequestError.
    """
    context = spec.context
    if context.ops == "sim" or request.dry_run:
        return
    for use in uses(spec):
        _hold_one(use.module.name, context, alone, launched)
        for what in use.does():
            _hold_bound(use, what, context, alone, launched)


def _hold_one(name: str, context: Context, alone: Alone, launched: int | None) -> None:
    if context.ops == "paddr":
        alone.physical(name)
    elif context.cgroup is not None:
        alone.cgroup(name, context.cgroup)
    else:
        for pid in dict.fromkeys(context.pids if launched is None else [launched]):
            alone.process(name, pid)


def _hold_bound(use: Use, what: str, context: Context, alone: Alone, launched: int | None) -> None:
    """Refuse what somebody else bounds there (`modules.meeting` does so within one run).

    A bound is held as long as we live, and that we make huge pages; who only does what others may bound holds nothing.
    """
    kept = what in use.bounds() or what == MAKES_HUGE
    holder = alone if kept else Alone()
    try:
        _hold_one(what.replace(" ", "-"), context, holder, launched)
    except RequestError:
        text = f"another module there is to {what} within a bound of its own; stop that one, or leave this one out"
        raise RequestError(text, where=f"modules {use.module.name}") from None
    finally:
        if not kept:
            holder.close()
