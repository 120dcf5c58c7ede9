"""The numbers of modules: every module names rows that there are, the documents list them, and values are readable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pydamon.modules.registry import MODULES
from pydamon.spec.module_numbers import NUMBERS, cells, headings, told

DOCS = Path(__file__).parents[3] / "docs"


def test_modules_name_rows_that_there_are() -> None:
    named = [name for module in MODULES.values() for name in module.numbers]
    assert set(named) == set(NUMBERS)


def test_the_document_lists_all_numbers() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (counter|gauge) \| (.*) \|$", (DOCS / "modules.md").read_text(), re.MULTILINE)
    assert rows == [(key, row.kind, row.help) for key, row in NUMBERS.items()]


@pytest.mark.parametrize(
    ("key", "values", "text"),
    [
        ("taken_bytes", [3 << 20], "3.0 MiB"),
        ("bandwidth_bytes_per_s", [1 << 30], "1.0 GiB/s"),
        ("used_up", [12345], "12,345"),
        ("min_age_us", [120_000_000], "2 min"),
        ("cpu_ns", [1_500_000_000], "1.5 s"),
        ("idle_ms", list(range(-50, 51)), "-50 ms, -25 ms, 0 s, 25 ms, 50 ms"),
        ("idle_ms", [1, 2], "-, -, -, -, -"),
        ("taken_bytes", [], "-"),
        ("taken_bytes", None, "-"),
    ],
)
def test_values_for_people(key: str, values: list[int] | None, text: str) -> None:
    row = NUMBERS[key]
    assert told(values, row) == text
    assert len(cells(values, row)) == len(headings(row))
