"""One setting for each service, from what many recordings tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.unit.cli.what_if_helpers import play_nothing, recorded, sweep

from pydamon.analysis.search.space import parse_space
from pydamon.errors import RequestError
from pydamon.fleet import policies
from pydamon.fleet.policies import LeftOut, Question, Told, points_of, recordings_in, search
from pydamon.fleet.policy_file import service_file
from pydamon.fleet.tasks import Here
from pydamon.library.search import search as search_one
from pydamon.records.joined import open_record
from pydamon.service.declared.file import understand

TWO = "reclaim min_age=10s|30s"  # two settings
QUESTION = Question(TWO, ("slowdown=2%",), play=0)
RISKY, SAFE = "reclaim min_age=10s", "reclaim min_age=30s"


def heard(number: int, saved: Sequence[float], excess: Sequence[float], command: str = "redis-server") -> Told:
    """What a recording tells of the two settings, and of the default; the rest as the part they are chosen by."""
    both = [np.tile(np.array(values, np.float64), (2, 1)) for values in (saved, excess)]
    return Told(f"/r/{number}.damon", 0, command, command, 1000.0, 600.0, *both)


class Said:
    """Stands for the recordings: what they tell, and what playing a setting on one costs."""

    def __init__(self, *those: Told | LeftOut, costs: dict[str, float] | None = None) -> None:
        self.those, self.costs, self.played = those, costs or {}, list[tuple[str, str]]()

    def run(self, work: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
        if work is policies._told_by:
            return [[one] for one in self.those]
        self.played += [(path, text) for path, _, text, _ in things]
        return [self.costs[text] for _, _, text, _ in things]


def of_ten(**options: Any) -> tuple[Said, Question]:
    """Ten recordings: the risky setting saves more, and on one of them costs too much."""
    those = [heard(number, (100, 60, 50), (0.5, 0.2, 0.1)) for number in range(9)]
    return Said(*those, heard(9, (100, 60, 50), (1.5, 0.3, 0.1)), **options), QUESTION


@pytest.mark.parametrize(("share", "text"), [(0.95, SAFE), (0.91, SAFE), (0.9, RISKY), (0.5, RISKY)])
def test_the_limits_hold_on_the_share_that_is_asked_for(share: float, text: str) -> None:
    said, question = of_ten()
    (found,) = search(["x"] * 10, replace(question, share=share), said).policies
    assert found.text == text
    assert found.saved == (1000 if text == RISKY else 600)
    assert found.within == (9 if text == RISKY else 10)


def test_what_a_recording_does_not_tell_is_not_within() -> None:
    those = [heard(number, (100, 60, math.nan), (0.5, 0.2, math.nan)) for number in range(3)]
    said = Said(*those, heard(3, (math.nan, 60, math.nan), (math.nan, 0.2, math.nan)))
    (found,) = search(["x"] * 4, QUESTION, said).policies
    assert found.text == SAFE
    assert math.isnan(found.usual_saved)


def test_the_default_is_taken_where_nothing_is_better() -> None:
    said = Said(heard(0, (100, 60, 90), (1.5, 0.2, 0.9)))
    (found,) = search(["x"], QUESTION, said).policies
    assert found.text == "reclaim"


def test_nothing_within_the_limits_is_said_with_the_nearest() -> None:
    said = Said(heard(0, (100, 60, 90), (1.5, 1.2, 1.9)), heard(1, (100, 60, 90), (1.5, 1.2, 1.9)))
    (found,) = search(["x"], QUESTION, said).policies
    assert (found.text, found.nearest, found.within) == (None, SAFE, 0)


def test_a_setting_that_costs_too_much_when_played_gives_way_to_a_more_careful_one() -> None:
    said, _ = of_ten(costs={RISKY: 1.4, SAFE: 0.9})
    question = replace(QUESTION, share=0.9, play=2)
    (found,) = search(["x"] * 10, question, said).policies
    assert found.text == SAFE
    assert [text for _, text in said.played] == [RISKY, RISKY, SAFE, SAFE]
    # The tenth is beyond as it is foretold, so played are others; two beyond are one more than may be.
    assert found.careful == pytest.approx(1.4 / 0.5 * 1.1)
    assert [one.excess for one in found.played] == [0.9, 0.9]


def test_what_is_foretold_to_be_beyond_counts_with_what_is_played_beyond() -> None:
    """Nine of ten must be within, the tenth is not as foretold: one more that is not is too many."""
    said, _ = of_ten(costs={RISKY: 1.4, SAFE: 0.9})
    (found,) = search(["x"] * 10, replace(QUESTION, share=0.9, play=1), said).policies
    assert (found.text, [text for _, text in said.played]) == (SAFE, [RISKY, SAFE])


def test_playing_that_never_keeps_within_ends_with_none() -> None:
    said, _ = of_ten(costs={RISKY: 9.0, SAFE: 9.0, "reclaim": 9.0})
    (found,) = search(["x"] * 10, replace(QUESTION, play=2), said).policies
    assert (found.text, found.played) == (None, ())


def test_services_are_apart_and_those_with_most_memory_first() -> None:
    those = [heard(0, (100, 60, 50), (2, 0.2, 0.1), "nginx"), *(heard(n, (9, 5, 1), (0.1, 0.1, 0.1)) for n in (1, 2))]
    found = search(["x"], QUESTION, Said(*those, LeftOut("/bad", "is no record")))
    assert [(one.service, one.text, one.recordings) for one in found.policies] == [
        ("redis-server", RISKY, 2), ("nginx", SAFE, 1)
    ]  # fmt: skip
    assert found.left_out == (LeftOut("/bad", "is no record"),)


def test_recordings_that_tell_nothing_are_refused_with_the_first_reason() -> None:
    with pytest.raises(RequestError, match="none of 2 recordings tells of any setting: /bad: is no record"):
        search(["x"] * 2, QUESTION, Said(LeftOut("/bad", "is no record"), LeftOut("/worse", "is empty")))


@pytest.mark.parametrize(
    "text",
    ["reclaim min_age=5s..5min", "reclaim min_age=5s..5min quota=1M..1G",
     "reclaim min_age=5s..5min quota=1M..1G/1s..1min", "pageout rate=0% age>=5s..5min quota=1M..1G/1s..1min"],
)  # fmt: skip
def test_a_grid_over_all_knobs_is_bounded_and_has_their_ends(text: str) -> None:
    space = parse_space(text)
    points = points_of(space)
    assert len(points) == len(set(points)) <= 1024
    for at, knob in enumerate(space.knobs):
        mine = {point[at] for point in points}
        assert {knob.low, knob.high} <= mine <= set(knob.values())


@pytest.fixture(scope="module", name="folder")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of a workload."""
    folder = tmp_path_factory.mktemp("fleet")
    for host in ("a", "b"):
        (folder / "batch" / host).mkdir(parents=True)
        recorded(folder / "batch" / host, sweep(120)).rename(folder / "batch" / f"{host}.damon")
    return folder


