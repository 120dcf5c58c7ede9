"""A running kdamond as a view: the parts of ``views/status.py: Kdamond`` as they are now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pydamon.core.scheme_state import SchemeState
from pydamon.engines.base import Engine
from pydamon.errors import RequestError
from pydamon.linux.process import Process
from pydamon.modules.registry import uses
from pydamon.ops.membership import command_of
from pydamon.run.acts.loop import Done
from pydamon.spec import Context, Spec, quantities
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.module_numbers import NUMBERS
from pydamon.spec.statistics import STATISTICS
from pydamon.views import status

if TYPE_CHECKING:
    from pydamon.run.module_numbers import ModuleNumbers

_Value = TypeVar("_Value")
_BP = 10_000


def parameters(context: Context) -> dict[str, Any]:
    """The fields ``intervals`` (as tuned by now) and ``nr_regions``."""
    return {
        "intervals": status.Intervals(**msgspec.to_builtins(context.intervals)),
        "nr_regions": status.NrRegions(min=context.nr_regions.min, max=context.nr_regions.max),
    }


def live_targets(engine: Engine, known: list[dict[str, Any]], commands: dict[int, str]) -> list[status.Target]:
    """The targets that are valid now: number, pid and command as far as there are any.

    ``known`` are those of the start; ``commands`` keeps what was looked up, by the target's number.
    """
    living = steady(engine.living)
    pids = {target: pid for target, pid in living.items() if pid is not None}
    if not pids:
        return [
            status.Target(**{key: row[key] for key in ("target", "pid", "command") if key in row})
            for row in known
            if row["target"] in living
        ]
    for target in commands.keys() - pids.keys():
        del commands[target]
    for target in pids.keys() - commands.keys():
        commands[target] = _command(pids[target])
    return [status.Target(target=target, pid=pid, command=commands[target]) for target, pid in pids.items()]


def _command(pid: int) -> str:
    try:
        process = Process(pid)
    except RequestError:
        return "?"
    try:
        return command_of(process)
    finally:
        process.close()


def schemes(engine: Engine) -> list[status.Scheme]:
    """Each scheme with its statistics, quota, watermarks and goals."""
    return [_scheme(state, _remark(engine, state)) for state in engine.schemes()]


def modules(spec: Spec, numbers: ModuleNumbers | None) -> list[status.Module]:
    """Each module of ``spec`` with what it has told last."""
    if numbers is None:
        return []
    return [
        status.Module(
            name=use.module.name,
            text=use.write(),
            numbers={
                key: values if NUMBERS[key].percentiles else values[0]
                for key, values in numbers.latest.get(use.module.name, {}).items()
            },
        )
        for use in uses(spec)
    ]


def _remark(engine: Engine, state: SchemeState) -> str | None:
    return NO_SWAP if state.scheme.needs_swap and engine.swap_bytes() == 0 else None


def _scheme(state: SchemeState, remark: str | None) -> status.Scheme:
    quota, scheme, tried = state.quota, state.scheme, state.tried
    return status.Scheme(
        name=scheme.name,
        action=scheme.action,
        stats={STATISTICS[name].key: value for name, value in state.stats.by_name().items()},
        tried_regions=status.TriedRegions(
            nr=sum(len(part.start) for part in tried),
            sz_bytes=sum(int((part.end - part.start).sum()) for part in tried),
        ),
        quota=status.Quota(
            limited=scheme.quotas.limited,
            effective_bytes=quota.esz,
            charged_bytes=quota.charged_bytes,
            charged_ns=quota.charged_ns,
        ),
        watermarks=status.Watermarks(metric=scheme.watermarks.metric, active=state.active),
        goals=[
            status.Goal(
                name=goal.goal.name,
                metric=goal.goal.metric,
                target_value=goal.goal.target_value,
                current_value=goal.current_value,
                score_bp=goal.score,
            )
            for goal in list(state.goals)
        ],
        finished=state.finished,
        failed=state.failed,
        remark=remark,
        scheme=msgspec.to_builtins(scheme, enc_hook=quantities.encode),
    )


def acts(done: Iterable[Done]) -> list[status.Act]:
    """What the loops of modules have done."""
    return [status.Act(**{name: getattr(each, name) for name in status.Act.__struct_fields__}) for each in done]


def cost(engine: Engine, elapsed_ns: int) -> status.Cost:
    """CPU time of the whole daemon since its start, ``elapsed_ns`` ago, and what the primitive has counted."""
    cpu_ns = time.process_time_ns()
    elapsed_ns = max(elapsed_ns, 1)
    told = status.Cost(cpu_ns=cpu_ns, cpu_bp=cpu_ns * _BP // elapsed_ns)
    spent = steady(engine.cost)
    if spent is None:
        return told
    if spent.kdamond_ns is not None:
        told.kdamond_cpu_ns = spent.kdamond_ns
        told.kdamond_cpu_bp = told.kdamond_cpu_ns * _BP // elapsed_ns
    else:
        for name in ("checks", "check_ns", "clears", "clear_ns", "disturb_ns"):
            setattr(told, name, getattr(spent, name))
        for name in ("samples", "asked_ns", "sampled_ns"):
            value = getattr(spent, name)
            setattr(told, name, msgspec.UNSET if value is None else value)
        told.disturb_bp = spent.disturb_ns * _BP // elapsed_ns
    return told


def steady(look: Callable[[], _Value]) -> _Value:
    """What ``look`` returns, though another thread changes what it looks at."""
    for _ in range(20):
        try:
            return look()
        except (RuntimeError, KeyError):  # a dictionary changed meanwhile
            time.sleep(0)
    return look()
