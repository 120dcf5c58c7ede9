"""A service file, read and understood: what is to be monitored and how, what is recorded, and who may look."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from pydamon.errors import RequestError, located
from pydamon.learned import learned
from pydamon.modules.registry import expand
from pydamon.run.directory import check_monitor_name, check_name
from pydamon.run.request import Request
from pydamon.service.declared.layout import MatchFields, MonitorFields, RecordFields, ServiceFields
from pydamon.service.declared.ship import understand_shipping
from pydamon.service.shipping.settings import Shipping
from pydamon.spec import (
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    Match,
    NrRegions,
    Scheme,
    Spec,
    Target,
    units,
    validate,
)
from pydamon.spec import read as read_spec
from pydamon.spec.defaults import default_goal
from pydamon.spec.forms.scheme_files import MAX_BYTES, values
from pydamon.spec.forms.scheme_short import parse_short

MAX_MONITORS = 64
_MOST_FILES = 100_000
_USUAL_CPU = 0.03  # of one CPU, as with ``record``
_WILD = frozenset("*?[")  # what makes a pattern of a path
_SAMPLES = 20  # in an aggregation, where only one of the intervals is said

# What a spec calls a field that is called otherwise here.
_CALLED = {
    "intervals.sample_us": "sample",
    "intervals.aggr_us": "aggr",
    "intervals.ops_update_us": "update",
    "nr_regions.min": "min_regions",
    "nr_regions.max": "max_regions",
    "targets[0].match.names": "match.name",
    "targets[0].match.cgroups": "match.cgroup",
    "targets[0].match.most": "match.most",
    "targets[0].match": "match",
    "targets[0].pid": "match.pid",
}


class Keep(msgspec.Struct, frozen=True):
    """How much of a monitor's recordings stays; None: as much as there is."""

    files: int | None = None
    size_bytes: int | None = None
    age_ns: int | None = None


class Recording(msgspec.Struct, frozen=True):
    """Where recordings go, after how many bytes or ns a new file begins, and what stays."""

    directory: str
    rotate: tuple[int | None, int | None]
    keep: Keep = Keep()


class Monitor(msgspec.Struct, frozen=True):
    """One kdamond: what it runs, how, and where it records. ``modules`` are names of those whose schemes are in it."""

    name: str
    spec: Spec
    request: Request
    recording: Recording | None = None
    modules: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True):
    """All that a service file says; paths are absolute."""

    name: str
    path: str
    monitors: tuple[Monitor, ...]
    group: str | None = None
    metrics: str | None = None
    shipping: Shipping | None = None


def load(path: str) -> Service:
    """The service that a file declares. Raises RequestError, whose place is the file's name and the field."""
    shown = os.path.basename(path) or path
    with located(shown, ": "):
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_BYTES + 1)  # of more `values` says so
        except OSError as error:
            raise RequestError(f"cannot be read: {error.strerror}") from None
        except ValueError:  # a NUL character
            raise RequestError("is not the name of a file") from None
        return understand(text, os.path.abspath(path))


def understand(text: bytes, path: str) -> Service:
    """The service that ``text`` declares, which is in the file ``path``. Raises RequestError naming the field."""
    fields = _fields(values(text))
    name = fields.name if fields.name is not None else os.path.splitext(os.path.basename(path))[0]
    check_name(name)
    if not 1 <= len(fields.monitors) <= MAX_MONITORS:
        count = len(fields.monitors)
        raise RequestError(f"has {count} entries; it must have 1 to {MAX_MONITORS}", where="monitors")
    with located("record"):
        recording = None if fields.record is None else _recording(fields.record, os.path.dirname(path))
    monitors: list[Monitor] = []
    for index, each in enumerate(fields.monitors):
        with located(f"monitors[{index}]"):
            check_monitor_name(each.name)
            if each.name in (other.name for other in monitors):
                raise RequestError(f"{each.name!r} is the name of another monitor", where="name")
            monitors.append(_monitor(each, recording))
    beside = os.path.dirname(path)
    with located("ship"):
        shipping = None if fields.ship is None else understand_shipping(fields.ship, beside)
    return Service(name, path, tuple(monitors), fields.group, _metrics(fields.metrics, beside), shipping)


def _fields(data: Any) -> ServiceFields:
    try:
        return msgspec.convert(data, learned(ServiceFields))
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")  # so msgspec ends its messages
        raise RequestError(message, where=at.rstrip("`").lstrip(".") or None) from None


def _metrics(text: str | None, beside: str) -> str | None:
    """Where metrics go, a file relative to the directory ``beside``."""
    if text is None:
        return None
    from pydamon.service.metrics import parse

    return os.path.join(beside, text) if isinstance(parse(text), str) else text


# -- one monitor ------------------------------------------------------------------------------------------------------


def _monitor(fields: MonitorFields, recording: Recording | None) -> Monitor:
    context = Context(
        ops=fields.ops,
        primitive=fields.primitive,
        targets=_targets(fields),
        intervals=_intervals(fields),
        nr_regions=NrRegions(min=fields.min_regions, max=fields.max_regions),
        schemes=tuple(_scheme(item, f"schemes[{index}]") for index, item in enumerate(fields.schemes)),
        faithful=fields.faithful,
    )
    spec = Spec(kdamonds=(Kdamond(contexts=(context,), modules=tuple(fields.modules)),))
    try:
        expanded = expand(spec)
        validate(expanded)
    except RequestError as error:
        raise RequestError(error.message, where=_called(error.where or "")) from None
    return Monitor(
        fields.name,
        spec,
        _request(fields, acts=bool(expanded.context.schemes)),
        recording if fields.record else None,
        tuple(sorted(_module_name(item) for item in fields.modules)),
    )


