"""What the modules of a spec need of this machine: facts, and that each runs once on a target."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable

from pydamon.errors import MachineError, RequestError
from pydamon.linux import memcg
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.swap import swap_bytes
from pydamon.modules.base import Facts, Target, Use
from pydamon.modules.registry import expand, target_of, uses
from pydamon.run.request import Request
from pydamon.spec import Context, Spec


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


def prepare(spec: Spec, request: Request, alone: contextlib.ExitStack, say: Callable[[str], object]) -> Spec:
    """``spec`` with the schemes of its modules; ``alone`` holds their targets until it is closed.

    What they cannot do here goes to ``say``. Raises RequestError for a target that has the module already.
    """
    expanded, context = expand(spec), spec.context
    known = facts(context.ops, target_of(context), engine=request.engine or "user")
    for use in uses(spec):
        if context.ops != "sim" and not request.dry_run and request.launch is None:
            for target in _names(context):
                alone.enter_context(_hold(use, target))
        for line in use.cannot(known):
            say(f"module {use.module.name}: {line}")
    return expanded


def _names(context: Context) -> Iterable[str]:
    """What stands for each target on this machine: physical memory, a cgroup's inode, a process."""
    if context.ops == "paddr":
        return ["physical memory"]
    if context.cgroup is not None:
        return [f"cgroup {memcg.inode(context.cgroup)}"]
    return [f"process {pid}" for pid in dict.fromkeys(context.pids)]


def _hold(use: Use, target: str) -> socket.socket:
    """An abstract socket of that name: it is gone with us, however we end, and leaves nothing behind."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        held.bind(f"\0pydamon/module/{use.module.name}/{target}")
    except OSError:
        held.close()
        text = f"runs on {target} already; stop that one first (pydamon status), or change it (pydamon tune)"
        raise RequestError(text, where=f"modules {use.module.name}") from None
    return held
