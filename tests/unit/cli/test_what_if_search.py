"""``pydamon what-if --search``: what is found on a recording, against playing all of a grid; and what is refused."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.what_if_helpers import MIB, play_nothing, recorded, told

from pydamon.analysis.search.limits import Judge, parse_limit
from pydamon.analysis.search.screen import Burden
from pydamon.analysis.search.space import parse_space
from pydamon.analysis.whatif.limits import for_slowdown
from pydamon.cli import main
from pydamon.library.policies import Outcome, Recording
from pydamon.library.search import TUNED, Found, search
from pydamon.library.whatif import what_if
from pydamon.records.joined import open_record
from pydamon.spec.costs import Costs

# Of 50 million accesses a second: 32 MiB always, 24 MiB every 6 s, 32 MiB every 20 s, 24 MiB every 45 s, 48 MiB never.
MIX = """#regions
hot, 32 MiB
six, 24 MiB
half, 32 MiB
minute, 24 MiB
unused, 48 MiB

day
200000
hot, 0, 4096, 49997429
six, 0, 4096, 1024
half, 0, 4096, 410
minute, 0, 4096, 137
"""
AGES = "reclaim min_age=5s..60s quota=off"
GRID = "reclaim min_age=8s|30s quota=2MiB|16MiB"


@pytest.fixture(scope="module", name="mix")
def mix_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred seconds, with a page panel."""
    return recorded(tmp_path_factory.mktemp("search"), MIX)


@pytest.fixture(name="unplayed")
def unplayed_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is played again: every policy saves a tenth of it, at no cost."""

    play_nothing(monkeypatch)


def found_in(path: Path, text: str, *limits: str, **options: Any) -> Found:
    """What a search finds, in this process."""
    with open_record(str(path)) as reader:
        return search(reader, text, limits or ("slowdown=2%",), jobs=1, **options)


@pytest.mark.usefixtures("unplayed")
def test_one_knob_has_the_idle_time_that_a_what_if_has(mix: Path) -> None:
    """As it is foretold: the lowest that keeps within the limit, in the part that settings are chosen by."""
    found = found_in(mix, AGES, "slowdown=0.5%")
    with open_record(str(mix)) as reader:
        first, last = reader.time_range() or (0, 0)
        tuned = what_if(reader, end_ns=round((last - first) * TUNED))
    lowest = for_slowdown(tuned, 0.005, Costs(), "zram").row
    assert lowest is not None
    within = [one for one in found.front if found.judge.fits(one.foretold.tuned)]
    best = max(within, key=lambda one: one.foretold.tuned.saved)
    assert best.point == (round(lowest.age_s * 1e6),)
    assert (best.foretold.tuned.saved, best.foretold.tuned.back) == (lowest.saved, lowest.refaults)


@pytest.fixture(scope="module", name="all_of_it")
def all_of_it_fixture(mix: Path) -> dict[str, tuple[Outcome, int]]:
    """What each point of the grid does when it is played, and its idle time in s."""
    space = parse_space(GRID)
    with open_record(str(mix)) as reader:
        recording = Recording(reader)
        return {
            space.text(point): (recording.play(space.text(point), space.schemes(point)), (8, 30)[point[0]])
            for point in product(*(knob.values() for knob in space.knobs))
        }


@pytest.mark.parametrize("limit", ["refaults=3MiB/s", "refaults=512KiB/s"])
def test_it_is_as_good_as_playing_all_of_a_grid(
    mix: Path, all_of_it: dict[str, tuple[Outcome, int]], limit: str
) -> None:
    """On the part that is judged, the chosen setting saves nearly as much as the best of all that keep within."""
    found = found_in(mix, GRID, limit)
    judge = Judge((parse_limit(limit),), Costs(), found.judge.working_set)
    both = {
        text: (
            Burden(*outcome.between(age_s, found.tuned_s)),
            Burden(*outcome.between(found.tuned_s, found.tuned_s + found.rest_s)),
        )
        for text, (outcome, age_s) in all_of_it.items()
    }
    best = max((one for one in both.values() if judge.fits(one[0])), key=lambda one: one[0].saved)
    assert found.chosen is not None
    assert found.chosen.tuned == both[found.chosen.candidate.text][0]
    assert found.chosen.rest.saved >= best[1].saved * 0.97


@pytest.mark.usefixtures("unplayed")
def test_the_same_seed_finds_the_same(mix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three knobs, for which Optuna draws: the frontier, what is played and what it did; another seed differs."""
    pytest.importorskip("optuna")
    monkeypatch.setattr("pydamon.library.tpe.TRIALS", 160)  # the first 128 of which are drawn at random
    text = "reclaim min_age=5s..60s quota=2M..64M/1s..20s"
    one, other, third = (found_in(mix, text, "slowdown=0.3%", seed=seed) for seed in (3, 3, 4))
    assert (one.front, one.verified, one.chosen, one.near) == (other.front, other.verified, other.chosen, other.near)
    assert one.screened > 100
    assert one.front != third.front


