"""Searching the knobs of a policy on a recording: screened by what a what-if tells, the best few played again.

Chosen by the first part of the recording, judged on the rest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

from pydamon.analysis.search import steps as stepwise
from pydamon.analysis.search.frontier import (
    Candidate,
    Verified,
    choose,
    frontier,
    nearest,
    to_verify,
)
from pydamon.analysis.search.limits import Judge, Limit, parse_limit, tightest
from pydamon.analysis.search.screen import Burden, Foretold, foretell
from pydamon.analysis.search.space import Point, Space, parse_space, schemes_of
from pydamon.analysis.search.takes import Takes, takes_of
from pydamon.analysis.whatif.ages import thresholds_s
from pydamon.analysis.whatif.answers import Answers
from pydamon.analysis.whatif.part import COLUMNS, looks_of, part_of
from pydamon.core.panel import BOUNDS_S
from pydamon.errors import RequestError
from pydamon.library import tpe
from pydamon.library.playing import Player
from pydamon.library.policies import Outcome, only_target
from pydamon.library.whatif import what_if
from pydamon.spec.costs import Costs
from pydamon.spec.units import format_duration_ns

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

USUAL_LIMIT = "slowdown=2%"
TUNED = 0.7  # of the recording
_GRID = 2  # knobs, at most, that a grid is laid over
_TIMES = (Fraction(1, 2), Fraction(2))


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What a recording tells of many settings: of each point what is foretold, None where it tells nothing.

    ``usual``: of the module's defaults (None for a scheme). It looks at ``tuned_s``, and the rest.
    """

    of: dict[Point, Foretold | None]
    usual: Foretold | None
    judge: Judge
    memory: float
    tuned_s: float
    rest_s: float
    longest_s: float
    aggr_us: int
    has_panel: bool


def told(
    reader: AnyReader, text: str, points: Sequence[Point], limits: Sequence[Limit], *, costs: Costs, target: int | None
) -> Told:
    """What a recording tells of these ``points`` of the space ``text``; nothing is played. Raises as `search` does."""
    screening = _Screening(reader, parse_space(text), tightest(limits), costs, target, (None, None))
    found = screening.candidates_of(points)
    usual = screening.usual()
    return Told(
        of={point: None if one is None else one.foretold for point, one in zip(points, found, strict=True)},
        usual=None if usual is None or usual.age_s > screening.longest_s else usual.foretold,
        judge=screening.judge,
        memory=screening.tuned.ages.resident,
        tuned_s=screening.tuned_s,
        rest_s=screening.rest_s,
        longest_s=screening.longest_s,
        aggr_us=screening.aggr_us,
        has_panel=screening.has_panel,
    )


