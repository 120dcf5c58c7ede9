"""What policies would take and bring back, many at once, by histograms of idle memory: an open loop with quotas.

Of the idle memory of each bin of idle times a share is out. With each step memory ages from bin to bin and takes its
share along; of what is used again that share comes back; and as much as the quota leaves goes out, the oldest first.
How much that is beside a policy without a quota tells what a quota does; what one without a quota does is what a
what-if of that part of the recording says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.refaults import shares_of_bins
from pydamon.analysis.search.steps import Steps
from pydamon.analysis.search.takes import Takes
from pydamon.analysis.whatif.answers import Answers

F64 = NDArray[np.float64]

_MINUTE_S = 60
_AT_ONCE = 1024  # policies: what they need at a time stays in the cache


@dataclass(frozen=True, slots=True)
class Burden:
    """Of a policy in a part of a recording: bytes out of memory (mean), bytes a minute that come back, and go out."""

    saved: float
    back: float
    out: float


@dataclass(frozen=True, slots=True)
class Foretold:
    """In the part that settings are chosen by, and in the rest."""

    tuned: Burden
    rest: Burden


def foretell(steps: Steps, tuned: Answers, rest: Answers, policies: Sequence[Takes]) -> list[Foretold]:
    """What each of these policies would do; ``tuned`` and ``rest`` are the what-ifs of the two parts."""
    if not policies:
        return []
    ages = sorted({one.age_s for one in policies})
    free = [Takes(age_s, np.inf, 1.0) for age_s in ages]
    sums = np.concatenate([_run(steps, part) for part in _chunks([*free, *policies])], axis=1)
    place = {age_s: at for at, age_s in enumerate(ages)}
    usual = [(_of_answers(tuned, age_s), _of_answers(rest, age_s)) for age_s in ages]
    found = []
    for at, one in enumerate(policies, len(ages)):
        beside = place[one.age_s]
        parts = [
            _beside(usual[beside][part], sums[part, at].tolist(), sums[part, beside].tolist()) for part in range(2)
        ]
        found.append(Foretold(*parts))
    return found


def _chunks(policies: Sequence[Takes]) -> list[Sequence[Takes]]:
    return [policies[at : at + _AT_ONCE] for at in range(0, len(policies), _AT_ONCE)]


def _of_answers(found: Answers, age_s: float) -> Burden:
    """What a what-if says of taking all that is idle for so long, between its rows."""
    ages = [row.age_s for row in found.rows]
    saved, back, out = (
        float(np.interp(age_s, ages, [getattr(row, name) for row in found.rows])) if ages else 0.0
        for name in ("saved", "refaults", "out")
    )
    return Burden(saved, back, out)


def _beside(usual: Burden, mine: Sequence[float], free: Sequence[float]) -> Burden:
    """The burden without a quota, by the shares of it that are left with one."""
    shares = [min(one / of, 1.0) if of > 0 else 1.0 for one, of in zip(mine, free, strict=True)]
    return Burden(usual.saved * shares[0], usual.back * shares[1], usual.out * shares[2])


def _run(steps: Steps, policies: Sequence[Takes]) -> F64:
    """(mean bytes out, bytes that come back and that go out a minute) of both parts. Shape (2, policies, 3)."""
    age, most, window = np.array([[one.age_s, one.most_bytes, one.window_s] for one in policies]).T
    first = max(int(np.searchsorted(steps.bounds_s, age.min(), "right")) - 1, 0)
    flows = _Flows(steps, first)
    taken_from = shares_of_bins(age, flows.bounds_s)
    out_share = np.zeros((len(flows.bounds_s), len(policies)))
    left = np.zeros(len(policies))
    found = np.zeros((2, len(policies), 3))
    seen_s = np.zeros((2, len(policies)))
    began = np.full(len(policies), -1.0)
    for at, end_s in enumerate(steps.ends_s.tolist()):
        part, old = int(at >= steps.tuned), end_s > age
        back = flows.ended[at] @ out_share
        out_share = flows.aged(at, out_share)
        began, left = _allowed(end_s - steps.step_s, steps.step_s, most, window, began, left)
        went = _take(flows.idle[at][:, None], taken_from, out_share, left)
        left = left - went
        out = flows.idle[at] @ out_share
        found[part] += np.stack([np.where(old, out, 0.0), back, went], axis=1)
        seen_s[part] += old * steps.step_s
    found[:, :, 0] *= steps.step_s
    per_s: F64 = found / np.maximum(seen_s, steps.step_s)[:, :, None]
    per_s[:, :, 1:] *= _MINUTE_S
    return per_s


class _Flows:
    """How idle memory moves between bins from one step to the next; only the bins from ``first`` on."""

    def __init__(self, steps: Steps, first: int) -> None:
        self.bounds_s = steps.bounds_s[first:]
        self.idle, self.ended = steps.idle[:, first:], steps.ended[:, first:]
        before = np.concatenate([np.zeros((1, self.idle.shape[1])), self.idle[:-1]])
        self._stays = np.maximum(before - self.ended, 0.0)
        # Into each bin from below comes what it, and all above it, has more, and what of these was used again.
        more = self.idle - before + self.ended
        self._enters = np.maximum(np.cumsum(more[:, ::-1], axis=1)[:, ::-1], 0.0)

    def aged(self, at: int, out_share: F64) -> F64:
        """The shares that are out after memory has moved up."""
        found = np.empty_like(out_share)
        below = np.zeros(out_share.shape[1])  # nothing below the lowest age is out
        stays, enters = self._stays[at].tolist(), self._enters[at].tolist()
        for row, (stay, enter) in enumerate(zip(stays, enters, strict=True)):
            if stay + enter > 0:
                below = (out_share[row] * stay + below * enter) / (stay + enter)
            found[row] = below
        return found


def _allowed(now_s: float, step_s: float, most: F64, window: F64, began: F64, left: F64) -> tuple[F64, F64]:
    """Which window each policy is in at ``now_s``, and what is left of its quota."""
    number = np.floor(now_s / window + 1e-9)
    anew = number > began
    fresh = most * np.maximum(step_s / window, 1.0)
    return np.where(anew, number, began), np.where(anew, fresh, left)


def _take(idle: F64, taken_from: F64, out_share: F64, left: F64) -> F64:
    """Take what is left of the quota, the oldest first: adds to ``out_share``, and gives the bytes."""
    room = np.maximum(taken_from - out_share, 0.0) * idle
    older = np.cumsum(room[::-1], axis=0)[::-1] - room
    taken = np.clip(left - older, 0.0, room)
    out_share += np.divide(taken, idle, out=np.zeros_like(taken), where=idle > 0)
    went: F64 = taken.sum(axis=0)
    return went
