"""``pydamon report heatmap -o page.html``: one file, nothing loaded, what is in it is what was recorded."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.report_helpers import HEAP, MIB, on_terminal, plain, report, stairs
from tests.unit.records.record_samples import START_NS, mapping, metadata, snapshot, write

from pydamon.cli.render.axes import time_ticks
from pydamon.plain import printable
from pydamon.records.writer import RecordWriter


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stairs(Path("pydamon.damon"))


def _panels(path: str) -> list[dict[str, Any]]:
    """The data that the page's script draws."""
    panels: list[dict[str, Any]] = json.loads(_Page(path).scripts[0][1])["panels"]
    return panels


class _Page(HTMLParser):
    """What a browser makes of the page: its elements, the text of its headings, and its scripts."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.scripts: list[tuple[str | None, str]] = []
        self.feed(Path(path).read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        tag = self.elements[-1][0] if self.elements else ""
        if tag == "script" and data.strip():
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        self.texts[tag] = self.texts.get(tag, "") + data


def _heat(panel: dict[str, Any]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The grey picture (addresses upwards, times to the right): 0 not monitored, 1 to 255 heat."""
    data = base64.b64decode(panel["image"])
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    lines = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + length]), np.uint8).reshape(height, width + 1)
    return lines[::-1, 1:]


def test_the_page_holds_the_heat_of_all_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of ten MiB of heap is hot in its second, and cold in all others."""
    status, out, err = report(capsys, "heatmap", "-o", "heat.html", "--range", f"{HEAP:#x}-{HEAP + 10 * MIB:#x}")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "wrote heat.html"
    (panel,) = _panels("heat.html")
    assert (panel["title"], panel["top"]) == ("program0 --flag (pid 1234)", 1.0)
    assert (panel["time_s"][0], panel["time_s"][-1]) == (0.0, 10.0)
    assert (panel["address"][0], panel["address"][-1]) == (hex(HEAP), hex(HEAP + 10 * MIB))
    assert [part["name"] for part in panel["segments"]] == ["[heap]"]
    heat = _heat(panel)
    rows, columns = heat.shape
    assert (columns, rows) == (len(panel["time_s"]) - 1, len(panel["address"]) - 1)
    for second in range(10):
        for mib in range(10):
            cell = heat[int((mib + 0.5) / 10 * rows), int((second + 0.5) / 10 * columns)]
            assert cell == (255 if mib == second else 1)


_HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "@DATA@ @TITLE@ @SCRIPT@ @X@",
    "]]></title><svg onload=alert(1)>",
    "\u2028alert(1)\u2029 &lt;img src=x onerror=alert(1)&gt; \\u003cscript",
    "{{7*7}} ${alert(1)} \\1 \\g<0> %s",
)


@pytest.mark.parametrize("text", _HOSTILE)
def test_nothing_is_loaded_and_nothing_escapes_its_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """In the name of a record, of a program and of a mapping: the page has the same elements, and shows the text."""
    assert report(capsys, "heatmap", "-o", "plain.html")[0] == 0
    about = metadata(7)
    about["targets"][0]["command"] = text
    name = text.replace("/", "|") + ".damon"
    with RecordWriter(name, metadata=about) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0, 4096, f"/{text}")])
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    assert report(capsys, "heatmap", "-i", name, "-o", "heat.html")[0] == 0
    page, harmless = _Page("heat.html"), _Page("plain.html")
    assert page.elements == harmless.elements
    assert page.scripts[1:] == harmless.scripts[1:]
    shown = printable(name)
    assert (page.texts["h1"].strip(), page.texts["title"].strip()) == (shown, shown)
    assert not re.search("[<>&\u2028\u2029]", page.scripts[0][1])
    (panel,) = _panels("heat.html")
    assert printable(text.rpartition("/")[2][:10]) in panel["title"]
    assert not re.search(r"https?://|src=\"|href|import", Path("heat.html").read_text("utf-8"))


def test_the_policy_of_the_page_lets_run_what_is_ours_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, "heatmap", "-o", "heat.html")[0] == 0
    text, page = Path("heat.html").read_text("utf-8"), _Page("heat.html")
    policies = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashed = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{hashed}'"
    # The policy comes before what it is for; and nothing needs the attributes that it forbids.
    assert text.index("Content-Security-Policy") < min(text.index("<style>"), text.index("<script"))
    assert not any({"style", "onload", "onclick"} & attributes.keys() for _, attributes in page.elements)


def test_every_target_has_a_panel(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(n, [(0, 8192, t, 0)], target=t) for n in range(3) for t in (0, 1)], pids=(1, 2))
    assert report(capsys, "heatmap", "-i", "r", "-o", "heat.html", "--json")[0] == 0
    assert [panel["title"][:9] for panel in _panels("heat.html")] == ["target 0:", "target 1:"]


def test_a_page_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("d.html")
    for path in ("d.html", "none/heat.html"):
        status, out, err = report(capsys, "heatmap", "-o", path)
        assert (status, out, err.count("\n")) == (2, "", 1)
    assert sorted(os.listdir()) == ["d.html", "pydamon.damon"]


@pytest.mark.usefixtures("processes")
def test_a_window_is_labelled_with_the_time_of_the_record() -> None:
    """The seconds 7 to 9, not 0 to 2."""
    for arguments in (["heatmap"], ["wss", "--over", "time"]):
        lines = plain(on_terminal(80, 24, *arguments, "--from", "7s", "--to", "9s")).splitlines()
        (axis,) = (line.split() for line in lines if line.strip().startswith("7 s"))
        assert (axis[:2], axis[-1]) == (["7", "s"], "9")


@pytest.mark.parametrize(("first", "span"), [(0, 10**10), (7 * 10**9, 2 * 10**9), (3 * 10**12 + 1, 10**7), (5, 3)])
def test_ticks_are_round_times_within_the_span(first: int, span: int) -> None:
    ticks, _ = time_ticks(span, 8, first)
    assert 1 <= len(ticks) <= 9
    assert first <= ticks[0][0] <= ticks[-1][0] <= first + span


def test_time_windows_of_heat_and_of_working_sets_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--from", "2s", "--to", "3s", "--json"]
    found = json.loads(report(capsys, "heatmap", *window)[1])
    assert (found["time_ns"][0], found["time_ns"][-1]) == (START_NS + 2 * 10**9, START_NS + 3 * 10**9)
    (sizes,) = json.loads(report(capsys, "wss", "--over", "time", *window)[1])["targets"]
    first, *_, last = sizes["snapshots"]
    assert (first["start_ns"], last["end_ns"]) == (START_NS + 2 * 10**9, START_NS + 3 * 10**9)
