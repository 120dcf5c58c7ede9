"""The acts of a run: the loops of its modules, and the hands for its target."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import msgspec

from pydamon.engines.base import Engine
from pydamon.errors import RequestError
from pydamon.linux.memcg_control import Cgroup
from pydamon.linux.mounts import mounts
from pydamon.modules.controller import Change, SetMinAge, SetMinRate
from pydamon.modules.registry import schemes_of, target_of, uses
from pydamon.run.acts.hands import Hands, MachineHands
from pydamon.run.acts.loop import Acts
from pydamon.run.counters import counters_of, machine_of
from pydamon.spec import Context, Spec
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import Scheme

Say = Callable[[str], object]


def open_acts(
    spec: Spec, engine: Engine, *, dry_run: bool, commit: Callable[[Context], object], say: Say, plan: Say | None
) -> Acts | None:
    """Those of the modules of ``spec``, which ``engine`` runs; None if none is a loop. Raises PydamonError.

    ``commit`` is called with what the engine was asked for last, changed as decided.
    """
    context = spec.context
    target = target_of(context)
    loops = [(use.module.name, controller) for use in uses(spec) for controller in use.controllers(target)]
    if not loops:
        return None

    def change(decision: Change) -> None:
        asked = engine.asked
        commit(msgspec.structs.replace(asked, schemes=changed(asked.schemes, decision)))

    hands: Hands
    if engine.simulated is not None:
        from pydamon.run.acts.sim import SimHands

        hands = SimHands(lambda: machine_of(engine))
    else:
        hands = MachineHands(_cgroup_of(context), counters=counters_of(engine), stopped=lambda: acts.stopped())
    acts = Acts(
        loops,
        hands,
        now_ns=engine.clock.now_ns,
        say=say,
        plan=plan,
        dry_run=dry_run,
        change=change,
        active=lambda module: any(state.active for state in schemes_of(module, engine.schemes())),
        applied=lambda module: {
            state.scheme.name or "": state.stats.sz_applied for state in schemes_of(module, engine.schemes())
        },
        spent_ns=lambda module: sum(state.quota.total_charged_ns for state in schemes_of(module, engine.schemes())),
        in_own_thread=engine.simulated is None,
    )
    return acts


def _cgroup_of(context: Context) -> Cgroup | None:
    """The target's cgroup; of physical memory the root, where there is one."""
    if context.ops == "paddr":
        root = next(iter(mounts("cgroup2")), None)
        return None if root is None else Cgroup(str(root))
    return None if context.cgroup is None else Cgroup(context.cgroup)


def changed(schemes: tuple[Scheme, ...], decision: Change) -> tuple[Scheme, ...]:
    """The schemes with what is decided about the one of that name. Raises RequestError if there is none."""
    if decision.scheme not in [scheme.name for scheme in schemes]:
        raise RequestError("there is no scheme of that name any more", where=decision.scheme)
    return tuple(_changed(scheme, decision) if scheme.name == decision.scheme else scheme for scheme in schemes)


def _changed(scheme: Scheme, decision: Change) -> Scheme:
    replace = msgspec.structs.replace
    if isinstance(decision, SetMinAge):
        age = replace(scheme.access_pattern.age, min=Age(Fraction(decision.min_age_us), "us"))
        return replace(scheme, access_pattern=replace(scheme.access_pattern, age=age))
    if isinstance(decision, SetMinRate):
        rates = replace(scheme.access_pattern.nr_accesses, min=Rate(Fraction(decision.samples), "samples"))
        return replace(scheme, access_pattern=replace(scheme.access_pattern, nr_accesses=rates))
    quotas = scheme.quotas
    if decision.sz_bytes is not None:
        quotas = replace(quotas, sz_bytes=max(decision.sz_bytes, PAGE_SIZE))
    if decision.time_ms is not None:
        quotas = replace(quotas, time_ms=max(decision.time_ms, 1))
    return replace(scheme, quotas=quotas)
