"""``pydamon export --format html``: one file, nothing loaded, what is in it is what was recorded."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.report_helpers import HEAP, MIB, stairs
from tests.unit.cli.rich_record import rich
from tests.unit.records.record_samples import START_NS, mapping, metadata, snapshot, write

from pydamon.cli import main
from pydamon.plain import printable
from pydamon.records.writer import RecordWriter


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stairs(Path("pydamon.damon"))


def export(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error)."""
    status = main(["export", "--format", "html", *args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


class Page(HTMLParser):
    """What a browser makes of a page: its elements, the text of its headings, and its scripts."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.feed(Path(path).read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)


def held(path: str) -> dict[str, Any]:
    """The data in the page."""
    found: dict[str, Any] = json.loads(Page(path).scripts[0][1])
    return found


def test_the_page_holds_the_heat_of_all_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of ten MiB of heap is hot in its second, and cold in all others."""
    status, out, err = export(capsys, "-o", "page.html")
    assert (status, out, err.count("\n")) == (0, "", 1)
    data = held("page.html")
    assert data["summary"]["targets"][0]["title"] == "program0 --flag (pid 1234)"
    assert data["summary"]["span_ns"] == 10 * 10**9
    told = data["targets"]["0"]
    plane = np.frombuffer(zlib.decompress(base64.b64decode(data["levels"]["0"][0])), np.uint8)
    heat = plane.reshape(told["columns"], told["cells"])
    assert len(data["levels"]["0"]) == told["levels"]
    start = np.concatenate(
        [int(p["start"], 0) + p["width"] * np.arange(p["behind"] - p["first"]) for p in told["pieces"]]
    )
    for second in range(10):
        column = heat[int((second + 0.5) * 1e9 / told["column_ns"])]
        for mib in range(10):
            (places,) = np.nonzero(start <= HEAP + mib * MIB + MIB // 2)
            assert column[places[-1]] == (255 if mib == second else 1)


def test_curves_and_tables_are_those_of_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand, see `rich`: 1 MiB always used, one in half of the time; 2 MiB idle; 8 MiB resident; a scheme."""
    assert export(capsys, "-i", str(rich(Path("r"), seconds=30)), "-o", "page.html")[0] == 0
    data = held("page.html")
    curves, footprint = (data["targets"]["0"][key] for key in ("curves", "footprint"))
    assert {size for size in curves["memory"] if size is not None} == {4 * MIB}
    assert sum(curves["used"]) / len(curves["used"]) == pytest.approx(1.5 * MIB, rel=0.05)
    assert (min(curves["least"]), max(curves["most"])) == (MIB, 2 * MIB)
    cold = dict(zip(curves["cold_s"], (row[-1] for row in curves["cold"]), strict=True))
    assert [cold[bound] for bound in (10, 20, 30)] == [2 * MIB, 2 * MIB, 0]
    assert set(footprint["resident"]) == {8 * MIB}
    assert data["schemes"][0] | {"tried_bytes": 60 * MIB, "applied_bytes": 30 * MIB} == data["schemes"][0]
    assert len(data["moments"]["0"]) == 60


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
    """In the name of a record, of a program, a mapping and a scheme: the page has the same elements."""
    assert export(capsys, "-o", "plain.html")[0] == 0
    about = metadata(7)
    about["targets"][0]["command"] = text
    name = text.replace("/", "|") + ".damon"
    with RecordWriter(name, metadata=about) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0, 4096, f"/{text}")])
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    assert export(capsys, "-i", name, "-o", "page.html")[0] == 0
    page, harmless = Page("page.html"), Page("plain.html")
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert page.scripts[1:] == harmless.scripts[1:]
    assert not re.search("[<>&\u2028\u2029]", page.scripts[0][1])
    data = held("page.html")
    assert data["summary"]["name"] == printable(name)
    assert printable(text.rpartition("/")[2][:10]) in data["summary"]["targets"][0]["title"]
    assert not any({"src", "href"} & attributes.keys() for tag, attributes in page.elements if tag != "link")
    assert [attributes["href"] for tag, attributes in page.elements if tag == "link"] == ["data:,"]


def test_the_policy_of_the_page_lets_run_what_is_ours_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert export(capsys, "-o", "page.html")[0] == 0
    text, page = Path("page.html").read_text("utf-8"), Page("page.html")
    policies = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for pattern, rule in (('<script(?: type="module")?>', "script-src"), ("<style>", "style-src")):
        inside = re.findall(pattern + "(.*?)</(?:script|style)>", text, re.DOTALL)
        hashed = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside]
        assert rules[rule] == " ".join(f"'sha256-{one}'" for one in hashed)
    # The policy comes before what it is for; and nothing needs the attributes that it forbids.
    assert text.index("Content-Security-Policy") < min(text.index("<style>"), text.index("<script"))
    assert not any({"style", "onload", "onclick"} & attributes.keys() for _, attributes in page.elements)


def test_the_scripts_are_one_script_without_imports(capsys: pytest.CaptureFixture[str]) -> None:
    """What one module calls something no other may call otherwise: they share their names in this file."""
    assert export(capsys, "-o", "page.html")[0] == 0
    script = Page("page.html").scripts[-1][1]
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(names) > 30
    assert len(names) == len(set(names))


def test_every_target_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("r"), [snapshot(n, [(0, 8192, t, 0)], target=t) for n in range(3) for t in (0, 1)], pids=(1, 2))
    assert export(capsys, "-i", "r", "-o", "page.html")[0] == 0
    data = held("page.html")
    assert [one["title"][:9] for one in data["summary"]["targets"]] == ["target 0:", "target 1:"]
    assert set(data["targets"]) == set(data["levels"]) == set(data["moments"]) == {"0", "1"}


def test_a_page_that_cannot_be_written_or_holds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("d.html")
    write(Path("empty"), [])
    for arguments, wanted in (
        (("-o", "d.html"), 2),
        (("-o", "none/page.html"), 2),
        (("-o", "pydamon.damon"), 2),
        (("-i", "none", "-o", "x.html"), 2),
        (("-i", "empty", "-o", "x.html"), 1),
    ):
        status, out, err = export(capsys, *arguments)
        assert (status, out, err.count("\n")) == (wanted, "", 1)
    assert sorted(os.listdir()) == ["d.html", "empty", "pydamon.damon"]
