"""The fields of a service file as they are written, before any of them is understood (docs/service.md)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pydamon.spec.primitives import PrimitiveName

Text = str | int | float  # a quantity, as people write it


class MatchFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which processes: by pid, or by patterns of names and cgroups, or all."""

    pid: int | list[int] | None = None
    name: str | list[str] | None = None
    cgroup: str | list[str] | None = None
    all: bool = False
    include_children: bool = False
    most: int | None = None


class KeepFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the recordings stays: the oldest files are removed beyond any of these."""

    files: int | None = None
    bytes: Text | None = None
    age: str | None = None


class RecordFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where recordings go, when a new file begins, and what stays."""

    directory: str
    rotate: Text = "64 MiB"
    keep: KeepFields = KeepFields()


class MonitorFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kdamond."""

    name: str
    match: MatchFields | None = None
    ops: Literal["vaddr", "paddr", "sim"] = "vaddr"
    workload: str | None = None
    primitive: PrimitiveName = "auto"
    sample: str | None = None
    aggr: str | None = None
    update: str = "1s"
    intervals: Literal["fixed", "auto"] | None = None
    min_regions: int = 10
    max_regions: int = 1000
    max_cpu: str | None = None
    panel: int | None = None
    faithful: bool = False
    schemes: list[str | dict[str, Any]] = []
    modules: list[str | dict[str, Any]] = []
    dry_run: bool = False
    record: bool = True


class ShipFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"host_class": "class"}):
    """Where the data set of the fleet lies, what this host is called there, and how much waits here for how long."""

    to: str
    spool: str
    host: str | None = None
    host_class: str | None = None
    every: str = "15min"
    most: Text = "256 MiB"
    rate: Text = "1 MiB"
    cgroups: int = 1000
    regions: str | None = None
    options: dict[str, str] = {}


class ServiceFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    monitors: list[MonitorFields]
    name: str | None = None
    group: str | None = None
    metrics: str | None = None
    record: RecordFields | None = None
    ship: ShipFields | None = None
