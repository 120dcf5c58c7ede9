"""How often a page is accessed that has been idle for some time: what the panel sees beyond what regions see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.refaults import EVERY
from pydamon.analysis.whatif.ages import Ages
from pydamon.core.panel import BOUNDS_S, Look

F64 = NDArray[np.float64]
LEVELS_S = np.array(BOUNDS_S[1:], np.float64)  # of `Ages` that `unseen_by_regions` takes


def unseen_by_regions(ages: Ages, looks: Mapping[int, Sequence[Look]]) -> Callable[[F64], F64]:
    """Of idle times in s, how often (a second) a page is accessed in a region that is idle for so long, and stays so;
    0 everywhere without a panel.

    Where the looks tell for how long the regions of accessed pages were idle, it is what regions have not noticed of
    these. Else: how often the panel's pages of that idle time come back beyond how often regions do, in all as much as
    the panel has more coming back: that regions have something at another age is not to count twice.
    """
    regions = -np.diff(ages.ended, append=0.0)
    cold = -np.diff(ages.cold * ages.seen_s, append=0.0)
    woken = _woken(looks.values())
    if woken is not None:
        rates = np.concatenate([np.zeros(1), _per(np.maximum(woken - regions, 0.0), cold)])
    else:
        ended, idle = _of_panel(looks.values())
        known = _per(regions, cold)
        rate = np.maximum(_per(ended, idle) - known, 0.0)
        some = float(rate @ idle)
        share = max(float((ended - known * idle).sum()), 0.0) / some if some else 0.0
        rates = np.concatenate([np.zeros(1), rate * share])

    def hazard(idle_s: F64) -> F64:
        found: F64 = rates[np.searchsorted(LEVELS_S, idle_s, "right")]
        return found

    return hazard


def _per(bytes_: F64, byte_seconds: F64) -> F64:
    return np.divide(bytes_, byte_seconds, out=np.zeros(len(bytes_)), where=byte_seconds > 0)


def _woken(targets: Iterable[Sequence[Look]]) -> F64 | None:
    """Bytes accessed in idle regions, by the bins of `BOUNDS_S` but the first; None without looks, or not told.

    A page that is accessed again and again counts as `EVERY` says.
    """
    found = np.zeros(len(BOUNDS_S))
    asked = [look for looks in targets for look in looks if look.pages]
    for look in asked:
        if look.woken is None or look.returned is None:
            return None
        accessed = EVERY * look.woken + (1 - EVERY) * look.returned
        found += accessed * (look.resident_bytes / look.pages)
    return found[1:] if asked else None


def _of_panel(targets: Iterable[Sequence[Look]]) -> tuple[F64, F64]:
    """Bytes whose idle time was ended, and byte-seconds that were idle, by the bins of `BOUNDS_S` but the first."""
    ended, idle = np.zeros(len(BOUNDS_S)), np.zeros(len(BOUNDS_S))
    for looks in targets:
        for before, look in pairwise(looks):
            if look.pages and before.pages:
                lasted_s = (look.time_ns - before.time_ns) / 1e9
                ended += look.ended * (look.resident_bytes / look.pages)
                idle += (before.idle + before.unseen) * (lasted_s * before.resident_bytes / before.pages)
    return ended[1:], idle[1:]
