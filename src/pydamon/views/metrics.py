"""What is known of memory as metrics that Prometheus and its kin take: a table of them, and the families of some views.

Units are Prometheus' own (bytes, seconds, ratios). Idle times are a *gauge histogram*: its buckets go both ways, as
memory is used again, and ``le`` is what it takes such buckets by; a gauge of that label is refused by its linter. A
bucket that is not known yet is left out, and not told to be idle for longer. Texts that others chose are made harmless
and cut, and what is not among the largest targets is one sum: there are never more series than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client.metrics_core import Metric

from pydamon.plain import printable
from pydamon.version import __version__
from pydamon.views.fields import Field, Unit, fields_of
from pydamon.views.live import Container, Live, Memory, Target, plain_sum

MOST = 200  # targets, and containers, that are told one by one
OTHER = "other"  # the target that stands for the rest
WINDOWS = {10: "10s", 60: "1m", 300: "5m", 3600: "1h"}  # what is told with an error; histograms have all windows
_LONGEST = 128  # characters of what others have chosen
_SCALE: dict[Unit, tuple[float, str]] = {
    "ns": (1e-9, "seconds"), "us": (1e-6, "seconds"), "ms": (1e-3, "seconds"), "s": (1, "seconds"),
    "bytes": (1, "bytes"), "bp": (1e-4, "ratio"), "": (1, ""),
}  # fmt: skip
Labels = dict[str, str]
_Samples = Iterable[tuple[Labels, float]]


class Row(msgspec.Struct, frozen=True):
    """One metric: the field of `Live` that it tells, and with which ``labels`` beside that of the kdamond.

    ``name`` is without its unit and without ``_total``. ``kind`` and ``help``: others than the field's.
    """

    name: str
    path: str
    labels: tuple[str, ...] = ()
    kind: str = ""
    help: str = ""

    @property
    def field(self) -> Field:
        """What is known of its field."""
        return fields_of(Live)[self.path]

    @property
    def unit(self) -> str:
        """Its unit, as Prometheus has it."""
        return "seconds" if self.kind == "gaugehistogram" else "" if self.kind == "info" else _SCALE[self.field.unit][1]

    @property
    def family(self) -> str:
        """Its name with the unit."""
        return f"{self.name}_{self.unit}" if self.unit else self.name

    @property
    def metric(self) -> str:
        """What it is called in queries."""
        kind = self.kind or self.field.kind
        return self.family + {"counter": "_total", "info": "_info", "gaugehistogram": "_bucket"}.get(kind, "")

    @property
    def words(self) -> str:
        """What it means: where the field may be null, there is no sample."""
        words = (self.help or self.field.help).partition("; null: ")[0]
        return f"{words[0].upper()}{words[1:]}."

    def make(self) -> Metric:
        """Its family, without samples."""
        return Metric(self.family, self.words, self.kind or self.field.kind, self.unit)

    def value(self, value: float) -> float:
        """A value of the field in the unit of the metric."""
        return value * _SCALE[self.field.unit][0]


_TARGET = ("target", "cgroup", "namespace", "pod", "container")
_CONTAINER = ("namespace", "pod", "container")
_MEMORY = {
    "resident": "resident_bytes",
    "needed": "needed_bytes",
    "regions_accessed": "working_set_bytes",
}
_WINDOWED = {"working_set": "bytes", "working_set_low": "low_bytes", "working_set_high": "high_bytes"}
_HEATS = {"hot": "hot_bytes", "warm": "warm_bytes", "cold": "cold_bytes", "unknown": "unknown_bytes"}


def _rows_of(prefix: str, path: str, labels: tuple[str, ...]) -> Iterator[Row]:
    """What is told of memory, of each target or all or each container."""
    for name, key in _MEMORY.items():
        yield Row(f"{prefix}_{name}", f"{path}.{key}", labels)
    for name, key in _WINDOWED.items():
        yield Row(f"{prefix}_{name}", f"{path}.used[].{key}", (*labels, "window"))


IDLE = Row(
    "pydamon_idle_memory",
    "targets[].used[].bytes",
    (*_TARGET, "le"),
    "gaugehistogram",
    "memory by how long it has been idle: the buckets count bytes",
)
HEAT = Row(
    "pydamon_memory",
    "targets[].kinds[].hot_bytes",
    (*_TARGET, "kind", "heat"),
    help="memory by kind (file, anonymous, shared), and heat: hot (accessed in the last aggregation), warm (within"
    " 10 s), cold, or unknown",
)
TARGET_INFO = Row(
    "pydamon_target",
    "targets[].target",
    (*_TARGET, "pid", "command", "container_id"),
    "info",
    "which process a target is, and where it runs",
)
_OF_TARGETS = tuple(_rows_of("pydamon", "targets[]", _TARGET))
_OF_TARGETS_ALONE = (
    Row("pydamon_rss", "targets[].rss_bytes", _TARGET),
    Row("pydamon_swap", "targets[].swap_bytes", _TARGET),
    Row("pydamon_regions", "targets[].regions", _TARGET),
    Row("pydamon_aggregation_interval", "targets[].aggr_us", _TARGET),
)
_OF_TOTAL = tuple(_rows_of("pydamon_total", "total", ()))
_OF_CONTAINERS = (
    Row("pydamon_container_resident", "containers[].resident_bytes", _CONTAINER),
    Row("pydamon_container_needed", "containers[].needed_bytes", _CONTAINER),
    Row("pydamon_container_working_set", "containers[].used[].bytes", (*_CONTAINER, "window")),
)
INFO = Row(
    "pydamon_kdamond",
    "engine",
    ("engine", "ops", "primitive", "version"),
    "info",
    "who monitors, and by which means",
)
_OF_KDAMOND = (
    Row("pydamon_monitored", "elapsed_ns"),
    Row("pydamon_last_snapshot_timestamp", "time_unix_ns", (), "gauge", "when the last snapshot ended, since 1970"),
)
_OF_COST = tuple(
    Row(f"pydamon_{name}", f"cost.{key}")
    for name, key in {
        "cpu": "cpu_ns", "checks": "checks", "check": "check_ns", "clears": "clears", "clear": "clear_ns",
        "disturb": "disturb_ns", "samples": "samples", "samples_planned": "asked_ns", "samples_taken": "sampled_ns",
    }.items()
)  # fmt: skip
_SCHEME = ("scheme", "action")
_OF_SCHEMES = (
    Row("pydamon_scheme_active", "schemes[].active", _SCHEME, "gauge"),
    Row("pydamon_scheme_quota_effective", "schemes[].effective_bytes", _SCHEME),
    *(
        Row(f"pydamon_scheme_{path.rpartition('.')[2].removesuffix('_bytes')}", path, _SCHEME)
        for path in fields_of(Live)
        if path.startswith("schemes[].stats.")
    ),
)
ROWS = (
    *_OF_TARGETS, IDLE, HEAT, *_OF_TARGETS_ALONE, TARGET_INFO, *_OF_CONTAINERS, *_OF_TOTAL, INFO, *_OF_KDAMOND,
    *_OF_COST, *_OF_SCHEMES,
)  # fmt: skip


def families(views: Sequence[tuple[str, Live]], *, most: int = MOST) -> list[Metric]:
    """The metrics of kdamonds, each by its name and what it told; at most ``most`` targets of each one by one."""
    told = [_Told(safe(name), view, most) for name, view in views]
    found = [_memory(row, [(labels, of) for one in told for labels, of in one.targets]) for row in _OF_TARGETS]
    found += [_idle(told), _heat(told), *(_of_targets(row, told) for row in _OF_TARGETS_ALONE), _target_info(told)]
    found += [_memory(row, [(labels, of) for one in told for labels, of in one.containers]) for row in _OF_CONTAINERS]
    found += [_memory(row, [(one.labels, one.view.total) for one in told]) for row in _OF_TOTAL]
    found += [_info(told), *(_plain(row, ((one.labels, one.view) for one in told)) for row in _OF_KDAMOND)]
    found += [_plain(row, ((one.labels, one.view.cost) for one in told)) for row in _OF_COST]
    found += [_of_schemes(row, told) for row in _OF_SCHEMES]
    return [family for family in found if family.samples]


def safe(text: str | None) -> str:
    """A text that others have chosen, as the value of a label."""
    if text is None:
        return ""
    text = printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


class _Told:
    """One kdamond's view with labels: ``targets``, the largest and the sum of the rest, and ``containers`` likewise."""

    def __init__(self, name: str, view: Live, most: int) -> None:
        self.view = view
        self.labels = {"kdamond": name}
        ordered = sorted(view.targets, key=lambda target: -target.resident_bytes)
        self.shown = [(self.labels | _target_labels(target), target) for target in ordered[:most]]
        self.targets: list[tuple[Labels, Memory]] = list(self.shown)
        if ordered[most:]:
            self.targets.append((self.labels | {"target": OTHER}, plain_sum(ordered[most:])))
        largest = sorted(view.containers, key=lambda one: -one.resident_bytes)
        self.containers: list[tuple[Labels, Memory]] = [
            (self.labels | _container_labels(one), one) for one in largest[:most]
        ]
        if largest[most:]:
            self.containers.append((self.labels | {"container": OTHER}, plain_sum(largest[most:])))


