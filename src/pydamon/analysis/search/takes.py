"""What of a policy decides what it takes: from which idle time on, and how much at most in which time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.spec import Scheme
from pydamon.spec.costs import Backing, Costs
from pydamon.spec.units import U64_MAX

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Takes:
    """Memory that was idle for ``age_s``, the oldest first, at most ``most_bytes`` (inf: all) in ``window_s``."""

    age_s: float
    most_bytes: float
    window_s: float


def takes_of(schemes: Sequence[Scheme], aggr_us: int, costs: Costs, backing: Backing = "zram") -> Takes:
    """What these schemes take. Time quotas are bytes, by what it costs to page out.

    Raises RequestError for what histograms of idle memory do not tell.
    """
    if len(schemes) != 1 or schemes[0].action != "pageout":
        actions = ", ".join(one.action for one in schemes) or "none"
        raise RequestError(f"a search is for one scheme that pages out; here there are: {actions}")
    scheme = schemes[0]
    pattern, quotas = scheme.access_pattern, scheme.quotas
    if pattern.nr_accesses.max.value != 0 or pattern.age.max.value is not None:
        raise RequestError("a search is for what is not accessed for some time or longer: rate=0% age>=TIME")
    if pattern.sz_bytes.min > _PAGE or pattern.sz_bytes.max < U64_MAX:
        raise RequestError("sizes of regions cannot be searched for: only what is idle for how long is looked at")
    if scheme.filters:
        raise RequestError("has filters, and no recording tells what they let through")
    if quotas.goals:
        raise RequestError("has goals, which no recording can be asked for")
    if scheme.max_nr_snapshots or scheme.apply_interval_us:
        raise RequestError("is not applied at each aggregation, which a search counts on")
    age_s = max(pattern.age.min.to_aggregations(aggr_us, upper=False), 1) * aggr_us / 1e6
    most = float(quotas.sz_bytes) if quotas.sz_bytes else math.inf
    if quotas.time_ms:
        page_ns = costs.out_ns(backing) + costs.look_ns
        most = min(most, quotas.time_ms * 1e6 / max(page_ns, 1) * _PAGE)
    return Takes(age_s, most, quotas.reset_interval_ms / 1000)
