"""Pictures that reports draw: what is in them, of which size, and that nothing of a record gets out of its text."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.unit.cli.report_helpers import HEAP, LIBC, MIB, STACK, report, stairs
from tests.unit.cli.rich_record import rich
from tests.unit.records.record_samples import START_NS, mapping, metadata, snapshot, write

from pydamon.analysis.heatmap import Heatmap
from pydamon.analysis.wss import WorkingSet
from pydamon.cli.render.axes import Scale, percent, scale_of, tenth_percent
from pydamon.cli.render.bars import PLAIN, Bar, Bars, Legend
from pydamon.cli.render.heat_panel import LEAST, HeatPanel
from pydamon.records.writer import RecordWriter

VERBS: list[list[str]] = [
    ["heatmap"],
    ["wss"],
    ["wss", "--over", "time"],
    ["idle"],
    ["recency"],
    ["recency", "--rate", "--whole"],
    ["temperature"],
    ["footprint"],
    ["bandwidth"],
    ["summary"],
    ["summary", "--addresses"],
    ["diff", "{record}", "{record}"],
    ["diff", "{record}", "{other}", "--by", "mapping"],
]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'pydamon[plot]')")
    monkeypatch.chdir(tmp_path)


def _drawn(capsys: pytest.CaptureFixture[str], verb: list[str], record: Path, picture: str) -> str:
    """What is printed when the report is drawn; for two records it is the same one twice."""
    words = [word.format(record=record, other=record) for word in verb]
    chosen: list[str | Path] = [] if verb[0] == "diff" else ["-i", record]
    status, out, err = report(capsys, *words, *chosen, "-o", picture)
    assert (status, err) == (0, "")
    return out


def _texts(svg: bytes) -> str:
    """The texts of a drawing: matplotlib writes each beside its shapes, as a comment."""
    return "\n".join(re.findall("<!-- (.*?) -->", svg.decode(), re.DOTALL))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_each_report_draws_each_kind_of_picture(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    record = rich(Path("r"))
    for name, begins in (("x.png", b"\x89PNG\r\n\x1a\n"), ("x.svg", b"<?xml"), ("x.html", b"<!doctype html>")):
        assert _drawn(capsys, verb, record, name).startswith(f"wrote {name}\n")
        assert Path(name).read_bytes().startswith(begins)
    assert ElementTree.parse("x.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_hostile_names_stay_text(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    """Of a record, a program and a mapping; also where a formula ends that is none."""
    hostile = "--><script>alert(1)<|script>]]>$\\frac{$ \x1b[31m\u2028&lt;"
    about = metadata(7)
    about["targets"][0]["command"] = hostile
    record = Path.cwd() / (hostile.replace("\x1b", "") + ".damon")
    with RecordWriter(record, metadata=about) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0, 8192, f"/{hostile}")])
        for number in range(3):
            writer.add_snapshot(snapshot(number, [(0, 4096, number, 0), (4096, 8192, 0, number)]))
    _drawn(capsys, verb, record, "x.svg")
    _drawn(capsys, verb, record, "x.html")
    assert not [one for one in ElementTree.parse("x.svg").iter() if one.tag.endswith("script")]
    page = Path("x.html").read_text()
    assert _Elements(page).found == ["html", "head", "meta", "meta", "title", "body", "img"]
    assert "default-src 'none'" in page
    (data,) = re.findall("base64,([A-Za-z0-9+/=]+)", page)
    assert base64.b64decode(data) == Path("x.svg").read_bytes()


def test_pictures_say_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """A record of 3 s has not seen 5 s; one page may be resident or not; no mapping and no footprint is known."""
    regions = [(0, 4096, 3, 0), (4096, 12288, 0, 20)]
    one = snapshot(0, regions).replace(resident=np.array([4096, 2**64 - 1], np.uint64))
    record = write(Path("r"), [one])
    texts = {}
    for verb in ("heatmap", "idle", "footprint", "summary"):
        _drawn(capsys, [verb], record, "x.svg")
        texts[verb] = _texts(Path("x.svg").read_bytes())
    assert "what was mapped is not known" in texts["heatmap"]
    assert "not known: the record is shorter" in texts["idle"]
    assert "8.0 KiB more: unknown whether used" in texts["idle"]
    assert "resident, virtual and swap sizes are not in this record" in texts["footprint"].replace("\n", " ")
    assert "8.0 KiB unknown" in texts["summary"]


def _heights(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The heights of the panels that a heatmap was drawn with, the lowest first."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    draw = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        draw(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    _drawn(capsys, ["heatmap"], path, "x.png")
    (figure,) = figures
    return [axes.get_position().height for axes in figure.axes[:-1]]


def test_panels_share_the_height_by_bytes_times_heat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A MiB that is always accessed, one in 8 of 20 samples, 8 KiB in 18 of 20: 1 to 0.4 to 0.007.

    Each has a twelfth beforehand. The heap is ten times as large as the library's part, which does not matter.
    """
    heights = np.array(_heights(stairs(Path("r")), capsys, monkeypatch))
    held = np.array([1, 0.4, 0.9 * 8 / 1024])
    wanted = LEAST + (1 - 3 * LEAST) * held / held.sum()
    assert heights / heights.sum() == pytest.approx(wanted, abs=0.002)


