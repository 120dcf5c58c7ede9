"""A search that plays the recording in several processes finds what it finds in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.command import pydamon
from tests.unit.cli.what_if_helpers import recorded, sweep

TEXT = "reclaim min_age=8s|20s|40s quota=off"


def found(path: Path, jobs: int) -> dict[str, Any]:
    """What is printed as JSON, without the times that it took."""
    limit = ["--limit", "refaults=1MiB/s"]
    done = pydamon("what-if", str(path), "--search", TEXT, *limit, "--json", "--jobs", str(jobs))
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    for name in ("screening_s", "playing_s"):
        assert values.pop(name) > 0
    return values


def test_as_many_processes_as_wanted_find_the_same(tmp_path: Path) -> None:
    path = recorded(tmp_path, sweep(180))
    one, two = found(path, 1), found(path, 2)
    assert one == two
    assert one["chosen"] is not None