def test_text_ends_with_a_line_that_can_be_used(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["what-if", str(mix), "--search", AGES, "--limit", "refaults=64MiB/s", "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    chosen = next(line for line in out.splitlines() if line.startswith("* "))
    policy = chosen[2:].partition("  ")[0]
    assert out.splitlines()[-1] == f"pydamon start --module '{policy}'"
    assert "chosen by the first 2 min 20 s, judged on the 1 min after that" in out
    assert "min_age: half of it (" in out
    assert policy == "reclaim min_age=5s quota=off"  # nothing keeps it from the most
    assert "min_age: 5s is the lowest that was searched; what is below may be better" in err
    assert "searched as if always active" in err


def test_json_and_a_picture_of_the_frontier(mix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "frontier.svg"
    limits = ["--limit", "refaults=2MiB/s", "--limit", "slowdown=1%"]
    found = told(capsys, mix, "--search", AGES, *limits, "--jobs", "1", "-o", str(drawn))
    for words in ("Saved at which refaults", "the same on the rest", "the default", "chosen"):
        assert words in drawn.read_text()
    assert [limit["kind"] for limit in found["limits"]] == ["refault-bytes", "slowdown"]
    assert found["tuned_s"] == pytest.approx(140, abs=1)
    best = found["chosen"]
    assert best["within"]
    assert best["played"]["tuned"]["costs"][0] <= 2 * MIB
    saved = [one["foretold"]["tuned"]["saved_bytes"] for one in found["frontier"]]
    assert saved == sorted(saved)
    assert best["policy"] in [one["policy"] for one in found["played"]]
    assert found["default"]["policy"] == "reclaim quota=off"
    assert {one["knob"] for one in found["sensitivity"]} == {"min_age"}
    assert found["command"].endswith(f"'{best['policy']}'")


@pytest.mark.usefixtures("unplayed")
def test_a_scheme_is_searched_too(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no defaults."""
    text = "pageout rate=0% age>=8s..60s"
    found = told(capsys, mix, "--search", text, "--limit", "refaults=2MiB/s", "--jobs", "1")
    assert found["default"] is None
    assert found["command"].startswith("pydamon start --scheme 'pageout rate=0% age>=")


def test_a_limit_that_nothing_reaches(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All is printed, with the nearest; the status says that it did not work."""
    capsys.readouterr()
    text = "reclaim min_age=5s..8s quota=off"
    assert main(["what-if", str(mix), "--search", text, "--limit", "refaults=4KiB/s", "--json", "--jobs", "1"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["chosen"] is None
    cost = {one["policy"]: one["played"]["tuned"]["costs"][0] for one in found["played"]}
    policy = found["nearest"]["policy"]
    assert cost[policy] == min(cost.values()) > 4096
    assert f"--limit: no setting keeps within refaults=4KiB/s; the nearest, '{policy}', has " in err
    assert any("would thrash" in line for line in found["remarks"])


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize(("share", "value"), [("1.23456789%", 0.0123456789), ("0.00001%", 1e-7)])
def test_the_limit_is_slowdown_where_none_is_given(
    mix: Path, capsys: pytest.CaptureFixture[str], share: str, value: float
) -> None:
    """Exactly, however small it is."""
    found = told(capsys, mix, "--search", AGES, "--slowdown", share, "--jobs", "1")
    assert [(limit["kind"], limit["value"]) for limit in found["limits"]] == [("slowdown", value)]


@pytest.mark.usefixtures("unplayed")
def test_idle_times_that_the_recording_cannot_tell_are_left_out(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 140 s half: 60 s are told of, not 10 min."""
    found = told(capsys, mix, "--search", "reclaim min_age=30s..10min quota=off", "--jobs", "1")
    assert found["left_out"] > 0
    assert any("settings wait for longer than 1 min," in line for line in found["remarks"])
    assert all("min" not in one["knobs"]["min_age"] or one["knobs"]["min_age"] == "1min" for one in found["frontier"])


@pytest.mark.usefixtures("unplayed")
def test_without_a_panel_it_says_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path, MIX, "--panel", "0")
    found = told(capsys, path, "--search", AGES, "--limit", "refaults=2MiB/s", "--jobs", "1")
    assert any("there is no page panel" in line for line in found["remarks"])
    assert found["frontier"]


@pytest.mark.usefixtures("unplayed")
def test_a_recording_whose_schemes_acted_is_biased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path, MIX, "--scheme", "pageout rate=0% age>=10s")
    found = told(capsys, path, "--search", AGES, "--limit", "refaults=8MiB/s", "--jobs", "1")
    assert any("schemes acted while it was recorded (pageout)" in line for line in found["remarks"])


def test_without_optuna_one_line_names_the_extra(
    mix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    capsys.readouterr()
    text = "reclaim min_age=5s..60s quota=2M..64M/1s..20s"
    assert main(["what-if", str(mix), "--search", text]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "pydamon: --search: more than two knobs need Optuna: pip install 'pydamon[search]'\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--search", "reclaim min_age=5min..5s"], "--search: min_age: 5min..5s is empty"),
        (["--search", "reclaim nothing=1..2"], "--search: reclaim: there is no knob 'nothing'"),
        (["--search", "reclaim min_age=30s"], "--search: 'reclaim min_age=30s' has nothing to search for"),
        (["--search", "reclaim min_age=5s..5min files=only"], "--search: has filters"),
        (["--search", AGES, "--limit", "speed=1%"], "--limit: 'speed' is no limit"),
        (["--search", AGES, "--module", "reclaim"], "--search: goes with no --schemes, --scheme or --module"),
        (["--limit", "slowdown=2%"], "--limit: is what a search keeps within; there is no --search"),
        (["--search", "reclaim min_age=10min..20min"], "waits for 10 min at least; a recording of 3 min 20 s"),
        (["--search", AGES, "--target", "7"], "has no snapshot of target 7"),
        (["--search", AGES, "--from", "1h"], "--from, --to: "),
    ],
)
def test_what_cannot_be_searched_is_refused(
    mix: Path, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "what-if", str(mix), *wrong)
