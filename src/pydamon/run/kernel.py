"""The engine ``kernel`` for the command: what of a request it cannot do, whose kdamond it is, what ``status`` shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pydamon.engines.base import Choice
from pydamon.errors import MachineError, RequestError
from pydamon.linux import damon_sysfs
from pydamon.linux.damon_sysfs import Occupant, Roots
from pydamon.plain import printable
from pydamon.run.directory import RuntimeDirectory
from pydamon.run.request import Request

if TYPE_CHECKING:
    from pydamon.core.callbacks import Callbacks
    from pydamon.engines.clock import MachineClock
    from pydamon.engines.kernel.engine import KernelEngine, Results
    from pydamon.spec import Spec


# What only the user engine can do, with why the kernel's DAMON cannot.
_ONLY_USER = {
    "dry_run": "the kernel's DAMON cannot only say what it would do; nearest: the user engine",
    "undo": "what the kernel's DAMON did is not noted; nearest: the user engine",
    "max_cpu": "bounds pydamon's own monitoring; nearest: fewer regions, intervals that tune themselves, or the user "
    "engine",
    "resctrl": "goes with the user engine",
    "panel": "the kernel's DAMON asks no single pages; nearest: the user engine",
}


def refuse_only_user(request: Request) -> None:
    """Raise RequestError for the first thing that was asked for and that the kernel's DAMON cannot do."""
    for field in request.only_user:
        raise RequestError(_ONLY_USER[field], where=field)


def open_kernel_engine(
    spec: Spec,
    *,
    callbacks: Callbacks | None = None,
    clock: MachineClock | None = None,
    results: Results = "auto",
    roots: Roots | None = None,
) -> KernelEngine:
    """The kernel's DAMON, set up for ``spec`` and not yet running.

    Raises MachineError (exit status 3) if somebody else uses it, with who that is; RequestError for what it cannot do.
    """
    from pydamon.engines.kernel.engine import KernelEngine

    with RuntimeDirectory() as directory:
        return KernelEngine(
            spec, directory_fd=directory.fileno(), callbacks=callbacks, clock=clock, results=results, roots=roots
        )


def choose_engine(wanted: str, spec: Spec, request: Request, *, roots: Roots | None = None) -> Choice:
    """Which engine ``user``, ``kernel`` or ``auto`` stands for, and why in a few words; looks and changes nothing.

    ``auto`` takes the kernel's DAMON where it is free and can be used for this spec, because it costs least and
    disturbs least; else the user engine, as for what it alone can do. Raises MachineError for ``kernel``
    if somebody else uses it.
    """
    if wanted == "kernel":
        _check_free(roots if roots is not None else Roots())
    if wanted != "auto":
        return Choice(wanted, "")
    given = request.only_user
    obstacle = f"{next(iter(given))} is only with the user engine" if given else obstacle_to_kernel(spec, roots)
    if obstacle is None:
        return Choice("kernel", "the kernel's DAMON is here, free, and costs least")
    return Choice("user", f"not the kernel's DAMON: {obstacle}")


def obstacle_to_kernel(spec: Spec, roots: Roots | None = None) -> str | None:
    """Why the kernel's DAMON is not for this spec here and now; None if it may be. Reads only."""
    from pydamon.engines.kernel.layout import check_context

    context = spec.kdamonds[0].contexts[0]
    try:
        check_context(context)
    except RequestError as error:
        return str(error)
    return obstacle(roots if roots is not None else Roots())


def obstacle(roots: Roots) -> str | None:
    """Why the kernel's DAMON cannot be used here and now, whatever for; None if it can. Reads only."""
    try:
        _check_free(roots)
    except MachineError as error:
        return error.message
    if not os.access(f"{roots.damon}/{damon_sysfs.NR_KDAMONDS}", os.W_OK):
        return "needs root"
    return None


def how_results_come(roots: Roots) -> str:
    """By which way the engine gets its results here, in words."""
    from pydamon.linux import damon_trace

    try:
        damon_trace.probe(roots.tracing)
    except MachineError as error:
        return f"looked at now and then (tried regions): {error}"
    return "every aggregation is traced"


def _check_free(roots: Roots) -> None:
    from pydamon.engines.kernel import owner

    damon_sysfs.find_occupants(roots)  # is there a DAMON, and may this user look?
    with RuntimeDirectory() as directory:
        owner.check(directory.fileno(), roots)


def kernel_status(roots: Roots | None = None) -> list[dict[str, Any]]:
    """Who uses the kernel's DAMON, and its modules, as plain values; empty where nothing can be seen.

    ``ours``: a pydamon of this user has started it.
    """
    from pydamon.engines.kernel import modules, owner

    roots = roots if roots is not None else Roots()
    try:
        found = damon_sysfs.find_occupants(roots)
    except MachineError:
        found = []
    named = {occupant.what for occupant in found}
    found += [module for module in damon_sysfs.modules(roots) if module.what not in named]
    with RuntimeDirectory() as directory:
        fd = directory.fileno()
        ours = [
            owner.is_ours(occupant, directory_fd=fd, roots=roots)
            or modules.is_ours(occupant, directory_fd=fd, roots=roots)
            for occupant in found
        ]
    return [_plain(occupant, own) for occupant, own in zip(found, ours, strict=True)]


def _plain(occupant: Occupant, ours: bool) -> dict[str, Any]:
    return {
        "what": occupant.what,
        "state": occupant.state,
        "ours": ours,
        "pid": None if occupant.thread is None else occupant.thread.pid,
        "ops": occupant.ops,
        "targets": list(occupant.targets),
        "schemes": list(occupant.schemes),
        "parameters": dict(occupant.detail),
    }


def status_lines(status: list[dict[str, Any]]) -> list[str]:
    """`kernel_status` for people: one line for each user of the kernel's DAMON, and one for each module that is off."""
    lines = []
    for each in status:
        parts = [each["state"], *(["started by pydamon"] if each["ours"] else [])]
        if each["pid"] is not None:
            parts.append(f"pid {each['pid']}")
        if each["ops"]:
            parts.append(f"ops {each['ops']}")
        parts += [f"target {target}" for target in each["targets"][:3]]
        parts += [f"scheme {scheme}" for scheme in each["schemes"][:3]]
        parameters = each["parameters"]
        if "sample_us" in parameters:
            parts.append(f"sample {parameters['sample_us']} us, aggregate {parameters['aggr_us']} us")
        lines.append(printable(f"{each['what']}: {', '.join(parts)}"))
    return lines
