"""Reports on small screens, as a terminal shows them: nothing is broken, nothing is beyond the edge."""

from __future__ import annotations

from pathlib import Path

import pyte
import pytest
from tests.unit.cli.report_helpers import on_terminal, report, stairs
from tests.unit.cli.rich_record import rich
from tests.unit.records.record_samples import mapping, snapshot, write

pytestmark = pytest.mark.usefixtures("processes")

SIZES = [(80, 24), (40, 20)]
ENVIRONMENTS = [{"NO_COLOR": "1"}, {}, {"COLORTERM": "truecolor"}]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _screen(columns: int, lines: int, text: str) -> pyte.HistoryScreen:
    """A terminal of the size after the text was written to it."""
    screen = pyte.HistoryScreen(columns, lines, history=1000)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    return screen


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["plain", "256", "truecolor"])
@pytest.mark.parametrize(
    "verb", [["heatmap"], ["wss"], ["wss", "--over", "time"], ["idle"], ["bandwidth"]], ids=" ".join
)
def test_a_report_is_on_one_screen(columns: int, lines: int, environment: dict[str, str], verb: list[str]) -> None:
    """Its first line is still to be seen when it is done, and none was wrapped: the screen has as many as the text."""
    text = on_terminal(columns, lines, *verb, "-i", stairs(Path("r")), **environment)
    screen = _screen(columns, lines, text)
    assert not screen.history.top
    shown = [line.rstrip() for line in screen.display]
    assert shown[0].startswith("program0")
    assert screen.cursor.y == text.count("\n")
    coloured = any(cell.fg != "default" for row in screen.buffer.values() for cell in row.values())
    assert coloured == (verb == ["heatmap"] and "NO_COLOR" not in environment)


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize("colour", [{"NO_COLOR": "1"}, {}], ids=["plain", "256"])
def test_six_segments_are_on_one_screen(columns: int, lines: int, colour: dict[str, str]) -> None:
    """Each with its heading, and at least a line."""
    ranges = [(number << 40, (number << 40) + (1 << 20)) for number in range(6)]
    maps = [mapping(low, high, f"/lib/number{at}.so") for at, (low, high) in enumerate(ranges)]
    path = write(Path("r"), [snapshot(n, [(*each, 20, n) for each in ranges]) for n in range(5)], maps=maps)
    screen = _screen(columns, lines, on_terminal(columns, lines, "heatmap", "-i", path, **colour))
    assert not screen.history.top
    assert sum("number" in line for line in screen.display) == 6
    assert sum("│" in line or "┤" in line for line in screen.display) >= 6


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize(
    "verb",
    [
        ["summary"],
        ["access"],
        ["access", "--view", "boxes"],
        ["recency"],
        ["footprint"],
        ["cost"],
        ["schemes"],
        ["info"],
    ],
    ids=" ".join,
)
def test_no_line_is_wrapped(columns: int, lines: int, verb: list[str]) -> None:
    text = on_terminal(columns, lines, *verb, "-i", rich(Path("r")), NO_COLOR="1")
    screen = _screen(columns, lines, text)
    assert len(screen.history.top) + screen.cursor.y == text.count("\n")


def test_a_pipe_gets_tables_whole_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chart is as wide as COLUMNS says; a table ends where its words end."""
    name = "a-library-with-a-name-that-is-much-longer-than-eighty-columns-leave-room-for-beside-all-numbers.so.6"
    path = write(Path("r"), [snapshot(0, [(0, 1 << 20, 3, 1)])], maps=[mapping(0, 1 << 20, f"/lib/{name}")])
    for columns in (None, "40", "200"):
        if columns is not None:
            monkeypatch.setenv("COLUMNS", columns)
        for verb in ("access", "summary"):
            assert any(name in line for line in report(capsys, verb, "-i", path)[1].splitlines())
        chart = report(capsys, "heatmap", "-i", path)[1].splitlines()
        assert max(len(line) for line in chart if line.startswith("──")) == int(columns or "80")
