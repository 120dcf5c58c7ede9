"""What to do where: candidates for reclaim, tiering and huge pages; limits and requests; what monitoring costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pydamon.dataset.schema import AGES_S
from pydamon.fleet.asking import MINUTE_S, Data, Found
from pydamon.fleet.query import Query
from pydamon.fleet.questions.memory import GOAL, WORKING_SET_S, Cold, ask_savings, by_label, cold_of, savings_of
from pydamon.fleet.where import Where
from pydamon.spec.units import format_duration_ns

Kind = Literal["reclaim", "tier", "thp"]
KINDS: tuple[Kind, ...] = ("reclaim", "tier", "thp")
_DAY_S, _HOT_S = 86400, 60
_MARGIN = 1.1  # of what is suggested, over what was used at most


@dataclass(frozen=True)
class Candidate:
    """A service and what may be done to ``size`` bytes of it; ``why`` in words."""

    kind: Kind
    name: str
    size: float
    resident: float
    why: str


def candidates(
    data: Data, where: Where | None = None, by: str = "service", goal: float = GOAL
) -> tuple[list[Candidate], Found]:
    """Of each group what reclaim, a slower tier and huge pages could be for, most bytes first.

    Reclaim: what is idle so long that little comes back. Tier: what is idle for two minutes or longer, and comes back
    too often for reclaim. Huge pages: what is used within a minute.
    """
    label = by_label(by)
    found = ask_savings(data, where or Where(), label)
    saved = savings_of(found, label, goal)
    sizes = {row.name: row for row in cold_of(found, label)}
    rows: list[Candidate] = []
    for row in saved:
        idle = sizes[row.name].cold.get(WORKING_SET_S)
        if row.age_s is not None and row.saved > 0:
            share = row.back / row.working_set if row.working_set > 0 else 0.0
            why = f"idle {_words(row.age_s)} or longer; {share:.2%} of the working set comes back a minute"
            rows.append(Candidate("reclaim", row.name, row.saved, row.resident, why))
        if idle is not None and idle > row.saved:
            why = f"idle {_words(WORKING_SET_S)} or longer, but comes back too often for reclaim"
            rows.append(Candidate("tier", row.name, idle - row.saved, row.resident, why))
        hot = _hot(sizes[row.name])
        if hot > 0:
            why = f"{hot / max(row.resident, 1):.0%} of it is used within a minute"
            rows.append(Candidate("thp", row.name, hot, row.resident, why))
    return sorted(rows, key=lambda one: (KINDS.index(one.kind), -one.size)), found


def _words(age_s: int) -> str:
    return format_duration_ns(age_s * 10**9)


def _hot(row: Cold) -> float:
    idle = row.cold.get(_HOT_S)
    return 0.0 if idle is None else row.resident - idle


@dataclass(frozen=True)
class RightSize:
    """Of a service: its instances (a cgroup of a host each), and in bytes, of one instance:

    its limit and request (the largest; None: none), what was resident at most, what was used within an hour (95 of 100
    instances no more than, and the most; with the error added), within a day on average (None: not known yet), and the
    request that is suggested: what 95 of 100 used at most, and a tenth more. ``requests`` are what all instances ask
    for together, each its own, and ``requesting`` how many do.
    """

    name: str
    instances: int
    limit: float | None
    request: float | None
    resident: float
    hour_p95: float
    hour_most: float
    day: float | None
    suggested: float
    requests: float
    requesting: int

    @property
    def freed(self) -> float | None:
        """Bytes of requests that all instances together would give back (negative: need more)."""
        return self.requests - self.suggested * self.requesting if self.requesting else None


def right_sizes(data: Data, where: Where | None = None) -> tuple[list[RightSize], Found]:
    """What services ask for beside what they use, those that would give back most first."""
    day = f"cold_{_DAY_S}s"
    assert _DAY_S in AGES_S
    asked = ("limit_bytes_max", "request_bytes_max", "resident_max", "used_3600s_max", "used_3600s_high_max",
             "seconds", "resident_bs", f"{day}_bs", f"{day}_known")  # fmt: skip
    found = data.ask(Query(("service", "host", "cgroup"), asked, where or Where()))
    names = found.texts("service")
    limits, requests, resident = (found.numbers(name) for name in asked[:3])
    peak = np.fmax(found.numbers("used_3600s_high_max"), found.numbers("used_3600s_max"))
    with np.errstate(invalid="ignore", divide="ignore"):
        used = found.numbers("resident_bs") / found.numbers("seconds")
        used = used - found.numbers(f"{day}_bs") / found.numbers(f"{day}_known")
    rows = []
    for name in sorted(set(names)):
        mine = names == name
        peaks = peak[mine][~np.isnan(peak[mine])]
        if not len(peaks):
            continue
        p95 = float(np.percentile(peaks, 95))
        rows.append(RightSize(
            str(name), int(mine.sum()), _largest(limits[mine]), _largest(requests[mine]),
            float(np.nanmax(resident[mine])), p95, float(peaks.max()), _mean(used[mine]), p95 * _MARGIN,
            float(np.nansum(requests[mine])), int(np.count_nonzero(~np.isnan(requests[mine]))),
        ))  # fmt: skip
    return sorted(rows, key=lambda row: -(row.freed or 0.0)), found


def _largest(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else None


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


@dataclass(frozen=True)
class Cost:
    """Of a class of hosts, or of all: what monitoring takes. CPUs as a share of one CPU of a host, memory in bytes."""

    name: str
    hosts: int
    cpus: float
    cpu_share: float
    cpu_share_p95: float
    memory: float
    memory_share: float


def cost(data: Data, where: Where | None = None) -> tuple[list[Cost], Found]:
    """What monitoring costs each class of hosts, and all of them (the last row)."""
    asked = ("seconds", "first", "last", "resident_bs", "monitor_cpu_us", "monitor_bytes_bs")
    found = data.ask(Query(("host_class", "host"), asked, where or Where()))
    own_s = found.numbers("last") - found.numbers("first") + MINUTE_S
    cpus = found.numbers("monitor_cpu_us") / 1e6 / own_s
    memory, resident = found.numbers("monitor_bytes_bs") / own_s, found.numbers("resident_bs") / own_s
    classes = found.texts("host_class")
    rows = []
    for kind in [*sorted(set(classes)), None]:
        mine = np.ones(len(found), bool) if kind is None else classes == kind
        rows.append(Cost(
            "all" if kind is None else str(kind), int(mine.sum()), float(cpus[mine].sum()), float(cpus[mine].mean()),
            float(np.percentile(cpus[mine], 95)), float(memory[mine].sum()),
            float(memory[mine].sum() / max(resident[mine].sum(), 1.0)),
        ))  # fmt: skip
    return rows, found
