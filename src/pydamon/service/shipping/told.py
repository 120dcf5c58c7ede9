"""How shipping goes, read from the spool by others than the process that ships: for status and for metrics."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pydamon.learned import learned
from pydamon.plain import printable
from pydamon.spec.units import format_duration_ns, format_size

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

STATUS = "status.json"  # in the spool
_MOST_BYTES = 1 << 16


class Status(msgspec.Struct, kw_only=True, frozen=True):
    """How shipping goes: since the start of its process, but what is ``pending``. Times in seconds since 1970."""

    pid: int
    to: str
    host: str
    minutes: int
    rows: int
    shipped_files: int
    shipped_rows: int
    shipped_bytes: int
    pending_files: int
    pending_bytes: int
    spool_bytes: int
    dropped_files: int
    dropped_rows: int
    dropped_minutes: int
    repeated_minutes: int
    left_out_rows: int
    damaged_bytes: int
    cgroups_put_together: int
    failures: int
    last_success_unix_s: int | None
    last_error: str | None


# Fields of `Status` as metrics: what they are called, whether they only grow, and what they mean.
_METRICS = {
    "minutes": ("pydamon_ship_minutes", "counter", "", "Minutes that were written to the spool."),
    "shipped_files": ("pydamon_ship_files", "counter", "", "Files that the store has taken."),
    "shipped_rows": ("pydamon_ship_rows", "counter", "", "Rows in files that the store has taken."),
    "shipped_bytes": ("pydamon_ship_bytes", "counter", "bytes", "Bytes of files that the store has taken."),
    "pending_files": ("pydamon_ship_pending_files", "gauge", "", "Files that wait for the store."),
    "pending_bytes": ("pydamon_ship_pending_bytes", "gauge", "bytes", "Bytes of files that wait for the store."),
    "spool_bytes": ("pydamon_ship_spool_bytes", "gauge", "bytes", "Bytes of all files in the spool."),
    "dropped_files": ("pydamon_ship_dropped_files", "counter", "", "Files that were dropped before they were shipped."),
    "dropped_rows": ("pydamon_ship_dropped_rows", "counter", "", "Rows in files that were dropped."),
    "dropped_minutes": ("pydamon_ship_dropped_minutes", "counter", "", "Minutes that the disk did not take in time."),
    "repeated_minutes": ("pydamon_ship_repeated_minutes", "counter", "", "Minutes that were told before."),
    "left_out_rows": ("pydamon_ship_left_out_rows", "counter", "", "Rows that could not be true."),
    "damaged_bytes": ("pydamon_ship_damaged_bytes", "counter", "bytes", "Bytes of the spool that were damaged."),
    "cgroups_put_together": ("pydamon_ship_cgroups_put_together", "gauge", "", "Cgroups that are one row together."),
    "failures": ("pydamon_ship_failures", "counter", "", "Attempts that the store refused."),
    "last_success_unix_s": (
        "pydamon_ship_last_success_timestamp_seconds", "gauge", "seconds", "When the store has taken a file last.",
    ),
}  # fmt: skip


def read_status(spool: str) -> Status | None:
    """What the process that ships has told last; None: nothing that can be read."""
    try:
        fd = os.open(os.path.join(spool, STATUS), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        try:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=learned(Status))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def families(service: str, told: Status | None) -> Sequence[Metric]:
    """The metrics of a service's shipping; the same for the same status."""
    from prometheus_client.metrics_core import Metric

    if told is None:
        return ()
    found = []
    for key, (name, kind, unit, words) in _METRICS.items():
        value = getattr(told, key)
        if value is not None:
            metric = Metric(name, words, kind, unit)
            metric.add_sample(f"{name}_total" if kind == "counter" else name, {"service": service}, float(value))
            found.append(metric)
    return found


def lines(told: dict[str, Any] | None, now_s: float | None = None) -> list[str]:
    """For people: what a service's status says of it; nothing where it does not ship."""
    if told is None:
        return []
    to = printable(told["to"])
    if told.get("minutes") is None:
        return [f"ships to {to}: nothing was told yet"]
    now_s = time.time() if now_s is None else now_s
    last = told["last_success_unix_s"]
    ago = "nothing yet" if last is None else f"last {format_duration_ns(max(round(now_s - last), 0) * 10**9)} ago"
    words = [
        f"ships to {to} as {printable(told['host'])}: {told['shipped_rows']} rows in"
        f" {told['shipped_files']} files ({format_size(told['shipped_bytes'])}), {ago};"
        f" {told['pending_files']} files ({format_size(told['pending_bytes'])}) wait"
    ]
    if told["last_error"] is not None:
        words.append(f"  it fails, {told['failures']} times by now: {printable(told['last_error'])}")
    lost = {
        "dropped": told["dropped_rows"], "left out": told["left_out_rows"],
    }  # fmt: skip
    gone = [f"{count} rows {what}" for what, count in lost.items() if count]
    gone += [f"{told['dropped_minutes']} minutes dropped"] if told["dropped_minutes"] else []
    gone += [f"{told['repeated_minutes']} minutes not told again"] if told["repeated_minutes"] else []
    gone += [f"{told['cgroups_put_together']} cgroups as one row"] if told["cgroups_put_together"] else []
    return [*words, *([f"  {'; '.join(gone)}"] if gone else [])]