def _target_labels(target: Target) -> Labels:
    """Without those that would be empty: for Prometheus these are the same, and they take room."""
    labels = {"target": str(target.target)}
    if target.container_id is not None:
        return labels | _container_labels(target)
    return labels | ({"cgroup": safe(target.cgroup)} if target.cgroup else {})


def _container_labels(of: Target | Container) -> Labels:
    """Names, or ids where those are not known."""
    number = of.id if isinstance(of, Container) else of.container_id
    pod = of.pod or of.pod_uid
    found = {"namespace": of.namespace, "pod": pod, "container": of.container or (number or "")[:12]}
    return {name: safe(value) for name, value in found.items() if value}


def _filled(row: Row, samples: _Samples) -> Metric:
    found = row.make()
    name = row.metric
    for labels, value in samples:
        found.add_sample(name, labels, value)
    return found


def _memory(row: Row, held: Sequence[tuple[Labels, Memory]]) -> Metric:
    """A row of `_rows_of`."""
    key = row.path.rpartition(".")[2]
    if "window" not in row.labels:
        return _filled(row, ((labels, getattr(of, key)) for labels, of in held))
    return _filled(
        row,
        (
            (labels | {"window": WINDOWS[used.window_s]}, value)
            for labels, of in held
            for used in of.used
            if used.window_s in WINDOWS and (value := getattr(used, key)) is not None
        ),
    )


