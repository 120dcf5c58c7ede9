"""What is asked for on the command line of ``record``, ``start`` and ``trace``, as a spec and a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.rules import PROCESSES, check
from pydamon.errors import RequestError, located
from pydamon.spec import units
from pydamon.spec.primitives import seeing, sees_writes_only

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Context, Intervals, IntervalsGoal, Probe, Region, Scheme, Spec, Target

_USUAL_CPU = 0.03  # of one CPU: what monitoring keeps to where nothing else was said
_MOST_LISTED = 20  # pids in a message
STAND_IN = 1  # the pid of a target whose command is yet to be launched


def understand(
    ctx: click.Context, targets: tuple[str, ...], options: dict[str, Any], *, tuned: bool = True
) -> tuple[Request, Spec]:
    """The request and the validated spec of the options of ``record``; raises RequestError naming the field.

    An option that the verb does not have may be missing, or None. Intervals that were not said are ``tuned``, where
    that is usual.
    """
    from pydamon.spec import Kdamond, Spec, validate

    context = _context(ctx, targets, options, tuned=tuned)
    spec = Spec(kdamonds=(Kdamond(contexts=(context,), modules=tuple(options.get("modules") or ())),))
    with_modules = expand(spec)
    request = make_request(ctx, with_modules, options)
    validate(with_modules)
    return request, spec


def expand(spec: Spec) -> Spec:
    """The spec with the schemes of its modules; raises RequestError naming the module and the knob."""
    if not spec.kdamonds or not spec.kdamonds[0].modules:
        return spec
    from pydamon.modules import registry

    try:
        return registry.expand(spec)
    except RequestError as error:
        _, _, path = (error.where or "").partition("modules")
        named = " ".join(path.partition("]")[2].split("."))
        raise RequestError(error.message, where=f"modules {named.strip()}".rstrip()) from None


def make_request(ctx: click.Context, spec: Spec, options: dict[str, Any]) -> Request:
    """How ``spec`` is to be run; raises RequestError, also for what does not go with its context."""
    from pydamon.run.request import Request

    launch, context = ctx.meta["launch"], spec.context
    if options["mapping"] is not None and context.ops != "sim":
        other = "does not go with --ops reported" if context.ops == "reported" else "is for --ops sim"
        raise RequestError(other, where="mapping")
    request = Request(
        output=options["output"] or "",
        force=bool(options.get("force")),
        duration_ns=options["duration"],
        launch=launch,
        workload=options["workload"],
        mapping=options["mapping"] or "separate",
        seed=options["seed"],
        max_cpu=options["max_cpu"],
        usual_cpu=None if options["max_cpu"] is not None or context.faithful else _USUAL_CPU,
        panel=options.get("panel", 0),
        dry_run=bool(options.get("dry_run")),
        undo=bool(options.get("undo")),
        rotate=_rotation(options.get("rotate"), options.get("keep")),
        keep=options.get("keep"),
        source=options["source"],
        threads=options["threads"],
        cpus=options["cpus"],
        nodes=options["nodes"],
        writes=options["source"] is not None and options["access"] == "write",
        resctrl=bool(options.get("resctrl")),
        engine=None if options["engine"] == "user" else options["engine"],  # that is for running processes only
    )
    check(context, request, ctx.info_name or "pydamon", acts=bool(context.schemes or spec.kdamonds[0].modules))
    return request


def _rotation(text: str | None, keep: int | None) -> tuple[int | None, int | None] | None:
    """After how many bytes, or ns, a new file begins."""
    if text is None:
        if keep is not None:
            raise RequestError("goes with --rotate", where="keep")
        return None
    for place, parse in enumerate((units.parse_time_ns, units.parse_size)):
        try:
            value = parse(text)
        except RequestError:
            continue
        if value < (1 << 16 if place else 1_000_000_000):
            raise RequestError(f"{text!r} is too small; it must be at least 64K or 1s", where="rotate")
        return (None, value) if place == 0 else (value, None)
    raise RequestError(f"{text!r} is neither a size nor a time; write it like 100M or 1h", where="rotate")


# -- the context ------------------------------------------------------------------------------------------------------


def _context(ctx: click.Context, named: tuple[str, ...], options: dict[str, Any], *, tuned: bool) -> Context:
    """Not validated, so that what does not go together is said in terms of options first."""
    from pydamon.spec import Context, NrRegions

    return Context(
        ops=options["ops"],
        primitive=_primitive(options),
        targets=_targets(ctx, named, options),
        intervals=_intervals(options, tuned=tuned),
        nr_regions=NrRegions(min=options["min_regions"], max=options["max_regions"]),
        schemes=_schemes(ctx, options),
        faithful=options["faithful"],
        probes=parsed_probes(options["probes"]),
    )


def _primitive(options: dict[str, Any]) -> Any:
    primitive = options["primitive"]
    if options["access"] == "write" and options["ops"] != "reported":
        able = seeing("write")
        if options["ops"] not in PROCESSES or primitive not in ("auto", *able):
            known = " or ".join([*able, "auto"])
            raise RequestError(f"needs --ops vaddr or fvaddr, and {known}; or --ops reported", where="access write")
        return able[0] if primitive == "auto" else primitive
    if sees_writes_only(primitive):
        raise RequestError("sees writes only; say so with --access write", where=f"primitive {primitive}")
    return primitive


def _targets(ctx: click.Context, named: tuple[str, ...], options: dict[str, Any]) -> tuple[Target, ...]:
    """At least one; without a process or a cgroup it says only which ranges."""
    from pydamon.spec import Target

    ops, cgroup, children = options["ops"], options["cgroup"], options["include_children"]
    pids: list[int | None] = list(_pids(named, ctx, options))
    ranges = _ranges(options["regions"])
    if len(pids) > 1 and ranges and ops in PROCESSES:
        raise RequestError("is for one process", where="regions")
    if ctx.meta["launch"] is not None and cgroup is None and ops in PROCESSES:
        pids = [STAND_IN]
    if pids and ops == "reported":
        ranges = ()
    return tuple(Target(pid=pid, regions=ranges, cgroup=cgroup, include_children=children) for pid in pids or [None])


def _pids(named: tuple[str, ...], ctx: click.Context, options: dict[str, Any]) -> list[int]:
    """Of the processes that are named by pid, there or with -p, or by the name of their program."""
    given: tuple[str, ...] = options["pids"]
    if (named or given) and ctx.meta["launch"] is not None:
        stands = f"{named[0]!r} stands" if named else f"-p {given[0]} stands"
        raise RequestError(f"{stands} before --; give either a pid or a command", where=ctx.info_name)
    numbers = [number for text in given for number in text.split(",")]
    for text in numbers:
        if not _is_pid(text):
            raise RequestError(f"{text!r} is not a process id; a process's name stands without -p", where="-p")
    if options["all_named"] and all(map(_is_pid, named)):
        raise RequestError("is about a process's name; give one, e.g. redis-server", where="--all-named")
    found = [pid for text in named for pid in ([int(text)] if _is_pid(text) else _called(text, options["all_named"]))]
    return found + list(map(int, numbers))


def _is_pid(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _called(name: str, every: bool) -> list[int]:
    """The process of that name; several only if all are wanted."""
    from pydamon.linux.named import processes_named

    pids = processes_named(name)
    if not pids:
        raise RequestError(f"no process is called {name!r}; to launch a command put it after --", where="pid")
    if len(pids) > 1 and not every:
        listed = ", ".join(map(str, pids[:_MOST_LISTED])) + (", …" if len(pids) > _MOST_LISTED else "")
        raise RequestError(
            f"{len(pids)} processes are called {name!r}: {listed}; give one of them, or --all-named for all",
            where="pid",
        )
    return pids


def _ranges(texts: tuple[str, ...]) -> tuple[Region, ...]:
    from pydamon.spec import Region

    ranges = []
    with located("regions"):
        for text in texts:
            start, dash, end = text.partition("-")
            if not dash:
                raise RequestError(f"{text!r} is not a range; write it like 0x7f0000000000-0x7f0000400000")
            ranges.append(Region(start=units.parse_address(start), end=units.parse_address(end)))
    return tuple(sorted(ranges, key=lambda given: given.start))  # in whatever order they were given


def _intervals(options: dict[str, Any], *, tuned: bool) -> Intervals:
    """What was left out is filled in; 20 samples per aggregation."""
    from pydamon.spec import Intervals

    sample_us, aggr_us, update_us = options["sample"], options["aggr"], options["update"]
    default_us = 5_000
    if options["ops"] == "reported" and options["source"] is not None:
        # A trace makes about a million accesses in a second of ours, and an instruction counts as a nanosecond;
        # address samples are sparse.
        default_us = 50_000 if options["source"].startswith("perf-") else 50
        # What the target maps is known by its accesses; a live source shows it from now on.
        updates = 1 if options["source"].startswith("perf-event") else 10
        update_us = update_us or max(updates * (aggr_us or 20 * (sample_us or default_us)), 1)
    if sample_us is None:
        sample_us = default_us if aggr_us is None else max(aggr_us // 20, 1)
    if aggr_us is None:
        aggr_us = 20 * sample_us
    return Intervals(
        sample_us=sample_us,
        aggr_us=aggr_us,
        ops_update_us=1_000_000 if update_us is None else update_us,
        intervals_goal=_goal(options, tuned=tuned),
    )


def _goal(options: dict[str, Any], *, tuned: bool) -> IntervalsGoal | None:
    """The recommended goal, where it was asked for, or where nobody has said what the intervals are."""
    from pydamon.spec import IntervalsGoal
    from pydamon.spec.defaults import default_goal

    if options["intervals"] is not None:
        return IntervalsGoal() if options["intervals"] == "auto" else None
    said = options["sample"] is not None or options["aggr"] is not None
    return None if said or not tuned else default_goal(options["ops"], faithful=options["faithful"])


def _schemes(ctx: click.Context, options: dict[str, Any]) -> tuple[Scheme, ...]:
    if options["schemes"] is None and not options["scheme"]:
        return ()
    from pydamon.cli.files import load_schemes

    found = load_schemes(ctx, options["schemes"], options["scheme"], options["ops"])
    return () if found is None else found.schemes


def parsed_probes(texts: tuple[str, ...]) -> tuple[Probe, ...]:
    """Probes from their short forms."""
    if not texts:
        return ()
    from pydamon.spec.probes import parse_probe

    with located("probes"):
        return tuple(parse_probe(text) for text in texts)
