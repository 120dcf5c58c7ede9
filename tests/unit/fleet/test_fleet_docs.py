"""docs/fleet.md tells the table that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from pydamon.cli.fleet import command
from pydamon.dataset.schema import COLUMNS, VERSION

TEXT = (Path(__file__).parents[3] / "docs/fleet.md").read_text()


def test_each_column_stands_in_the_table_with_its_type_and_unit() -> None:
    told = re.findall(r"^\| `(\w+)` \| (string|int64) \| (\S+) \| (yes|no) \| (.*) \|$", TEXT, re.MULTILINE)
    assert told == [(one.name, one.type, one.unit or "-", "yes" if one.null else "no", one.help) for one in COLUMNS]
    assert f"version of this table ({VERSION})" in TEXT


def test_each_verb_is_told() -> None:
    assert all(f"| `{name}` |" in TEXT for name in command.commands)