def test_of_one_recording_it_is_what_a_search_on_it_foretells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`what-if --search` is the second way of computing the same: the best of its frontier within the limit."""
    play_nothing(monkeypatch)
    text, limit = "reclaim min_age=5s..40s quota=4M..64M", "refaults=512KiB/s"
    path = str(folder / "batch" / "a.damon")
    question = Question(text, (limit,), by="folder", play=0)
    (found,) = search([path], question, Here()).policies
    with open_record(path) as reader:
        other = search_one(reader, text, (limit,), jobs=1)
    best = max(
        (one for one in other.front if other.judge.fits(one.foretold.tuned)), key=lambda one: one.foretold.tuned.saved
    )
    assert found.text == best.text
    assert found.saved == best.foretold.rest.saved
    assert found.service == "batch"


def test_it_is_played_again_and_kept_within(folder: Path) -> None:
    question = Question("reclaim min_age=5s..40s", ("refaults=2MiB/s",), by="folder", play=1)
    found = search(recordings_in([str(folder)]), question, Here())
    (policy,) = found.policies
    assert policy.recordings == 2
    assert policy.text is not None
    assert len(policy.played) == 1
    assert policy.played[0].excess <= 1


def test_files_and_folders_are_taken_in_order_once(folder: Path) -> None:
    path = str(folder / "batch" / "b.damon")
    assert recordings_in([path, str(folder)]) == [path, str(folder / "batch" / "a.damon")]
    with pytest.raises(RequestError, match=r"missing: does not exist"):
        recordings_in([str(folder / "missing")])
    (folder / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no \*\.damon below"):
        recordings_in([str(folder / "empty")])


class TestServiceFile:
    def test_it_is_one_that_the_service_reads(self) -> None:
        those = [
            heard(0, (100, 60, 50), (2, 0.2, 0.1), "nginx"),
            *(heard(n, (9, 5, 1), (0.1, 0.1, 0.1)) for n in (1, 2)),
        ]
        text, remarks = service_file(search(["x"], QUESTION, Said(*those)), "policy.yaml")
        service = understand(text.encode(), "/x/policy.yaml")
        assert [one.name for one in service.monitors] == ["redis-server", "nginx"]
        assert [one.modules for one in service.monitors] == [("reclaim",), ("reclaim",)]
        written = yaml.safe_load(text)["monitors"]
        assert [(one["match"], one["modules"]) for one in written] == [
            ({"name": ["redis-server"]}, [RISKY]), ({"name": ["nginx"]}, [SAFE])
        ]  # fmt: skip
        assert remarks == []

    def test_what_cannot_be_in_it_is_said(self) -> None:
        hostile = "x: {y}\n# \x1b" + "z" * 100
        those = [
            heard(0, (9, 5, 1), (0.1, 0.1, 0.1), hostile),
            heard(1, (9, 5, 1), (2, 2, 2), "beyond"),
            heard(2, (9, 5, 1), (0.1, 0.1, 0.1), "a*"),
            replace(heard(3, (9, 5, 1), (0.1, 0.1, 0.1), "other"), command=hostile, memory=1.0),
        ]
        text, remarks = service_file(search(["x"], QUESTION, Said(*those)), "policy.yaml")
        (monitor,) = understand(text.encode(), "/x/policy.yaml").monitors
        match = monitor.spec.kdamonds[0].contexts[0].targets[0].match
        assert match is not None
        assert match.names == (hostile,)
        assert sorted(line.partition(" is not in the file: ")[2].split(" (")[0] for line in remarks) == [
            "its recordings name no program", "no setting keeps within the limits", "what it runs"
        ]  # fmt: skip

    def test_with_nothing_to_write_it_is_refused(self) -> None:
        with pytest.raises(RequestError, match="no service has a setting that could be written"):
            service_file(search(["x"], QUESTION, Said(heard(0, (9, 5, 1), (2, 2, 2)))), "policy.yaml")