@dataclass(frozen=True, slots=True)
class Changed:
    """What becomes of the chosen setting with ``times`` as much of one knob; ``foretold`` None: that cannot be."""

    knob: str
    times: Fraction
    text: str
    foretold: Burden | None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search has found.

    ``front``: of ``screened`` settings those that save more than all that cost less, from the cheapest on.
    ``verified``: those that were played again, ``usual`` the module's defaults for the knobs (None for a scheme);
    ``chosen`` the best of them within the limits (None: none keeps within). ``near``: the chosen one, or the one that
    is nearest to the limits, with one knob changed. ``left_out`` settings wait for longer than ``longest_s``, of which
    the tuned part tells nothing.
    """

    space: Space
    judge: Judge
    seed: int
    tuned_s: float
    rest_s: float
    has_panel: bool
    longest_s: float
    left_out: int
    screened: int
    front: tuple[Candidate, ...]
    verified: tuple[Verified, ...]
    chosen: Verified | None
    usual: Verified | None
    near: tuple[Changed, ...]
    answers: Answers
    screening_s: float
    playing_s: float

    @property
    def nearest(self) -> Verified:
        """The chosen one; where none keeps within the limits, the one that is least beyond."""
        return self.chosen or nearest(self.verified, self.judge)


def search(
    reader: AnyReader,
    text: str,
    limits: Sequence[str | Limit] = (USUAL_LIMIT,),
    *,
    costs: Costs | None = None,
    target: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
) -> Found:
    """The best setting of ``text`` (``reclaim min_age=5s..5min quota=16M..1G``) on one target of a record.

    It saves most within the ``limits`` (``slowdown=2%``). ``jobs`` processes play the recording, None: one per CPU.
    Raises RequestError for what cannot be searched, or on this recording; MachineError where Optuna is needed and
    missing, or a process is killed.
    """
    began = time.monotonic()
    space = parse_space(text)
    kept = tightest([one if isinstance(one, Limit) else parse_limit(one) for one in limits])
    screening = _Screening(reader, space, kept, costs or Costs(), target, (start_ns, end_ns))
    screening.all_points(seed)
    front = screening.front()
    screened_s = time.monotonic() - began
    with Player(reader, screening.target, (start_ns, end_ns), seed, jobs) as player:
        verified, usual = _verify(screening, front, player)
    chosen = choose(verified, screening.judge)
    if chosen is not None and usual is not None:
        chosen = choose([chosen, usual], screening.judge)
    best = chosen or nearest(verified, screening.judge)
    return Found(
        space=space,
        judge=screening.judge,
        seed=seed,
        tuned_s=screening.tuned_s,
        rest_s=screening.rest_s,
        has_panel=screening.has_panel,
        longest_s=screening.longest_s,
        left_out=screening.left_out,
        screened=len(screening.candidates),
        front=tuple(front),
        verified=tuple(verified),
        chosen=chosen,
        usual=usual,
        near=tuple(screening.around(best.candidate.point)),
        answers=screening.tuned,
        screening_s=screened_s,
        playing_s=time.monotonic() - began - screened_s,
    )


def _verify(screening: _Screening, front: list[Candidate], player: Player) -> tuple[list[Verified], Verified | None]:
    """The best around the limit, and once more by what these have cost; and the module's defaults."""
    usual = screening.usual()

    def played(those: list[Candidate]) -> list[Verified]:
        outcomes = player.play([(one.text, screening.space.module) for one in those])
        return [screening.verified(one, outcome) for one, outcome in zip(those, outcomes, strict=True)]

    others = [one for one in screening.candidates.values() if one is not None and one not in front]
    first = to_verify(front, screening.judge, others=others)
    done = played([*first, *([] if usual is None else [usual])])
    default = done.pop() if usual is not None else None
    if more := to_verify(front, screening.judge, done):
        done += played(more)
    return done, default


