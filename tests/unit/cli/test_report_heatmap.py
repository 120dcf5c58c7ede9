"""``pydamon report heatmap``: text, JSON, pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.command import PYDAMON
from tests.unit.cli.report_helpers import HEAP, LIBC, MIB, STACK, on_terminal, plain, report, stairs
from tests.unit.records.record_samples import AGGR_NS, START_NS, Region, snapshot, write


def test_three_areas_as_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stairs(tmp_path / "pydamon.damon")
    status, out, err = report(capsys, "heatmap")
    assert (status, err) == (0, "")
    assert (
        out
        == """\
program0 --flag (pid 1234)
pydamon.damon: 10 s, 100 snapshots, vaddr by bpf
── [stack]  0x7ffd1c2a0000 + 8K ────────────────────────────────────────────────
      │@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
    0 ┤@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
── libc.so.6  0x7f31a42f6000 + 1.1M ────────────────────────────────────────────
      │++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
      │++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
      │++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
      │++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
      │++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++
    0 ┤========================================================================
── [heap]  0x55d0c0a00000 + 10M ────────────────────────────────────────────────
      │................................................................-@@@@@@@
      │.........................................................=%%%%%%#-------
      │..................................................=*******++++++=.......
      │...........................................=======*######+..............
      │....................................-------#%%%%%%=.....................
      │....................................@@@@@@@-............................
  +5M ┤............................-@@@@@@@....................................
      │.....................=%%%%%%#-------....................................
      │..............=*******++++++=...........................................
      │.......=++++++*******=..................................................
      │-------#%%%%%%=.........................................................
    0 ┤@@@@@@@-................................................................
      └┬─────────────┬─────────────┬──────────────┬─────────────┬──────────────
      0 s            2             4              6             8            10
.:-=+*#%@ 0 to 100 % of samples found access
all accesses that were found are inside of this picture
"""
    )


def test_json_has_the_agreed_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = report(capsys, "heatmap", "--json", "-i", stairs(tmp_path / "r"))
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert list(found) == ["target", "time_ns", "address", "heat"]
    assert found["target"] == 0
    assert found["time_ns"] == [START_NS + n * AGGR_NS for n in range(101)]
    assert len(found["heat"]) == 100
    assert {len(row) for row in found["heat"]} == {len(found["address"]) - 1}
    assert found["address"] == sorted(set(found["address"]))
    assert all(isinstance(edge, int) for edge in found["time_ns"] + found["address"])
    # Every cell that is inside of a region has that region's rate.
    cells = {start: row for row, start in enumerate(found["address"][:-1])}
    assert found["heat"][0][cells[HEAP]] == 1
    assert found["heat"][99][cells[HEAP]] == 0
    assert found["heat"][50][cells[STACK]] == 0.9


def test_each_target_is_an_object_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    snapshots = [snapshot(n, [(4096, 8192, 5 + t, 0)], target=t) for n in range(5) for t in range(2)]
    path = write(tmp_path / "r", snapshots, pids=(7, 8))
    _, out, _ = report(capsys, "heatmap", "--json", "-i", path)
    found = [json.loads(line) for line in out.splitlines()]
    assert [(f["target"], f["heat"][0][0]) for f in found] == [(0, 0.25), (1, 0.3)]
    _, out, _ = report(capsys, "heatmap", "--json", "-i", path, "--target", "1")
    assert [json.loads(line)["target"] for line in out.splitlines()] == [1]


@pytest.mark.parametrize(
    ("addresses", "edges"),
    [
        (f"{HEAP:#x}-{HEAP + MIB:#x}", (HEAP, HEAP + MIB)),
        (f"{HEAP}-{HEAP + 12345}", (HEAP, HEAP + 12345)),
        ("0-1", (0, 1)),
        ("hottest", (HEAP, HEAP + 9 * MIB)),
        ("all", (HEAP, STACK + 0x2000)),
    ],
)
def test_ranges(capsys: pytest.CaptureFixture[str], tmp_path: Path, addresses: str, edges: tuple[int, int]) -> None:
    status, out, _ = report(capsys, "heatmap", "--json", "--range", addresses, "-i", stairs(tmp_path / "r"))
    assert status == 0
    found = json.loads(out)["address"]
    assert (found[0], found[-1]) == (edges[0], pytest.approx(edges[1], abs=0 if addresses[0].isdigit() else 2 * MIB))


def test_the_share_outside_is_stated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The warm MiB of libc has 8 of 20 accesses, the one of the heap 20, the stack's 8 KiB 18.

    8 x 1024 / (20 x 1024 + 8 x 1024 + 18 x 8) = 28.4 %: outside is the rest.
    """
    path = stairs(tmp_path / "r")
    _, out, _ = report(capsys, "heatmap", "--range", f"{LIBC}-{LIBC + 4 * MIB}", "-i", path)
    assert out.splitlines()[-1] == "72 % of the accesses (bytes x nr_accesses) are outside of this picture"


