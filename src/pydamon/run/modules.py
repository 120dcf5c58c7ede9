"""What the modules of a spec need of this machine: facts, and that each runs once on a target."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pydamon.errors import MachineError
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.swap import swap_bytes
from pydamon.modules.base import Facts, Target
from pydamon.modules.registry import expand, target_of, uses
from pydamon.run.alone import Alone
from pydamon.run.request import Request
from pydamon.spec import Spec


def facts(ops: str, target: Target, *, engine: str = "user") -> Facts:
    """What modules ask about this machine, for targets of ``ops``; of a simulated one nothing is known."""
    if ops == "sim":
        return Facts(engine="sim", target=target)
    machine = MachineMetrics()
    free_permil, psi = None, True
    with contextlib.suppress(MachineError):
        free_permil = machine.free_mem_permil()
    try:
        machine.some_mem_psi_us()
    except MachineError:
        psi = False
    return Facts(engine=engine, target=target, swap_bytes=swap_bytes(), free_permil=free_permil, psi=psi)


def prepare(spec: Spec, request: Request, alone: Alone, say: Callable[[str], object]) -> Spec:
    """``spec`` with the schemes of its modules; ``alone`` holds their targets.

    What they cannot do here goes to ``say``. Raises RequestError for a target that has the module already.
    """
    expanded, context = expand(spec), spec.context
    known = facts(context.ops, target_of(context), engine=request.engine or "user")
    if request.launch is None:
        hold(spec, request, alone)
    for use in uses(spec):
        for line in use.cannot(known):
            say(f"module {use.module.name}: {line}")
    return expanded


def hold(spec: Spec, request: Request, alone: Alone, *, launched: int | None = None) -> None:
    """Have ``alone`` hold the targets of the modules, and a process that was ``launched`` for them.

    A simulation has no target on this machine, and a dry run is in nobody's way. Raises RequestError.
    """
    context = spec.context
    if context.ops == "sim" or request.dry_run:
        return
    for use in uses(spec):
        name = use.module.name
        if context.ops == "paddr":
            alone.physical(name)
        elif context.cgroup is not None:
            alone.cgroup(name, context.cgroup)
        else:
            for pid in dict.fromkeys(context.pids if launched is None else [launched]):
                alone.process(name, pid)