def _panel(heat: list[list[float]]) -> HeatPanel:
    cells = np.array(heat)
    time_ns = np.arange(len(cells) + 1, dtype=np.int64) * 10**9
    address = np.arange(cells.shape[1] + 1, dtype=np.uint64) * np.uint64(4096)
    shown = np.ones(cells.shape[1], np.bool_)
    return HeatPanel(Heatmap(0, time_ns, address, cells, shown, 0.0, True), "t", "d", ["[heap]"], "n", 0)


def test_no_cell_is_hotter_than_the_scale() -> None:
    """What is hotter than --max has the hottest colour, and the scale says so."""
    from matplotlib.collections import QuadMesh

    from pydamon.cli.render.heat_figure import heat_figure

    panel = _panel([[0.1, 0.2, 0.9]])
    for wanted, label in ((None, "90 %"), (0.2, "≥20 %"), (1.0, "100 %")):
        figure = heat_figure([panel], scale_of(panel.heatmap.hottest, wanted), "r")
        (mesh,) = (one for one in figure.axes[0].collections if isinstance(one, QuadMesh))
        low, high = mesh.get_clim()
        assert (low, high) == (0, 0.9 if wanted is None else wanted)
        assert mesh.cmap.get_over().tolist() == list(mesh.cmap(1.0))
        assert figure.axes[-1].get_yticklabels()[-1].get_text() == label


def test_the_legend_tells_the_real_range(capsys: pytest.CaptureFixture[str]) -> None:
    """13 of 20 samples are 65 %, not 100 %, unless a scale is asked for."""
    path = write(Path("r"), [snapshot(n, [(0, 65536, 13, n)]) for n in range(3)])
    for options, words in (
        ([], "0 to 65 % of samples found access"),
        (["--max", "100%"], "0 to 100 % of samples found access"),
        (["--max", "20"], "0 to 20 % and more of samples found access"),
    ):
        assert words in report(capsys, "heatmap", "-i", path, *options)[1]


@pytest.mark.parametrize("value", ["0", "-1", "101%", "x", "nan", ""])
def test_a_scale_that_is_none(capsys: pytest.CaptureFixture[str], value: str) -> None:
    status, out, err = report(capsys, "heatmap", "-i", stairs(Path("r")), "--max", value)
    assert (status, out) == (2, "")
    assert "--max" in err
    assert err.count("\n") == 1


def test_json_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = report(capsys, "heatmap", "-i", stairs(Path("r")), "--max", "100%", "--json")
    assert (status, err) == (2, "pydamon: --max: is of colours, which JSON has not\n")


def test_the_peak_of_one_snapshot_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """One of 5000 snapshots has 64 MiB in use: a hundredth of a column, whose mean says nothing of it."""
    snapshots = [snapshot(n, [(0, (64 if n == 2500 else 1) * MIB, 1, 0)]) for n in range(5000)]
    path = write(Path("r"), snapshots)
    out = report(capsys, "wss", "--over", "time", "-i", path)[1]
    assert "mean 1.0 MiB, most 64.0 MiB" in out
    columns = [line[7:] for line in out.splitlines() if line[6:7] in ("┤", "│")]
    # Its column reaches over all lines but the first, on which the axis ends above 64 MiB.
    assert sum("░" in line for line in columns) >= len(columns) - 5
    _drawn(capsys, ["wss", "--over", "time"], path, "x.svg")
    band = next(one for one in ElementTree.parse("x.svg").iter() if one.get("id") == "least-to-most")
    path_of = next(one for one in band.iter() if one.tag.endswith("path")).get("d") or ""
    heights = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path_of)]
    # The axis begins at the largest y. Bytes per point from the ordinary 1 MiB is what the peak must agree with.
    assert "line: mean; band: least to most" in _texts(Path("x.svg").read_bytes())
    low, high = max(heights), min(heights)
    assert low - high == pytest.approx(63 * _points_per_mib(path_of, Path("x.svg")), rel=0.02)