def _module_name(item: str | dict[str, Any]) -> str:
    return str(item.get("name")) if isinstance(item, dict) else item.split()[0]


def _called(where: str) -> str | None:
    """What a part of the spec is called in the file."""
    path = where.removeprefix("kdamonds[0].").removeprefix("contexts[0]").removeprefix(".")
    for name, ours in _CALLED.items():
        if path.startswith(name):
            return ours + path[len(name) :]
    return path or None


def _request(fields: MonitorFields, *, acts: bool) -> Request:
    max_cpu = None
    if fields.max_cpu is not None:
        with located("max_cpu"):
            max_cpu = float(units.parse_share(fields.max_cpu))
            if not 0 < max_cpu <= 1e6:
                raise RequestError(f"{fields.max_cpu!r} is no bound; write it like 1%")
    if fields.dry_run and not acts:
        raise RequestError("is about schemes; there are none", where="dry_run")
    if fields.panel is not None and not 0 <= fields.panel <= 1_000_000:
        raise RequestError(f"is {fields.panel}; it must be 0 to 1000000 pages", where="panel")
    return Request(
        workload=fields.workload,
        max_cpu=max_cpu,
        usual_cpu=None if max_cpu is not None or fields.faithful else _USUAL_CPU,
        panel=0 if fields.faithful or fields.ops == "paddr" else fields.panel,
        dry_run=fields.dry_run,
        pause=True,
    )


def _scheme(item: str | dict[str, Any], where: str) -> Scheme:
    if isinstance(item, str):
        with located(where):
            return parse_short(item)
    return read_spec(item, Scheme, where)


def _intervals(fields: MonitorFields) -> Intervals:
    times = {}
    for name in ("sample", "aggr", "update"):
        text = getattr(fields, name)
        if text is not None:
            with located(name):
                times[name] = units.parse_time_us(text)
    sample_us, aggr_us = times.get("sample"), times.get("aggr")
    said = sample_us is not None or aggr_us is not None
    if sample_us is None:
        sample_us = 5_000 if aggr_us is None else max(aggr_us // _SAMPLES, 1)
    goal: IntervalsGoal | None = None if said else default_goal(fields.ops, faithful=fields.faithful)
    if fields.intervals is not None:
        goal = IntervalsGoal() if fields.intervals == "auto" else None
    return Intervals(
        sample_us=sample_us,
        aggr_us=_SAMPLES * sample_us if aggr_us is None else aggr_us,
        ops_update_us=times["update"],
        intervals_goal=goal,
    )


# -- its targets ------------------------------------------------------------------------------------------------------


def _targets(fields: MonitorFields) -> tuple[Target, ...]:
    match = fields.match
    if (fields.workload is None) == (fields.ops == "sim"):
        raise RequestError("goes with ops sim, and ops sim with it, like workload: stairs", where="workload")
    if fields.ops != "vaddr":
        if match is not None:
            raise RequestError(f"does not go with ops {fields.ops}, which has no processes", where="match")
        return (Target(),)
    if match is None:
        raise RequestError("is missing: which processes, like match: {name: nginx}", where="match")
    with located("match"):
        return _processes(match)


def _processes(match: MatchFields) -> tuple[Target, ...]:
    names, cgroups = _several(match.name), _several(match.cgroup)
    pids = (match.pid,) if isinstance(match.pid, int) else tuple(match.pid or ())
    if bool(pids) + bool(names or cgroups) + match.all != 1:
        raise RequestError("must have pid, or name and cgroup, or all: true, and not several of them")
    if pids:
        if match.most is not None:
            raise RequestError("is for patterns; processes that are named are all monitored", where="most")
        if len(set(pids)) < len(pids):
            raise RequestError("names the same process twice", where="pid")
        return tuple(Target(pid=pid, include_children=match.include_children) for pid in pids)
    if match.include_children:
        raise RequestError("goes with pid; a pattern takes each process by itself", where="include_children")
    if len(cgroups) == 1 and not names and match.most is None and not _WILD.intersection(cgroups[0]):
        return (Target(cgroup=cgroups[0]),)  # what modules do to a cgroup, they can do to one only
    found = Match(names=("*",) if match.all else names, cgroups=cgroups)
    return (Target(match=found if match.most is None else msgspec.structs.replace(found, most=match.most)),)


def _several(given: str | list[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


# -- its recordings ---------------------------------------------------------------------------------------------------


def _recording(fields: RecordFields, beside: str) -> Recording:
    """Relative to the directory ``beside``."""
    if not fields.directory or "\0" in fields.directory:
        raise RequestError("is not the name of a directory", where="directory")
    keep = fields.keep
    with located("keep"):
        if keep.files is not None and not 2 <= keep.files <= _MOST_FILES:
            raise RequestError(f"is {keep.files}; it must be 2 to {_MOST_FILES}", where="files")
        with located("bytes"):
            size_bytes = None if keep.bytes is None else units.parse_size(str(keep.bytes))
        with located("age"):
            age_ns = None if keep.age is None else units.parse_time_ns(keep.age)
    return Recording(
        os.path.join(beside, os.path.expanduser(fields.directory)),
        _rotation(str(fields.rotate)),
        Keep(keep.files, size_bytes, age_ns),
    )


def _rotation(text: str) -> tuple[int | None, int | None]:
    """After how many bytes, or ns, a new file begins."""
    with located("rotate"):
        for parse, least in ((units.parse_time_ns, 1_000_000_000), (units.parse_size, 1 << 16)):
            try:
                value = parse(text)
            except RequestError:
                continue
            if value < least:
                raise RequestError(f"{text!r} is too small; it must be at least 64K or 1s")
            return (None, value) if parse is units.parse_time_ns else (value, None)
        raise RequestError(f"{text!r} is neither a size nor a time; write it like 100M or 1h")