class _Screening:
    """What each point of the space would do, by the recording's histograms; each is worked out once."""

    def __init__(
        self,
        reader: AnyReader,
        space: Space,
        limits: tuple[Limit, ...],
        costs: Costs,
        target: int | None,
        part: tuple[int | None, int | None],
    ) -> None:
        span, inside, window = part_of(reader, *part)
        if inside[0] >= inside[1]:
            raise RequestError(f"{reader.path} has no snapshot there", where="start_ns, end_ns")
        self.space = space
        self.target = only_target(reader) if target is None else target
        split_ns = inside[0] + round((inside[1] - inside[0]) * TUNED)
        self.tuned_s, self.rest_s = (split_ns - inside[0]) / 1e9, (inside[1] - split_ns) / 1e9
        of_target = {"target": self.target}
        self.tuned = what_if(reader, start_ns=part[0], end_ns=split_ns - span[0], **of_target)
        self._rest = what_if(reader, start_ns=split_ns - span[0], end_ns=part[1], **of_target)
        self._costs = costs
        self.judge = Judge(limits, costs, self.tuned.working_set)
        self.aggr_us = round(self.tuned.ages.thresholds_s[0] * 1e6)
        self.longest_s = max((row.age_s for row in self.tuned.rows if row.seen_s >= row.age_s), default=0.0)
        lowest = self._takes(space.lowest)
        looks = looks_of(reader, inside, self.target).get(self.target, [])
        self.has_panel = bool(looks)
        if looks and lowest.age_s >= BOUNDS_S[1]:
            self._steps = stepwise.of_panel(looks, inside, split_ns)
        else:
            batches = window.of(reader.batches(columns=COLUMNS, target=self.target))
            thresholds = thresholds_s(self.aggr_us / 1e6, (inside[1] - span[0]) / 1e9)
            count = self.tuned.ages.snapshots + self._rest.ages.snapshots
            self._steps = stepwise.of_regions(batches, thresholds, inside, split_ns, count)
        self.candidates: dict[Point, Candidate | None] = {}
        self.left_out = 0
        if lowest.age_s > self.longest_s:
            self._too_short(lowest.age_s)

    def _too_short(self, age_s: float) -> None:
        told, least = (format_duration_ns(round(one * 1e9)) for one in (self.longest_s, age_s))
        length = format_duration_ns(round((self.tuned_s + self.rest_s) * 1e9))
        raise RequestError(
            f"{self.space.source!r} waits for {least} at least; a recording of {length}, of which the first "
            f"{TUNED:.0%} are searched, tells of idle times up to {told}: record longer, or search below that"
        )

    def _takes(self, point: Point) -> Takes:
        return takes_of(self.space.schemes(point), self.aggr_us, self._costs)

    def all_points(self, seed: int) -> None:
        """Work out a grid of one or two knobs, points that are likely to be good of more."""
        values = [knob.values() for knob in self.space.knobs]
        if len(values) <= _GRID:
            self.candidates_of(list(product(*values)))
            return
        first = [tuple(mine[end] for mine in values) for end in (0, -1)]
        tpe.explore(values, [knob.kind == "choice" for knob in self.space.knobs], self._told, first, seed)

    def _told(self, points: list[Point]) -> list[tpe.Told | None]:
        found: list[tpe.Told | None] = []
        for one in self.candidates_of(points):
            if one is None:
                found.append(None)
                continue
            burden = one.foretold.tuned
            beyond = tuple(self.judge.cost(limit, burden) - limit.value for limit in self.judge.limits)
            found.append((burden.saved, self.judge.first(burden), beyond))
        return found

    def candidates_of(self, points: Sequence[Point]) -> list[Candidate | None]:
        """What is foretold of each of these; None of what cannot be, or of which the recording tells nothing."""
        new: list[tuple[Point, Takes]] = []
        for point in dict.fromkeys(points):
            if point in self.candidates:
                continue
            self.candidates[point] = None
            try:
                takes = self._takes(point)
            except RequestError:
                continue
            if takes.age_s > self.longest_s:
                self.left_out += 1
            else:
                new.append((point, takes))
        told = foretell(self._steps, self.tuned, self._rest, [takes for _, takes in new])
        for (point, takes), foretold in zip(new, told, strict=True):
            self.candidates[point] = Candidate(self.space.text(point), point, takes.age_s, foretold)
        return [self.candidates[point] for point in points]

    def front(self) -> list[Candidate]:
        """Those that save more than all that cost less."""
        return frontier([one for one in self.candidates.values() if one is not None], self.judge)

    def usual(self) -> Candidate | None:
        """The module with its defaults for what is searched; None for a scheme, or where a search cannot tell."""
        if not self.space.module:
            return None
        takes = takes_of(schemes_of(self.space.usual, self.space.module), self.aggr_us, self._costs)
        (foretold,) = foretell(self._steps, self.tuned, self._rest, [takes])
        return Candidate(self.space.usual, (), takes.age_s, foretold)

    def verified(self, one: Candidate, outcome: Outcome) -> Verified:
        """What it did; nothing counts before the first memory can be old enough."""
        tuned = Burden(*outcome.between(min(one.age_s, self.tuned_s), self.tuned_s))
        return Verified(one, tuned, Burden(*outcome.between(self.tuned_s, self.tuned_s + self.rest_s)))

    def around(self, point: Point) -> list[Changed]:
        """What half and twice of each number makes of it."""
        found = []
        for at, knob in enumerate(self.space.knobs):
            if knob.kind == "choice" or not point:
                continue
            for times in _TIMES:
                changed = (*point[:at], knob.scaled(point[at], times), *point[at + 1 :])
                (one,) = self.candidates_of([changed])
                text = knob.write(changed[at])
                found.append(Changed(knob.name, times, text, None if one is None else one.foretold.tuned))
        return found
