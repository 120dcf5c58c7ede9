"""Hosts that are not as others of their class, and what a rollout changed; a host is the unit of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import PydamonError, RequestError
from pydamon.fleet.asking import MINUTE_S, Data, Found
from pydamon.fleet.measures import LABEL_NAMES
from pydamon.fleet.query import Query
from pydamon.fleet.questions.memory import means
from pydamon.fleet.statistics import Interval, difference, mean_of, robust_z
from pydamon.fleet.where import HOUR_S, Where

F64 = NDArray[np.float64]

Z = 5.0  # robust standard deviations: one of two million hosts that are alike is farther off
_FEWEST = 5  # hosts of a class, to say what is usual
# Outcome → (its sum, the seconds for which it is known): its mean per host.
_HELD = {
    "resident": ("resident_bs", "seconds"),
    **{name: (f"{name}_bs", f"{name}_known") for name in ("cold_600s", "cold_3600s", "used_600s", "used_3600s")},
}
_HAPPENED = {
    "returned_600s": ("returned_600s", "returned_600s_known"),
    "refaulted": ("refaulted", "seconds"), "psi_some_us": ("psi_some_us", "seconds"),
}  # fmt: skip
OUTCOMES = (*_HELD, *_HAPPENED)
UNITS = {**dict.fromkeys(_HELD, "bytes"), **dict.fromkeys(_HAPPENED, "bytes/min"), "psi_some_us": "us/min"}


def _per_host(found: Found, outcome: str) -> F64:
    """The mean of an outcome of each group over its own time: bytes, or what happens in a minute.

    Of the time for which it is known: after a new start nobody knows for an hour what is idle so long. NaN: never.
    """
    total, known = {**_HELD, **_HAPPENED}[outcome]
    mean: F64 = means(found, [total], [known], 1.0)[:, 0] / _span_s(found)
    return mean if outcome in _HELD else mean * MINUTE_S


def _span_s(found: Found) -> F64:
    return found.numbers("last") - found.numbers("first") + MINUTE_S


def _measures(outcomes: tuple[str, ...]) -> tuple[str, ...]:
    asked = dict.fromkeys(one for name in outcomes for one in {**_HELD, **_HAPPENED}[name])
    return tuple(dict.fromkeys(("first", "last", "seconds", *asked)))


def check_outcomes(outcomes: tuple[str, ...]) -> tuple[str, ...]:
    """Raises RequestError for one that is none."""
    for name in outcomes:
        if name not in OUTCOMES:
            raise RequestError(f"{name!r} is none; there are: {', '.join(OUTCOMES)}", where="outcome")
    return outcomes


# -- outliers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlier:
    """A host on which a service is not as on other hosts of its class: ``z`` robust standard deviations off."""

    host: str
    service: str
    host_class: str
    outcome: str
    value: float
    usual: float
    z: float


def outliers(
    data: Data, where: Where | None = None, outcomes: tuple[str, ...] = ("resident", "cold_600s", "returned_600s"),
    least_z: float = Z,
) -> tuple[list[Outlier], Found]:  # fmt: skip
    """Hosts farthest from the median of their class and service, farthest first; classes of few hosts are left out."""
    check_outcomes(outcomes)
    found = data.ask(Query(("service", "host_class", "host"), _measures(outcomes), where or Where()))
    services, classes, hosts = (found.texts(name) for name in ("service", "host_class", "host"))
    groups: dict[tuple[str, str], list[int]] = {}
    for at, key in enumerate(zip(services.tolist(), classes.tolist(), strict=True)):
        groups.setdefault(key, []).append(at)
    rows: list[Outlier] = []
    for outcome in outcomes:
        values = _per_host(found, outcome)
        for (service, kind), members in groups.items():
            mine = np.array(members)[~np.isnan(values[members])]
            if len(mine) < _FEWEST:
                continue
            z = robust_z(values[mine])
            usual = float(np.median(values[mine]))
            rows += [
                Outlier(str(hosts[mine[one]]), service, kind, outcome, float(values[mine[one]]), usual, float(z[one]))
                for one in np.flatnonzero(np.abs(z) >= least_z)
            ]
    return sorted(rows, key=lambda row: -abs(row.z)), found


# -- before and after -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What a rollout changed of an outcome of a service, per host, with 95 % intervals.

    ``before`` and ``after``: means of the hosts that got it. ``effect``: by how much more they changed than the
    ``control`` hosts did (difference in differences), or, without those, by how much they changed (paired).
    ``relative``: the same of the logarithms, as a share: 0.1 is 10 % more.
    """

    service: str
    outcome: str
    hosts: int
    control: int
    before: float
    after: float
    effect: Interval
    relative: Interval


@dataclass(frozen=True)
class Rollout:
    """The rollout that was found: the value of a label, when (seconds since 1970), on how many hosts."""

    label: str
    value: str
    at: int
    hosts: int
    control: int
    one_sided: int  # hosts without a before or an after: new, gone, or renamed


