"""What is in the data set of a fleet: its columns, their units, and where its files lie.

    ROOT/minutes/date=2026-11-27/bucket=07/HASH.parquet     a row a minute, host and cgroup
    ROOT/hours/date=2026-11-27/bucket=07/HASH.parquet       sums of those over an hour, by `fleet compact`
    ROOT/regions/date=2026-11-27/bucket=07/HASH.parquet     regions of every N-th host

All numbers are integers, so sums do not depend on who adds them up and in which order. ``docs/fleet.md`` is for people.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

VERSION = 1
VERSION_KEY = b"pydamon.fleet"  # in a file's metadata: the version of this table, in decimal
MINUTES, HOURS, REGIONS = "minutes", "hours", "regions"
BUCKETS = 64

# Idle times in seconds: of those that views tell (`views.live.WINDOWS_S`), what an aggregate over minutes can use.
AGES_S = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
WINDOWS_S = (60, 600, 3600)


class Column(NamedTuple):
    """A column: Parquet's type (``string`` or ``int64``), unit, whether it may be null, what it means."""

    name: str
    type: str
    unit: str
    null: bool
    help: str


def _columns() -> tuple[Column, ...]:
    labels = (
        Column("host", "string", "", False, "the host: its machine's name, or what the service file says"),
        Column(
            "host_class", "string", "", True, "what hosts are compared by, as the service file says: a size, a role"
        ),
        Column("cgroup", "string", "", False, "path of the cgroup, or the name of the target that has none"),
        Column("pod", "string", "", True, "namespace/pod in Kubernetes"),
        Column("service", "string", "", True, "the service or container that the memory belongs to"),
        Column("kernel", "string", "", True, "release of the kernel"),
        Column("version", "string", "", True, "of pydamon"),
    )
    times = (
        Column("minute", "int64", "s", False, "when the minute begins: seconds since 1970, UTC, a multiple of 60"),
        Column("seconds", "int64", "s", False, "how many of its seconds were watched: 1 to 60"),
    )
    memory = (
        Column("resident", "int64", "bytes", False, "resident memory at the end of the minute"),
        Column("limit_bytes", "int64", "bytes", True, "memory.max; null: none"),
        Column(
            "request_bytes", "int64", "bytes", True, "what was asked for: memory.low or min, or Kubernetes' request"
        ),
    )
    ages = tuple(
        Column(f"cold_{age}s", "int64", "bytes", True, f"memory idle for {age} s or longer; null: not known yet")
        for age in AGES_S
    )
    returned = tuple(
        Column(f"returned_{age}s", "int64", "bytes", True, f"memory accessed this minute after {age} s or longer idle")
        for age in AGES_S
    )
    used = tuple(
        Column(f"used_{window}s{bound}", "int64", "bytes", True, f"{words} accessed within {window} s")
        for window in WINDOWS_S
        for bound, words in (("", "memory"), ("_low", "no less"), ("_high", "no more (95 of 100 cases)"))
    )
    effects = (
        Column("psi_some_us", "int64", "us", True, "time in which some task of it waited for memory"),
        Column("psi_full_us", "int64", "us", True, "time in which all of its tasks waited for memory"),
        Column("reclaimed", "int64", "bytes", True, "what schemes paged out"),
        Column("promoted", "int64", "bytes", True, "what schemes moved to a faster node"),
        Column("demoted", "int64", "bytes", True, "what schemes moved to a slower node"),
        Column("collapsed", "int64", "bytes", True, "what schemes made huge pages of"),
        Column("refaulted", "int64", "bytes", True, "what came back from swap or a file after it was reclaimed"),
        Column("monitor_cpu_us", "int64", "us", True, "CPU time of monitoring, this cgroup's share"),
        Column("monitor_bytes", "int64", "bytes", True, "memory of monitoring, this cgroup's share"),
    )
    return (*labels, *times, *memory, *ages, *returned, *used, *effects)


COLUMNS = _columns()


def bucket(host: str) -> int:
    """The partition of a host: CRC-32 of its name, modulo `BUCKETS`."""
    return zlib.crc32(host.encode("utf-8", "surrogateescape")) % BUCKETS
