"""``pydamon what-if``: of a simulated recording whose truth is known, and of those that cannot tell all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.refusals import refused
from tests.unit.cli.report_helpers import stairs
from tests.unit.cli.what_if_helpers import MIB, recorded, sweep, told

import pydamon
from pydamon.cli import main


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of five minutes, with a page panel."""
    return recorded(tmp_path_factory.mktemp("what-if"), sweep(300))


def at(found: dict[str, Any], idle_s: float) -> dict[str, Any]:
    """The row of one idle time."""
    return next(row for row in found["thresholds"] if row["idle_s"] == idle_s)


def test_what_is_saved_and_comes_back_is_near_the_truth(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 10 s: 96 MiB, and 20 of 30 s of 64 MiB, which come back every 30 s; at 60 s: only what is never used."""
    found = told(capsys, swept)
    early, late = at(found, 10.0), at(found, 60.0)
    assert early["saved_bytes"] == pytest.approx((96 + 64 * 2 / 3) * MIB, rel=0.12)
    assert early["refaults"]["low"] <= 128 * MIB <= early["refaults"]["high"]
    assert early["refaults"]["estimate"] == pytest.approx(128 * MIB, rel=0.2)
    assert late["saved_bytes"] == pytest.approx(96 * MIB, rel=0.12)
    # By regions some goes that is used every 30 s. `pageout rate=0% age>=T`, really run, brings back 50 MiB a minute at
    # 40 s, 15.7 MiB at 60 s, 5.2 MiB at 80 s, and nothing at 100 s.
    assert 0 < late["refaults"]["estimate"] <= 15.7 * MIB
    assert early["lost"]["ssd"] > early["lost"]["zram"] > 0
    assert 80 <= found["goal"]["idle_s"] <= 100
    assert found["untouched"]["panel_bytes"]["low_bytes"] <= 96 * MIB <= found["untouched"]["panel_bytes"]["high_bytes"]
    sizes = [one["memory_bytes"] for one in found["miss_curve"]]
    assert sizes == sorted(sizes)
    assert 90 * MIB <= found["refaults"]["memory_bytes"] <= 120 * MIB


def test_text_has_the_table_and_what_follows_from_it(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["what-if", str(swept), "--fast", "16MiB", "--slowdown", "1%", "--refaults", "2MiB/s"]) == 0
    out = capsys.readouterr().out
    assert "page panel of " in out
    assert "idle regions of " in out
    assert "0.2 % of the working set a minute: take what is idle for " in out
    assert "record longer, or take a larger panel" in out
    assert "1.0 % of the time lost, swap on zram: take what is idle for " in out
    assert "for at most 2.0 MiB/s of refaults " in out
    assert "a fast tier of 16.0 MiB could hold at best " in out


def test_the_library_says_the_same(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = pydamon.what_if(str(swept))
    rows = told(capsys, swept)["thresholds"]
    assert [round(row.saved) for row in found.rows] == [row["saved_bytes"] for row in rows]


def test_without_a_panel_it_says_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, recorded(tmp_path, sweep(300), "--panel", "0"))
    assert at(found, 10.0)["refaults"]["high"] is None
    assert any("there is no page panel (recorded with --panel 0" in line for line in found["remarks"])
    assert any("no upper end" in line for line in found["remarks"])


def test_schemes_that_acted_make_ages_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, recorded(tmp_path, sweep(300), "--scheme", "pageout rate=0% age>=5s"))
    assert any("schemes acted while it was recorded (pageout)" in line for line in found["remarks"])


def test_a_short_recording_says_what_it_cannot_tell(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, swept, "--to", "20s")
    assert found["thresholds"][-1]["idle_s"] < 20
    assert any("longer idle times than" in line for line in found["remarks"])


def test_a_record_of_regions_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten seconds in which ten MiB of heap are in use for a second each, one after the other: none comes back."""
    found = told(capsys, stairs(tmp_path / "stairs.damon"))
    assert found["panel_pages"] == 0
    assert found["thresholds"][0]["idle_s"] == 0.1
    assert found["goal"]["idle_s"] is not None


def test_a_picture(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "what-if.svg"
    assert main(["what-if", str(swept), "-o", str(drawn)]) == 0
    assert "Comes back a minute" in drawn.read_text()
    assert f"wrote {drawn}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--goal", "0.2"], "percent sign"),
        (["--goal", "0%/min"], "must be above 0%"),
        (["--slowdown", "200%"], "at most 100%"),
        (["--refaults", "1MiB"], "write it like 1MiB/s"),
        (["--refaults", "x/s"], "x"),
        (["--fast", "0B"], "must be above 0"),
        (["--target", "7"], "has no snapshot of target 7"),
        (["--from", "20s", "--to", "10s"], "is not before --to"),
        (["--from", "2h"], "has no snapshot there"),
        (["--costs", "/nonexistent"], "pydamon: --costs /nonexistent: cannot be read: "),
        (["-o", "x.pdf"], "pictures are .png, .svg or .html"),
    ],
)
def test_wrong_options_are_refused(
    swept: Path, wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "what-if", str(swept), *wrong)


def test_costs_of_a_file(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ten times as long a wait ten times as much is lost; nonsense is named."""
    file = tmp_path / "costs.json"
    file.write_text('{"costs": {"zram_in_ns": "80us"}}')
    usual, slow = told(capsys, swept), told(capsys, swept, "--costs", str(file))
    assert at(slow, 10.0)["lost"]["zram"] == pytest.approx(10 * at(usual, 10.0)["lost"]["zram"])
    file.write_text('{"costs": {"zram_in_ns": -1}}')
    assert f"--costs {file}: costs.zram_in_ns" in refused(capsys, "what-if", str(swept), "--costs", str(file))


def test_what_is_no_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.damon").write_bytes(b"nothing")
    for name in ("x.damon", "y.damon"):
        assert refused(capsys, "what-if", str(tmp_path / name)).count("\n") == 1
