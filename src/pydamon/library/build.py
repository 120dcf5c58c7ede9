"""Build a spec without its nesting: quantities as text with units, schemes in their short form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.registry import expand
from pydamon.spec import IntervalsGoal, Scheme, Spec, from_builtins
from pydamon.spec.defaults import default_goal
from pydamon.spec.forms import scheme_files
from pydamon.spec.forms.scheme_short import parse_short

_CONTEXT = "kdamonds[0].contexts[0]."


def make_scheme(text: str) -> Scheme:
    """A scheme from its short form, e.g. ``pageout rate=0% age>=60s quota=128MiB/1s``. Raises RequestError."""
    return parse_short(text)


def make_spec(
    *targets: int | Mapping[str, Any],
    ops: str = "vaddr",
    primitive: str = "auto",
    sample: str | int | None = None,
    aggr: str | int | None = None,
    update: str | int = "1s",
    auto: bool | None = None,
    regions: tuple[int, int] = (10, 1000),
    schemes: Iterable[Scheme | str | Mapping[str, Any]] = (),
    modules: Iterable[str | Mapping[str, Any]] = (),
    **more: Any,
) -> Spec:
    """A validated spec of one kdamond with one context.

    ``targets`` are pids, or mappings like ``{"pid": 1, "include_children": True}``, ``{"cgroup": "/x"}``; with
    ``ops`` ``paddr`` and ``sim`` none is needed. Times are text with a unit, or integers in microseconds. ``auto``
    tunes the intervals by what is observed; that is what happens to processes and physical memory unless ``sample``,
    ``aggr`` (by default 5 ms and 100 ms), ``auto=False`` or ``faithful=True`` says otherwise. ``regions`` are the
    bounds of their number. ``schemes`` are `Scheme`s, short forms, or the objects of a spec. ``modules`` are texts
    like ``reclaim min_age=30s``, or objects. ``more`` are other fields of a context.
    Raises RequestError that names the field.
    """
    listed: list[dict[str, Any]] = [{"pid": t} if isinstance(t, int) else dict(t) for t in targets]
    intervals: dict[str, Any] = {"sample_us": "5ms", "aggr_us": "100ms", "ops_update_us": update}
    intervals |= {name: value for name, value in (("sample_us", sample), ("aggr_us", aggr)) if value is not None}
    context = {
        "ops": ops,
        "primitive": primitive,
        "targets": listed or ([{}] if ops in ("paddr", "sim", "reported") else []),
        "intervals": intervals,
        "nr_regions": {"min": regions[0], "max": regions[1]},
        "schemes": [_plain(scheme, number) for number, scheme in enumerate(schemes)],
        **more,
    }
    if not context["targets"]:
        raise RequestError("must be at least one: a pid, or an object with pid or cgroup", where="targets")
    try:
        spec = from_builtins({"kdamonds": [{"contexts": [context], "modules": list(modules)}]})
        expand(spec)
    except RequestError as error:
        raise RequestError(error.message, where=(error.where or "").removeprefix(_CONTEXT) or None) from None
    goal: IntervalsGoal | None = IntervalsGoal() if auto else None
    if auto is None and sample is None and aggr is None and "intervals" not in more:
        goal = default_goal(ops, faithful=spec.context.faithful)
    return spec if goal is None else _tuned(spec, goal)


def _tuned(spec: Spec, goal: IntervalsGoal) -> Spec:
    context = spec.context
    intervals = msgspec.structs.replace(context.intervals, intervals_goal=goal)
    return spec.with_context(msgspec.structs.replace(context, intervals=intervals))


def _plain(scheme: Scheme | str | Mapping[str, Any], number: int) -> dict[str, Any]:
    if isinstance(scheme, str):
        try:
            scheme = parse_short(scheme)
        except RequestError as error:
            raise RequestError(error.message, where=f"schemes[{number}]") from None
    return scheme_files.to_builtins(scheme) if isinstance(scheme, Scheme) else dict(scheme)