def test_a_record_without_accesses_is_shown_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "r", [snapshot(0, [(0, 4096 * 64, 0, 0)])])
    status, out, err = report(capsys, "heatmap", "-i", path)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "no accesses were found"


@pytest.mark.parametrize("columns", [20, 33, 200])
@pytest.mark.parametrize("colours", ["", "truecolor"])
@pytest.mark.usefixtures("processes")
def test_a_terminal_of_any_width_is_filled_but_not_exceeded(tmp_path: Path, columns: int, colours: str) -> None:
    out = on_terminal(columns, 30, "heatmap", "-i", stairs(tmp_path / "r"), COLORTERM=colours)
    assert ("\x1b[38;2;" in out) == bool(colours)
    assert ("\x1b[38;5;" in out) == (not colours)
    lines = plain(out).splitlines()
    assert columns - 1 <= max(len(line) for line in lines) <= columns
    assert len(lines) <= 30
    assert any("[heap]" in line for line in lines)


@pytest.mark.usefixtures("processes")
def test_no_color_means_characters(tmp_path: Path) -> None:
    out = on_terminal(80, 30, "heatmap", "-i", stairs(tmp_path / "r"), NO_COLOR="1")
    assert "\x1b" not in out
    assert "@@@@" in out


@pytest.mark.usefixtures("processes")
def test_other_encodings_get_ascii(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PYDAMON, "report", "heatmap", "-i", str(stairs(tmp_path / "r"))],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode("ascii").splitlines()[2].startswith("-- [stack]  0x7ffd1c2a0000 + 8K ---")