def compare(
    data: Data, label: str, value: str, where: Where | None = None,
    outcomes: tuple[str, ...] = ("resident", "cold_600s", "used_600s", "returned_600s"),
) -> tuple[list[Effect], Rollout, Found]:  # fmt: skip
    """What changed on the hosts whose ``label`` became ``value``, by service and outcome.

    Each such host is compared with itself before; hosts that never had the value say what the time of day did. What
    came behind the value counts for neither.
    Raises RequestError for a label that is none, PydamonError if no host got the value or had another one before.
    """
    check_outcomes(outcomes)
    if label not in LABEL_NAMES or label in ("host", "service"):
        fit = ", ".join(name for name in LABEL_NAMES if name not in ("host", "service"))
        raise RequestError(f"{label!r} is no label that a rollout changes; there are: {fit}", where="rollout")
    where = where or Where()
    began, cut = _when(data, label, value, where)
    treated = set(began)
    found = data.ask(Query(("service", "host", label), _measures(outcomes), where, cut=cut))
    hosts, services = found.texts("host"), found.texts("service")
    is_treated = np.array([host in treated for host in hosts], bool)
    late = np.where(is_treated, found.texts(label) == value, found.flags())
    # What came behind the value (the next rollout, or back to the last one) is neither before nor after.
    behind = found.numbers("first") > np.array([began.get(host, math.inf) for host in hosts])
    counted = late | ~(is_treated & behind)
    rows: list[Effect] = []
    one_sided: set[str] = set()
    for service in sorted(set(services)):
        mine = (services == service) & counted
        one_sided |= set(hosts[mine & late].tolist()) ^ set(hosts[mine & ~late].tolist())
        for outcome in outcomes:
            changes = _changes(found, outcome, hosts, mine, late)
            row = _effect(service, outcome, changes, treated)
            if row is not None:
                rows.append(row)
    control = set(hosts.tolist()) - treated
    if not rows:
        if treated - one_sided:
            raise PydamonError(f"{', '.join(outcomes)}: not known before and after", where="outcome")
        raise PydamonError(f"no host had another {label} before {value}", where="rollout")
    rollout = Rollout(label, value, cut, len(treated - one_sided), len(control - one_sided), len(one_sided))
    return rows, rollout, found


def _when(data: Data, label: str, value: str, where: Where) -> tuple[dict[str, float], int]:
    """When each host got the value, and from when on it is after the rollout for hosts that never did."""
    times = data.ask(Query(("host", label), ("first", "last"), where))
    has = times.texts(label) == value
    if not has.any():
        raise PydamonError(f"no host has {label} {value}", where="rollout")
    firsts = times.numbers("first")
    exact = int(np.median(firsts[has]))
    hour = exact // HOUR_S * HOUR_S  # roll-ups tell that
    return dict(
        zip(times.texts("host")[has].tolist(), firsts[has], strict=True)
    ), hour if hour > firsts.min() else exact


@dataclass(frozen=True)
class _Changes:
    """Of each host that has both: its mean before and after."""

    hosts: list[str]
    before: F64
    after: F64


def _changes(
    found: Found, outcome: str, hosts: NDArray[np.object_], mine: NDArray[np.bool_], late: NDArray[np.bool_]
) -> _Changes:
    """Weighted by time where a host has several rows on one side: the label had other values before."""
    span_s = _span_s(found)
    totals = _per_host(found, outcome) * span_s
    sums: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for at in np.flatnonzero(mine & ~np.isnan(totals)):
        told = sums[int(late[at])].setdefault(str(hosts[at]), [0.0, 0.0])
        told[0] += totals[at]
        told[1] += span_s[at]
    both = sorted(set(sums[0]) & set(sums[1]))
    before, after = (np.array([side[host][0] / side[host][1] for host in both]) for side in sums)
    return _Changes(both, before, after)


def _effect(service: str, outcome: str, changes: _Changes, treated: set[str]) -> Effect | None:
    got = np.array([host in treated for host in changes.hosts], bool)
    if not got.any():
        return None
    before, after = changes.before, changes.after
    positive = (before > 0) & (after > 0)
    logs = np.log(np.where(positive, after, 1.0) / np.where(positive, before, 1.0))
    told: Callable[[F64, F64], Interval] = difference if (~got).any() else lambda mine, _: mean_of(mine)
    plain = told((after - before)[got], (after - before)[~got])
    share = told(logs[got & positive], logs[~got & positive])
    with np.errstate(over="ignore", invalid="ignore"):
        relative = Interval(*(float(np.expm1(one)) for one in share))
    return Effect(service, outcome, int(got.sum()), int((~got).sum()), float(before[got].mean()),
                  float(after[got].mean()), plain, relative)  # fmt: skip
