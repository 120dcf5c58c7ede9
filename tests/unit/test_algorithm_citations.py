"""What the code cites of docs/algorithms.md is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = frozenset(re.findall(r"^###? (\d\.?\d*)", (ROOT / "docs/algorithms.md").read_text(), re.MULTILINE))
CITED = re.compile(r"docs/algorithms\.md ((?:[12]\.\d+(?:-|, )?)+)")
SHORT = re.compile(r"\(([12]\.\d{1,2}(?:, [12]\.\d{1,2})*)(?:, newer)?\)")
SOURCES = sorted(path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if "docs/algorithms.md " in path.read_text() and path != Path(__file__)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_each_cited_section_exists(path: Path) -> None:
    text = path.read_text()
    cited = [section for found in CITED.findall(text) for section in re.findall(r"\d\.\d+", found)]
    assert cited
    assert set(cited) <= SECTIONS


def test_the_short_form_stands_only_where_the_document_is_named() -> None:
    assert {"2.4", "2.12"} <= SECTIONS
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        short = [number for found in SHORT.findall(text) for number in found.split(", ")]
        named = text.find("docs/algorithms.md ")
        first = SHORT.search(text)
        if first and set(short) <= SECTIONS:
            assert -1 < named < first.start(), path
