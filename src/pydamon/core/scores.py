"""Which regions a scheme prefers when it may not act on all: scores of 0 to 99 (docs/algorithms.md 2.12).

Integer arithmetic throughout, as in the kernel, so that the scores are the kernel's.
"""

from __future__ import annotations

import numpy as np

from pydamon.core.regions import I64, U64
from pydamon.spec.actions import ACTIONS
from pydamon.spec.schemes import Weights

MAX_SCORE = 99
_MAX_AGE_LOG = 32


def hot_scores(nr_accesses: I64, age: I64, weights: Weights, *, window: int, aggr_us: int) -> I64:
    """0 (coldest) to 99 (hottest). ``nr_accesses`` of ``window`` samples, ``age`` in aggregations of ``aggr_us``.

    The longer a region has been accessed the hotter it is, the longer it has not been the colder. Weights of 0 make
    all alike.
    """
    freq = nr_accesses * 100 // window
    seconds = age * aggr_us // 1_000_000
    # bit_length of the age, by the exponent of the number as a float: exact below 2**53.
    log = np.minimum(np.frexp(seconds.astype(np.float64))[1], _MAX_AGE_LOG).astype(np.int64)
    log[freq == 0] *= -1
    age_score = (log + _MAX_AGE_LOG) * 100 // (2 * _MAX_AGE_LOG)
    total = weights.nr_accesses_permil + weights.age_permil
    hotness = weights.nr_accesses_permil * freq + weights.age_permil * age_score
    if total:
        hotness //= total
    result: I64 = np.clip(hotness * MAX_SCORE // 100, 0, MAX_SCORE)
    return result


def scores(action: str, hot: I64) -> I64:
    """How much ``action`` wants regions of these hot scores; all alike get the top score.

    In the kernel the scores of ``vaddr`` are 99 for all but ``pageout``, and ``cold``, ``collapse``, ``hugepage`` and
    ``willneed`` know no preference; here they have the obvious one, whatever the operations set is.
    """
    prefers = ACTIONS[action].prefers
    if prefers == "cold":
        return MAX_SCORE - hot
    if prefers == "hot":
        return hot
    return np.full(len(hot), MAX_SCORE, np.int64)


def lowest_score(scores: I64, sizes: U64, effective_bytes: int) -> int:
    """The score down to which all regions together have at least ``effective_bytes``; 0 if there are not that many.

    ``sizes`` (bytes) parallel to ``scores``.
    """
    histogram = np.zeros(MAX_SCORE + 1, np.uint64)
    np.add.at(histogram, scores, sizes)  # bincount would add up floats, of 53 bits
    from_top = np.cumsum(histogram[::-1])
    enough = np.flatnonzero(from_top >= np.uint64(effective_bytes))
    return MAX_SCORE - int(enough[0]) if len(enough) else 0