def _points_per_mib(path_of: str, svg: Path) -> float:
    """How high a MiB is drawn: the axis of bytes goes to 80 MiB, over 3.6 inches of 72 points."""
    assert "80.0 MiB" in _texts(svg.read_bytes())
    return 3.6 * 72 / 80


def test_the_extremes_of_columns() -> None:
    """Two columns of 150 ms over snapshots of 100 ms: the second snapshot is in both."""
    starts = np.arange(3, dtype=np.int64) * 100
    over = WorkingSet(0, starts, starts + 100, np.array([10, 20, 60], np.uint64)).over_time(2)
    assert (over.least.tolist(), over.most.tolist(), over.varies) == ([10, 20], [20, 60], True)


def test_ten_targets_are_a_page_of_panels_the_largest_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its names, and there is one scale of colours."""
    order = [3, 1, 4, 10, 5, 9, 2, 6, 8, 7]
    path = Path("r")
    about = metadata(*(1000 + t for t in range(10)))
    with RecordWriter(path, metadata=about) as writer:
        for target, size in enumerate(order):
            maps = [mapping(HEAP, HEAP + size * MIB, "[heap]"), mapping(LIBC, LIBC + MIB, "/lib/libc.so.6")]
            writer.add_mappings(START_NS, target, maps)
        for number in range(3):
            for target, size in enumerate(order):
                regions = [(HEAP, HEAP + size * MIB, 10, 0), (LIBC, LIBC + MIB, 5, 0), (STACK, STACK + 4096, 1, 0)]
                writer.add_snapshot(snapshot(number, regions, target=target))
    _drawn(capsys, ["heatmap"], path, "x.svg")
    texts = _texts(Path("x.svg").read_bytes())
    assert "10 targets, the one with the most memory first" in texts
    found = [int(number) for number in re.findall(r"^target (\d+): ", texts, re.MULTILINE)]
    assert found == sorted(range(10), key=lambda target: -order[target])
    assert texts.count("[heap]") == 10
    assert texts.count("accesses") == 2  # above the colours, and below the page
    width, height = (
        float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', Path("x.svg").read_text())[:2]
    )
    assert height < 2.5 * width


def test_bars_reach_as_far_as_their_amounts() -> None:
    """The first is half as long as the second; what is not known has no bar but words."""
    from matplotlib.patches import Rectangle

    from pydamon.cli.render.bars_figure import bars_figure

    bars = [Bar("a", (MIB,), "1"), Bar("b", (2 * MIB,), "2"), Bar("c", (), "not known")]
    figure = bars_figure([Bars("t", "d", bars)], Legend("memory", ("memory",), PLAIN))
    (axes,) = figure.axes
    assert [one.get_width() for one in axes.patches if isinstance(one, Rectangle)] == [MIB, 2 * MIB]
    assert axes.get_xlim() == (0, 2 * MIB)
    assert [text.get_text() for text in axes.texts] == ["1", "2", "not known"]


def test_addresses_of_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of each region was resident; --addresses counts all of it."""
    one = snapshot(0, [(0, 2 * MIB, 1, 0)]).replace(resident=np.array([MIB], np.uint64))
    path = write(Path("r"), [one], maps=[mapping(0, 2 * MIB, "[heap]")])
    out = report(capsys, "summary", "-i", path)[1]
    assert re.search(r"\[heap\] +anonymous +1.0 MiB", out)
    out = report(capsys, "summary", "-i", path, "--addresses")[1]
    assert re.search(r"\[heap\] +anonymous +2.0 MiB", out)
    assert "addresses       2.0 MiB" in out
    assert "page panel" not in out


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0.0 %"), (0.003, "0.3 %"), (0.0006, "0.1 %"), (0.0003, "< 0.1 %"), (0.05, "5.0 %"), (1, "100.0 %")],
)
def test_a_little_is_not_nothing(share: float, words: str) -> None:
    assert tenth_percent(share) == words


@pytest.mark.parametrize("top", [1.0, 0.62, 0.025, 0.3, 1e-6])
def test_ticks_of_a_scale_are_round_and_end_at_its_top(top: float) -> None:
    ticks = Scale(top).ticks()
    assert ticks[0] == 0
    assert ticks[-1] == top
    assert 3 <= len(ticks) <= 7
    assert np.all(np.diff(ticks) > 0)
    labels = [percent(tick) for tick in ticks]
    assert len(set(labels)) == len(labels) or top < 1e-4
