"""Of many policies the few that are worth a look: none saves more for less; which of them to verify, and to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from pydamon.analysis.search.limits import Judge
from pydamon.analysis.search.screen import Burden, Foretold
from pydamon.analysis.search.space import Point

VERIFIED, MORE = 5, 3
_MORE = 1.001  # times as much has to be saved for a point to be worth more cost
_ALIKE, _ALIKE_COST = 0.02, 0.2
# What may be off by so much: such times the limit, those nearest below are played again.
_AROUND = (1.0, 1.35, 0.7, 1.8, 0.45, 0.25)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy as it is written, where it stands in the space (empty: nowhere), and what is foretold of it.

    It takes what was idle for ``age_s``.
    """

    text: str
    point: Point
    age_s: float
    foretold: Foretold


@dataclass(frozen=True, slots=True)
class Verified:
    """What a policy did when the recording was played again, in the part it was chosen by and in the rest."""

    candidate: Candidate
    tuned: Burden
    rest: Burden


def frontier(candidates: Sequence[Candidate], judge: Judge) -> list[Candidate]:
    """Those that save more than all that cost less, by the first limit; from the cheapest on."""
    order = sorted(candidates, key=lambda one: (judge.first(one.foretold.tuned), -one.foretold.tuned.saved, one.point))
    found: list[Candidate] = []
    for one in order:
        if not found or one.foretold.tuned.saved > found[-1].foretold.tuned.saved * _MORE:
            found.append(one)
    return found


def to_verify(
    front: Sequence[Candidate], judge: Judge, done: Sequence[Verified] = (), others: Sequence[Candidate] = ()
) -> list[Candidate]:
    """At most `VERIFIED` that save most around the limit; where the frontier has fewer, of ``others`` beside it.

    After some are ``done``, at most `MORE` that may be better, by what these have cost beside what was foretold of
    them: those between the best that keeps within the limits and the next that does not.
    """
    ratios = [judge.excess(one.tuned) / foretold for one in done if (foretold := _excess(one.candidate, judge)) > 0]
    times = max(median(ratios), 0.05) if ratios else 1.0
    best = choose(done, judge)
    least = 0.0 if best is None else _saved(best.candidate)
    most = min((_saved(one.candidate) for one in done if not judge.fits(one.tuned)), default=inf)
    known = [one.candidate for one in done]
    left = [one for one in front if least < _saved(one) < most and not any(_alike(one, old, judge) for old in known)]
    found: list[Candidate] = []
    for share in _AROUND:
        within = [one for one in left if _excess(one, judge) * times <= share]
        within = [one for one in within if not any(_alike(one, other, judge) for other in found)]
        if within and len(found) < (MORE if done else VERIFIED):
            found.append(max(within, key=_saved))
    for one in sorted(others, key=lambda one: (-_saved(one), one.point)):
        if len(found) < VERIFIED and not any(_alike(one, other, judge) for other in found):
            found.append(one)
    return found or sorted(left, key=lambda one: _excess(one, judge))[: MORE if done else VERIFIED]


def _alike(one: Candidate, other: Candidate, judge: Judge) -> bool:
    """Whether they save and cost nearly the same."""
    near = abs(_saved(one) - _saved(other)) <= _ALIKE * max(_saved(one), _saved(other))
    return near and abs(_excess(one, judge) - _excess(other, judge)) <= _ALIKE_COST * _excess(one, judge)


def choose(done: Sequence[Verified], judge: Judge) -> Verified | None:
    """The one that saved most within the limits; None if none kept within."""
    within = [one for one in done if judge.fits(one.tuned)]
    return max(within, key=lambda one: one.tuned.saved, default=None)


def nearest(done: Sequence[Verified], judge: Judge) -> Verified:
    """The one that was least beyond the limits."""
    return min(done, key=lambda one: judge.excess(one.tuned))


def _excess(one: Candidate, judge: Judge) -> float:
    return judge.excess(one.foretold.tuned)


def _saved(one: Candidate) -> float:
    return one.foretold.tuned.saved
