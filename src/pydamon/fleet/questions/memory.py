"""How much memory is cold, what reclaim would save at a goal of refaults, how much hosts use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.schema import AGES_S, WINDOWS_S
from pydamon.errors import RequestError
from pydamon.fleet.asking import MINUTE_S, Data, Found
from pydamon.fleet.measures import LABEL_NAMES
from pydamon.fleet.query import Query
from pydamon.fleet.where import Where

F64 = NDArray[np.float64]

GOAL = 0.002  # of the working set, a minute
WORKING_SET_S = 120  # what was used within is the working set that a goal is a share of, as of `what-if`
PERCENTILES = (5, 25, 50, 75, 95)
_COLD = tuple(name for age in AGES_S for name in (f"cold_{age}s_bs", f"cold_{age}s_known"))
_RETURNED = tuple(name for age in AGES_S for name in (f"returned_{age}s", f"returned_{age}s_known"))
_ALWAYS = ("rows", "seconds", "first", "last", "resident_bs")


@dataclass(frozen=True)
class Cold:
    """Of a group: bytes, means over the time asked for; ``cold`` by age in s, None where that is not known.

    ``known`` is the share of the time for which the ages are known, by age.
    """

    name: str
    resident: float
    cold: dict[int, float | None]
    known: dict[int, float]


@dataclass(frozen=True)
class Savings:
    """Of a group: what is idle for ``age_s`` or longer can be taken, and comes back at ``back`` bytes a minute.

    ``age_s`` None: at no age does little enough come back, or (``saved`` and ``back`` are NaN) nobody knows yet.
    """

    name: str
    resident: float
    working_set: float
    age_s: int | None
    saved: float
    back: float

    @property
    def is_known(self) -> bool:
        """Whether enough has been seen to say anything."""
        return not math.isnan(self.saved)


@dataclass(frozen=True)
class WorkingSets:
    """Of a class of hosts: percentiles (`PERCENTILES`) over its hosts of what they use on average, in bytes."""

    name: str
    hosts: int
    resident: float
    used: tuple[float, ...]


def by_label(name: str) -> str:
    """The label to group by. Raises RequestError."""
    if name not in LABEL_NAMES:
        raise RequestError(f"{name!r} is no label; labels are: {', '.join(LABEL_NAMES)}", where="by")
    return name


def means(found: Found, names: Sequence[str], known: Sequence[str], span_s: float) -> F64:
    """Bytes on average over the time, (groups, names): of the time for which they are known, if that is not all."""
    seconds = found.numbers("seconds")
    columns = []
    for name, of in zip(names, known, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            columns.append(found.numbers(name) / found.numbers(of) * seconds / span_s)
    return np.stack(columns, axis=1) if columns else np.zeros((len(found), 0))


def cold(data: Data, where: Where | None = None, by: str = "service") -> tuple[list[Cold], Found]:
    """Cold memory of each group and age, those with most resident memory first."""
    label = by_label(by)
    found = data.ask(Query((label,), (*_ALWAYS, *_COLD), where or Where()))
    return cold_of(found, label), found


def cold_of(found: Found, label: str) -> list[Cold]:
    """The same, of an answer that has what it takes."""
    span_s = found.span_s()
    sizes = _cold_bytes(found, span_s)
    seconds, resident = found.numbers("seconds"), found.numbers("resident_bs") / span_s
    known = np.stack([found.numbers(f"cold_{age}s_known") / seconds for age in AGES_S], axis=1)
    names = found.texts(label)
    return [
        Cold(
            str(names[at]),
            float(resident[at]),
            _by_age(sizes[at]),
            dict(zip(AGES_S, known[at].tolist(), strict=True)),
        )
        for at in np.argsort(-resident, kind="stable")
    ]


def _cold_bytes(found: Found, span_s: float) -> F64:
    return means(found, [f"cold_{age}s_bs" for age in AGES_S], [f"cold_{age}s_known" for age in AGES_S], span_s)


def _by_age(sizes: F64) -> dict[int, float | None]:
    return {age: None if np.isnan(size) else float(size) for age, size in zip(AGES_S, sizes, strict=True)}


def savings(
    data: Data, where: Where | None = None, by: str = "service", goal: float = GOAL
) -> tuple[list[Savings], Found]:
    """What can be taken from each group while at most ``goal`` of its working set comes back a minute, most first."""
    label = by_label(by)
    found = ask_savings(data, where or Where(), label)
    return savings_of(found, label, goal), found


def ask_savings(data: Data, where: Where, label: str) -> Found:
    """What `savings_of` and `cold_of` need."""
    return data.ask(Query((label,), (*_ALWAYS, *_COLD, *_RETURNED), where))


def savings_of(found: Found, label: str, goal: float) -> list[Savings]:
    """As `savings`."""
    span_s = found.span_s()
    sizes = _cold_bytes(found, span_s)
    returned = [f"returned_{age}s" for age in AGES_S]
    back = means(found, returned, [f"{name}_known" for name in returned], span_s) * MINUTE_S
    resident = found.numbers("resident_bs") / span_s
    working = resident - sizes[:, AGES_S.index(WORKING_SET_S)]
    names = found.texts(label)
    rows = []
    for at in range(len(found)):
        with np.errstate(invalid="ignore"):
            fits = np.flatnonzero((back[at] <= goal * working[at]) & ~np.isnan(sizes[at]))
        about = (str(names[at]), float(resident[at]), float(working[at]))
        if len(fits):
            best = int(fits[0])
            rows.append(Savings(*about, AGES_S[best], float(sizes[at, best]), float(back[at, best])))
        else:
            none = math.nan if np.isnan(working[at]) or np.isnan(back[at]).all() else 0.0
            rows.append(Savings(*about, None, none, none))
    return sorted(rows, key=lambda row: -row.saved if row.is_known else math.inf)


def working_sets(data: Data, where: Where | None = None, window_s: int = 3600) -> tuple[list[WorkingSets], Found]:
    """How the working sets of hosts are distributed in each class of hosts."""
    if window_s not in WINDOWS_S:
        raise RequestError(f"{window_s} s is none of {', '.join(map(str, WINDOWS_S))} s", where="window")
    name = f"used_{window_s}s"
    asked = Query(("host_class", "host"), (*_ALWAYS, f"{name}_bs", f"{name}_known"), where or Where())
    found = data.ask(asked)
    own_s = found.numbers("last") - found.numbers("first") + MINUTE_S  # hosts come and go
    used = means(found, [f"{name}_bs"], [f"{name}_known"], 1.0)[:, 0] / own_s
    resident = found.numbers("resident_bs") / own_s
    classes = found.texts("host_class")
    rows = []
    for kind in sorted(set(classes)):
        mine = (classes == kind) & ~np.isnan(used)
        if mine.any():
            spread = tuple(np.percentile(used[mine], PERCENTILES).tolist())
            rows.append(WorkingSets(str(kind), int(mine.sum()), float(resident[mine].mean()), spread))
    return sorted(rows, key=lambda row: -row.hosts), found