class TestPictures:
    @pytest.fixture(autouse=True)
    def _matplotlib(self) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install matplotlib)")

    def test_png(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        picture = tmp_path / "heat.png"
        status, out, err = report(capsys, "heatmap", "-i", stairs(tmp_path / "r"), "-o", picture)
        assert (status, err) == (0, "")
        assert out == f"wrote {picture}\nall accesses that were found are inside of this picture\n"
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data.endswith(b"IEND\xaeB`\x82")
        assert sorted(tmp_path.iterdir()) == [picture, tmp_path / "r"]

    def test_svg_is_the_same_for_the_same_record(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = stairs(tmp_path / "r")
        pictures = []
        for name in ("a.svg", "b.SVG"):
            assert report(capsys, "heatmap", "-i", path, "-o", tmp_path / name)[0] == 0
            pictures.append((tmp_path / name).read_bytes())
        assert pictures[0] == pictures[1]
        assert ElementTree.fromstring(pictures[0]).tag == "{http://www.w3.org/2000/svg}svg"

    def test_a_name_is_no_formula(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Nor does a character that the font lacks matter."""
        path = stairs(tmp_path / "$\\frac{$ \U0001f40c")
        for verb in (["heatmap"], ["wss"], ["wss", "--over", "time"]):
            assert report(capsys, *verb, "-i", path, "-o", tmp_path / "x.svg")[0] == 0

    def test_several_targets_make_one_picture(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        snapshots = [snapshot(n, [(4096, 8192, 5 + t, 0)], target=t) for n in range(5) for t in range(2)]
        path = write(tmp_path / "r", snapshots, pids=(7, 8))
        assert report(capsys, "heatmap", "-i", path, "-o", tmp_path / "x.svg")[0] == 0
        assert (tmp_path / "x.svg").stat().st_size > 0

    @pytest.mark.parametrize("region", [(0, 2**64 - 1, 1, 0), (5, 6, 20, 2**32 - 1)])
    @pytest.mark.parametrize("verb", [["heatmap"], ["wss"], ["wss", "--over", "time"]])
    def test_extreme_sizes(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, region: Region, verb: list[str]
    ) -> None:
        path = write(tmp_path / "r", [snapshot(0, [region])])
        for output in ([], ["-o", tmp_path / "x.png"], ["--json"]):
            status, out, err = report(capsys, *verb, "-i", path, *output)
            assert (status, err) == (0, "")
            assert out

    @pytest.mark.parametrize("name", ["missing/x.png", "r/x.png"])
    def test_a_place_that_cannot_be_written(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
    ) -> None:
        path = stairs(tmp_path / "r")
        status, out, err = report(capsys, "heatmap", "-i", path, "-o", tmp_path / name)
        assert (status, out) == (2, "")
        assert err.startswith(f"pydamon: -o: cannot write {tmp_path / name}: ")
        assert sorted(tmp_path.iterdir()) == [path]

    def test_a_failed_drawing_leaves_the_old_picture(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib.figure import Figure

        def fail(self: Figure, file: object, **_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Figure, "savefig", fail)
        path, picture = stairs(tmp_path / "r"), tmp_path / "heat.png"
        picture.write_text("old")
        status, _, err = report(capsys, "heatmap", "-i", path, "-o", picture)
        assert (status, err) == (1, f"pydamon: -o: cannot write {picture}: No space left on device\n")
        assert picture.read_text() == "old"
        assert sorted(tmp_path.iterdir()) == [picture, path]

    def test_without_matplotlib_the_machine_cannot(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        status, _, err = report(capsys, "heatmap", "-i", stairs(tmp_path / "r"), "-o", tmp_path / "x.png")
        assert (status, err) == (3, "pydamon: -o: drawing needs matplotlib: pip install matplotlib\n")


def test_an_unknown_kind_of_picture_is_refused_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = report(capsys, "heatmap", "-i", tmp_path / "missing", "-o", tmp_path / "x.gif")
    message = f"pydamon: -o: {tmp_path}/x.gif: pictures are .png, .svg or .html; choose such a name\n"
    assert (status, err) == (2, message)


def many_targets(path: Path, targets: int) -> Path:
    """Of 1 MiB, 2 MiB, … each, the first of it in use."""
    snapshots = [
        snapshot(n, [(HEAP, HEAP + 4096, 5, 0), (HEAP + 4096, HEAP + (t + 1) * MIB, 0, n)], target=t)
        for n in range(3)
        for t in range(targets)
    ]
    return write(path, snapshots, pids=tuple(range(1000, 1000 + targets)))


def test_of_many_targets_the_largest_are_drawn_and_the_rest_is_summed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = many_targets(tmp_path / "r", 41)
    rest = f"and 31 smaller targets, {31 * 32 // 2}.0 MiB together"
    status, out, err = report(capsys, "heatmap", "-i", path)
    assert (status, err) == (0, "")
    titles = [line for line in out.splitlines() if line.startswith("target ")]
    assert titles == [f"target {t}: program{t} --flag (pid {1000 + t})" for t in range(40, 30, -1)]
    assert out.endswith(f"{rest}; --all-targets shows each\n")
    for name in ("x.png", "x.svg", "x.html"):
        status, out, err = report(capsys, "heatmap", "-i", path, "-o", tmp_path / name)
        assert (status, err) == (0, "")
        assert out.endswith(f"{rest}; --all-targets shows each\n")
    # With a matplotlib that draws text as shapes, the words stand beside them as a comment.
    assert f"<!-- {rest} -->" in (tmp_path / "x.svg").read_text()


def test_all_of_many_targets_as_many_as_one_picture_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = many_targets(tmp_path / "r", 66)
    _, out, err = report(capsys, "heatmap", "-i", path, "--all-targets")
    assert (out.count("\ntarget ") + 1, err) == (64, "")
    assert out.endswith("and 2 smaller targets, 3.0 MiB together; --target shows one\n")
    status, out, err = report(capsys, "heatmap", "-i", path, "--json")
    assert (status, len(out.splitlines())) == (0, 64)
    assert "and 2 smaller targets, 3.0 MiB together" in err


def test_the_largest_are_those_with_most_resident_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    snapshots = []
    for target in range(11):  # the largest ranges have least in them
        one = snapshot(0, [(HEAP, HEAP + (target + 1) * MIB, 1, 0)], target=target)
        snapshots.append(one.replace(resident=np.array([(11 - target) * 4096], np.uint64)))
    path = write(tmp_path / "r", snapshots, pids=tuple(range(11)))
    _, out, _ = report(capsys, "heatmap", "-i", path)
    assert "and 1 smaller target, 4.0 KiB together" in out
    assert "target 10:" not in out
    _, out, _ = report(capsys, "heatmap", "-i", path, "--addresses")
    assert "and 1 smaller target, 1.0 MiB together" in out
    assert "target 0:" not in out
