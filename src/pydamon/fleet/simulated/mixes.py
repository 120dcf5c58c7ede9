"""The services of a simulated fleet: how their memory is used, and what follows from that for each minute, exactly.

A part of a service's memory is accessed again and again after times that are distributed exponentially, with a mean of
``mean_s`` divided by the load. Then, of that part,

- idle for T or longer is exp(-T / mean) at any time,
- accessed in a minute after T or longer idle is 60 / mean × exp(-T / mean): a page may come back several times,

and what is never used is always cold. The load follows the time of day; a minute sees the steady state of its load.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.schema import AGES_S

DAY_S = 86400
MINUTE_S = 60
_MIB = 1 << 20


class Part(NamedTuple):
    """A share of a service's memory, used again after ``mean_s`` on average."""

    share: float
    mean_s: float


class Service(NamedTuple):
    """``size`` in bytes on a host of the smallest class; the load is 1 ± ``swing`` over a day, highest at ``peak_h``.

    What its parts do not make up is never used.
    """

    name: str
    size: int
    parts: tuple[Part, ...]
    swing: float
    peak_h: float


SERVICES = (
    Service("frontend", 600 * _MIB, (Part(0.55, 4), Part(0.2, 90), Part(0.1, 1500)), 0.6, 20),
    Service("api", 900 * _MIB, (Part(0.4, 8), Part(0.3, 240), Part(0.1, 5400)), 0.6, 19),
    Service("search", 2400 * _MIB, (Part(0.3, 15), Part(0.3, 400), Part(0.25, 2400)), 0.5, 20),
    Service("cache", 4096 * _MIB, (Part(0.35, 30), Part(0.35, 900), Part(0.2, 7200)), 0.5, 20),
    Service("database", 6000 * _MIB, (Part(0.25, 20), Part(0.25, 1200), Part(0.3, 20000)), 0.4, 15),
    Service("queue", 350 * _MIB, (Part(0.5, 6), Part(0.2, 60)), 0.3, 14),
    Service("batch", 3000 * _MIB, (Part(0.5, 40), Part(0.2, 3600), Part(0.1, 30000)), 0.5, 3),
    Service("logging", 200 * _MIB, (Part(0.3, 10), Part(0.3, 300)), 0.2, 15),
    Service("metrics", 500 * _MIB, (Part(0.5, 15), Part(0.3, 600)), 0.1, 12),
    Service("build", 1500 * _MIB, (Part(0.2, 25), Part(0.2, 2000), Part(0.2, 15000)), 0.7, 14),
)


class HostClass(NamedTuple):
    """Hosts alike: how much larger each service is there, and the share of hosts that are of it."""

    name: str
    times: float
    share: float


CLASSES = (HostClass("small", 1.0, 0.6), HostClass("medium", 1.8, 0.3), HostClass("large", 3.0, 0.1))

# What the rollout of the new kernel does to one service: memory that it keeps and never uses, as a share of its size.
ROLLOUT_SERVICE, ROLLOUT_EXTRA = "search", 0.15
KERNEL_OLD, KERNEL_NEW = "6.12.40", "6.18.2"
# A few hosts on which a service hoards memory that it never uses.
OUTLIER_SERVICE, OUTLIER_EXTRA, OUTLIER_SHARE = "api", 1.2, 0.005


def load(service: Service, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The load of a service in each minute (seconds since 1970): 1 on average over a day."""
    of_day = (minutes % DAY_S) / DAY_S
    return 1 + service.swing * np.cos(2 * np.pi * (of_day - service.peak_h / 24))


def cold_shares(service: Service, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each minute and idle time of `AGES_S`: the share of its memory that is idle for that long; (minutes, ages)."""
    ages = np.array(AGES_S, np.float64)[None, :]
    busy = load(service, minutes)[:, None]
    never = 1 - sum(part.share for part in service.parts)
    found = np.full((len(minutes), len(AGES_S)), never)
    for part in service.parts:
        found += part.share * np.exp(-ages * busy / part.mean_s)
    return found


def returned_shares(service: Service, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the same: what is accessed in the minute after that long idle, as a share of its memory; (minutes, ages)."""
    ages = np.array(AGES_S, np.float64)[None, :]
    busy = load(service, minutes)[:, None]
    found = np.zeros((len(minutes), len(AGES_S)))
    for part in service.parts:
        rate = busy / part.mean_s
        found += part.share * MINUTE_S * rate * np.exp(-ages * rate)
    return found