def _idle(told: Sequence[_Told]) -> Metric:
    found = IDLE.make()
    for labels, of in (each for one in told for each in one.targets):
        for used in of.used:
            found.add_sample(f"{IDLE.family}_bucket", labels | {"le": f"{used.window_s}.0"}, used.bytes)
        found.add_sample(f"{IDLE.family}_bucket", labels | {"le": "+Inf"}, of.resident_bytes)
    return found


def _heat(told: Sequence[_Told]) -> Metric:
    return _filled(
        HEAT,
        (
            (labels | {"kind": heat.kind, "heat": name}, value)
            for one in told
            for labels, of in one.targets
            for heat in of.kinds
            for name, key in _HEATS.items()
            if (value := getattr(heat, key))
        ),
    )


def _of_targets(row: Row, told: Sequence[_Told]) -> Metric:
    return _plain(row, (each for one in told for each in one.shown))


def _plain(row: Row, held: Iterable[tuple[Labels, Any]]) -> Metric:
    """A field of each view, where it is known."""
    key = row.path.rpartition(".")[2]
    values = ((labels, getattr(of, key, None)) for labels, of in held)
    return _filled(row, ((labels, row.value(value)) for labels, value in values if value is not None))


def _target_info(told: Sequence[_Told]) -> Metric:
    def more(target: Target) -> Labels:
        pid = "" if target.pid is None else str(target.pid)
        names = {"cgroup": target.cgroup, "container_id": target.container_id, "command": target.command, "pid": pid}
        return {name: safe(value) for name, value in names.items() if value}

    samples = ((labels | more(target), 1.0) for one in told for labels, target in one.shown)
    return _filled(TARGET_INFO, samples)


def _info(told: Sequence[_Told]) -> Metric:
    def more(view: Live) -> Labels:
        names = {"engine": view.engine, "ops": view.ops, "primitive": view.primitive, "version": __version__}
        return {name: safe(value) for name, value in names.items() if value}

    samples = ((one.labels | more(one.view), 1.0) for one in told)
    return _filled(INFO, samples)


def _of_schemes(row: Row, told: Sequence[_Told]) -> Metric:
    key = row.path.rpartition(".")[2]
    of_stats: Callable[[Any], Any] = lambda scheme: scheme.stats.get(key)  # noqa: E731
    look = of_stats if ".stats." in row.path else lambda scheme: getattr(scheme, key)
    samples = (
        (one.labels | {"scheme": safe(scheme.name) or str(scheme.number), "action": scheme.action}, look(scheme))
        for one in told
        for scheme in one.view.schemes
    )
    return _filled(row, ((labels, float(value)) for labels, value in samples if value is not None))
