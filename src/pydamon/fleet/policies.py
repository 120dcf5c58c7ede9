"""One setting of a policy for each service, searched on recordings of many hosts.

Each recording tells of the same settings what they would save and cost (`library.search.told`): a task of its own. A
service gets the setting that saves most of all those that keep within the limits on as many of its recordings as is
asked for, by the first part of each; on the few of its recordings where that costs most it is played again, and a more
careful one is looked for where it costs too much. It is judged on the rest of each recording.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import wilson
from pydamon.analysis.search.limits import parse_limit
from pydamon.analysis.search.screen import Burden, Foretold
from pydamon.analysis.search.space import Point, Space, parse_space, schemes_of
from pydamon.analysis.search.takes import takes_of
from pydamon.errors import PydamonError, RequestError
from pydamon.fleet.tasks import Tasks
from pydamon.library.policies import Recording
from pydamon.library.search import USUAL_LIMIT, told
from pydamon.records.joined import open_record
from pydamon.records.schema import TargetInfo
from pydamon.spec.costs import Costs

F64 = NDArray[np.float64]

MOST_POINTS = 1024
MOST_TARGETS = 256  # of a recording
ROUNDS = 3  # of playing
UNNAMED = "(unnamed)"


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched: a policy as text, limits as text, and on what share of a service's recordings they must hold.

    ``by``: what makes a service, the ``command`` of the target or the ``folder`` that the recording is in.
    ``play``: on how many recordings of a service a setting is played again, 0: on none.
    """

    text: str
    limits: tuple[str, ...] = (USUAL_LIMIT,)
    share: float = 0.95
    by: str = "command"
    play: int = 3
    seed: int = 0
    costs: Costs = field(default_factory=Costs)


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one target of a recording tells of all settings, the module's defaults last.

    ``saved`` in bytes and ``excess`` (times the limit: up to 1 is within) have the shape (2, settings + 1): the part
    they are chosen by, and the rest; NaN where it tells nothing.
    """

    path: str
    target: int
    service: str
    command: str
    memory: float
    seconds: float
    saved: F64
    excess: F64


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A recording that tells nothing, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Played:
    """A setting on a recording that was played again: times the limit that it cost, then and as it was foretold."""

    path: str
    excess: float
    foretold: float


@dataclass(frozen=True, slots=True)
class Policy:
    """What was found for a service. ``text`` None: no setting keeps within the limits, the others are of the nearest.

    ``saved`` and ``usual_saved`` (NaN for a scheme, or where nothing tells): bytes over all its recordings, on the rest
    of each; ``within``: on how many of them it kept within the limits there, and between what their share lies (95 %).
    """

    service: str
    commands: tuple[str, ...]
    recordings: int
    hours: float
    memory: float
    text: str | None
    nearest: str
    saved: float
    within: int
    share: tuple[float, float]
    usual_saved: float
    usual_within: int
    played: tuple[Played, ...]
    careful: float  # times more careful than what is foretold asks for, since playing cost so much more


@dataclass(frozen=True, slots=True)
class Found:
    """A policy for each service, those with most memory first, and what was left out."""

    question: Question
    settings: int
    policies: tuple[Policy, ...]
    left_out: tuple[LeftOut, ...]


def search(paths: Sequence[str], question: Question, tasks: Tasks) -> Found:
    """Search on all of these. Raises RequestError for a question that cannot be, or where no recording tells."""
    if not 0 < question.share <= 1:
        raise RequestError("must be above 0 and at most 1", where="share")
    space = parse_space(question.text)
    for limit in question.limits:
        parse_limit(limit)
    points = points_of(space)
    heard: list[Told] = []
    left_out: list[LeftOut] = []
    for answer in tasks.run(_told_by, [(path, question, points) for path in paths]):
        for one in answer:
            if isinstance(one, Told):
                heard.append(one)
            else:
                left_out.append(one)
    if not heard:
        why = f": {left_out[0].path}: {left_out[0].reason}" if left_out else ""
        raise RequestError(f"none of {len(paths)} recordings tells of any setting{why}")
    services = sorted({one.service for one in heard})
    texts = [space.text(point) for point in points] + [space.usual]
    found = [
        _for_service(name, [one for one in heard if one.service == name], texts, space, question, tasks)
        for name in services
    ]
    found.sort(key=lambda one: (-one.memory, one.service))
    return Found(question, len(points), tuple(found), tuple(left_out))


def points_of(space: Space, most: int = MOST_POINTS) -> list[Point]:
    """A grid over all knobs of at most ``most`` points, the ends of each among them."""
    values = [knob.values() for knob in space.knobs]
    a_knob = max(int(most ** (1 / len(values)) + 1e-9), 2)
    # What knobs of few values leave, the others may have.
    for at in sorted(range(len(values)), key=lambda at: len(values[at])):
        if len(values[at]) > a_knob:
            kept = np.unique(np.round(np.linspace(0, len(values[at]) - 1, a_knob)).astype(int))
            values[at] = [values[at][one] for one in kept.tolist()]
        left = [len(one) for one in values if len(one) > a_knob]
        if left:
            done = math.prod(len(one) for one in values if len(one) <= a_knob)
            a_knob = max(int((most / done) ** (1 / len(left)) + 1e-9), 2)
    return list(product(*values))


# -- a recording: these run wherever tasks run ----------------------------------------------------------------------


def _told_by(asked: tuple[str, Question, list[Point]]) -> list[Told | LeftOut]:
    path, question, points = asked
    found: list[Told | LeftOut] = []
    try:
        with open_record(path) as reader:
            targets = list(reader.info.targets) or [TargetInfo(0)]
            if len(targets) > MOST_TARGETS:
                found.append(LeftOut(path, f"has {len(targets)} targets; the first {MOST_TARGETS} are looked at"))
            for target in targets[:MOST_TARGETS]:
                try:
                    limits = [parse_limit(one) for one in question.limits]
                    answer = told(reader, question.text, points, limits, costs=question.costs, target=target.target)
                except PydamonError as error:
                    found.append(LeftOut(path, str(error)))
                    continue
                burdens = [*(answer.of[point] for point in points), answer.usual]
                found.append(
                    Told(
                        path=path,
                        target=target.target,
                        service=service_of(path, target, question.by),
                        command=command_of(target),
                        memory=answer.memory,
                        seconds=answer.tuned_s + answer.rest_s,
                        saved=_table(burdens, lambda burden: burden.saved),
                        excess=_table(burdens, answer.judge.excess),
                    )
                )
    except PydamonError as error:
        found.append(LeftOut(path, str(error)))
    except OSError as error:
        found.append(LeftOut(path, error.strerror or str(error)))
    return found


def service_of(path: str, target: TargetInfo, by: str) -> str:
    """The service that a target belongs to."""
    if by == "folder":
        return os.path.basename(os.path.dirname(os.path.abspath(path))) or UNNAMED
    return command_of(target) or UNNAMED


def command_of(target: TargetInfo) -> str:
    """The name of the program that a target runs; empty where the recording does not say."""
    words = (target.command or "").split()
    return os.path.basename(words[0].rstrip("/:")) if words else ""


def _table(burdens: Sequence[Foretold | None], measure: Callable[[Burden], float]) -> F64:
    rows = [[np.nan, np.nan] if one is None else [measure(one.tuned), measure(one.rest)] for one in burdens]
    return np.array(rows, np.float64).T


def _played_by(asked: tuple[str, int, str, Question]) -> float:
    """How many times the limit a setting costs when one recording is played again, in the part it is chosen by."""
    path, target, text, question = asked
    space = parse_space(question.text)
    with open_record(path) as reader:
        limits = [parse_limit(one) for one in question.limits]
        answer = told(reader, question.text, [], limits, costs=question.costs, target=target)
        schemes = schemes_of(text, space.module)
        outcome = Recording(reader, target=target).play(text, schemes, seed=question.seed)
    age_s = takes_of(schemes, answer.aggr_us, question.costs).age_s
    return answer.judge.excess(Burden(*outcome.between(min(age_s, answer.tuned_s), answer.tuned_s)))


# -- a service ------------------------------------------------------------------------------------------------------


def _for_service(
    service: str, heard: Sequence[Told], texts: Sequence[str], space: Space, question: Question, tasks: Tasks
) -> Policy:
    saved, excess = np.stack([one.saved for one in heard]), np.stack([one.excess for one in heard])
    needed = math.ceil(question.share * len(heard) - 1e-9)
    usable = len(texts) if space.module else len(texts) - 1
    tuned = saved[:, 0, :usable], excess[:, 0, :usable]
    chosen, played, careful = None, list[Played](), 1.0
    for _ in range(ROUNDS):
        chosen = _best(tuned[0], tuned[1] * careful, needed)
        played = [] if chosen is None else _play(texts[chosen], chosen, heard, question, tasks)
        if chosen is None:
            break
        # Played are those that are foretold to be within: the others are beyond already.
        kept = int((tuned[1][:, chosen] <= 1).sum()) - sum(one.excess > 1 for one in played)
        if kept >= needed:
            break
        careful *= _more_careful(played)
        chosen = None
    at = chosen if chosen is not None else _nearest(tuned[1], needed)
    within = int((excess[:, 1, at] <= 1).sum())
    usual = saved[:, 1, -1]
    return Policy(
        service=service,
        commands=tuple(sorted({one.command for one in heard} - {""})),
        recordings=len(heard),
        hours=sum(one.seconds for one in heard) / 3600,
        memory=sum(one.memory for one in heard),
        text=None if chosen is None else texts[chosen],
        nearest=texts[at],
        saved=float(np.nansum(saved[:, 1, at])),
        within=within,
        share=wilson(within / len(heard), len(heard)),
        usual_saved=float(np.nansum(usual)) if space.module and np.isfinite(usual).any() else math.nan,
        usual_within=int((excess[:, 1, -1] <= 1).sum()),
        played=tuple(played) if chosen is not None else (),
        careful=careful,
    )


def _best(saved: F64, excess: F64, needed: int) -> int | None:
    """The setting that saves most of those within the limits on so many recordings; what is not told is not within."""
    fits = (excess <= 1).sum(axis=0) >= needed  # NaN is not
    if not fits.any():
        return None
    total = np.where(fits, np.nansum(saved, axis=0), -np.inf)
    return int(np.argmax(total))


def _nearest(excess: F64, needed: int) -> int:
    """The setting whose costs on so many recordings are the least beyond."""
    ordered = np.sort(np.where(np.isnan(excess), np.inf, excess), axis=0)
    return int(np.argmin(ordered[max(needed - 1, 0)]))


def _play(text: str, at: int, heard: Sequence[Told], question: Question, tasks: Tasks) -> list[Played]:
    """Played again where it costs most, of what is foretold to be within."""
    costs = [(float(one.excess[0, at]), index) for index, one in enumerate(heard)]
    worst = sorted(((cost, index) for cost, index in costs if cost <= 1), reverse=True)[: question.play]
    those = [heard[index] for _, index in worst]
    found = tasks.run(_played_by, [(one.path, one.target, text, question) for one in those])
    return [Played(one.path, cost, foretold) for one, cost, (foretold, _) in zip(those, found, worst, strict=True)]


def _more_careful(played: Sequence[Played]) -> float:
    """By how much more these cost than was foretold (median), and a little more: at least a tenth."""
    ratios = [one.excess / one.foretold for one in played if one.foretold > 0]
    return max(float(np.median(ratios)) if ratios else 1.0, 1.0) * 1.1


def recordings_in(places: Sequence[str], most: int = 100_000) -> list[str]:
    """The files that are named, and all ``*.damon`` below named folders. Raises RequestError for what is not there."""
    found: dict[str, None] = {}
    for place in places:
        inside = _below(place) if os.path.isdir(place) else [place]
        if not os.path.exists(place):
            raise RequestError("does not exist", where=place)
        for path in inside:
            found[path] = None
            if len(found) > most:
                raise RequestError(f"more than {most:,} recordings", where=place)
    if not found:
        raise RequestError(f"no *.damon below {', '.join(places)}")
    return list(found)


def _below(folder: str) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(at, name) for name in sorted(files) if name.endswith(".damon"))
