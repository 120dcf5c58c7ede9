"""The tables of actions, metrics and statistics: whoever does what a row says is there, and the documents list them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pydamon.core.scheme_state import SchemeStats
from pydamon.core.scores import scores
from pydamon.damonfs.levels import Level
from pydamon.linux import metrics as machine
from pydamon.ops.actions.acting import DOINGS
from pydamon.ops.sim import actions as sim_actions
from pydamon.ops.sim import machine as sim_machine
from pydamon.spec.actions import ACTIONS, DEBUGFS_ACTIONS, PHYSICAL, ActionName
from pydamon.spec.costs import Costs
from pydamon.spec.damon_files import FILES, READ_ONLY, files_in
from pydamon.spec.metrics import METRICS, OF_MACHINE, SINCE, MetricName
from pydamon.spec.statistics import OF_EVENT, STATISTICS

DOCS = Path(__file__).parents[3] / "docs"


def listed(name: str, heading: str) -> list[str]:
    """The names in backquotes in the first column of the table below a heading of a document."""
    text = (DOCS / name).read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return [found for cell in cells for found in re.findall(r"`(\w+)`", cell)]


def statistics_of(level: Level) -> list[str]:
    """What files a kernel has for what it counts of a scheme."""
    return [file.name for file in files_in("schemes/*/stats") if file.mode == READ_ONLY and level.has(file)]


def test_the_names_for_type_checkers_are_the_rows() -> None:
    assert get_args(ActionName) == tuple(ACTIONS)
    assert get_args(MetricName) == tuple(METRICS)
    assert [field.name for field in fields(SchemeStats)] == list(STATISTICS)


def test_every_action_is_done_somehow_by_every_operations_set_that_acts() -> None:
    acting = {name for name, row in ACTIONS.items() if row.acts}
    assert set(DOINGS) == acting
    assert set(sim_actions.DOINGS) == acting
    for name, doing in DOINGS.items():
        assert (doing.on_pages is None) != (doing.on_ranges is None), name
    # Page frames are acted on page by page.
    assert all(DOINGS[name].on_pages is not None for name in PHYSICAL if ACTIONS[name].acts)


def test_the_costs_of_simulated_actions_are_there() -> None:
    assert {cost for _, cost in sim_actions.DOINGS.values()} <= set(Costs.__struct_fields__)


def test_every_metric_of_the_machine_is_measured() -> None:
    names = {row.name for row in OF_MACHINE}
    assert set(machine.MEASURED) == names
    assert set(sim_machine.MEASURED) == names
    assert all(row.help for row in OF_MACHINE)
    assert all(row.of_node for row in METRICS.values() if row.of_memcg)


def test_what_an_action_prefers_is_what_scores_high() -> None:
    hot = np.array([0, 99])
    for name, row in ACTIONS.items():
        assert scores(name, hot).tolist() == {"hot": [0, 99], "cold": [99, 0], None: [99, 99]}[row.prefers]


@pytest.mark.parametrize(
    ("version", "more"),
    [
        ((6, 12), ("node_mem_used_bp", "active_mem_bp", "collapse", "sz_ops_filter_passed", "nr_snapshots")),
        ((6, 19), ("active_mem_bp", "collapse", "nr_snapshots")),
        ((7, 0), ("collapse", "node_eligible_mem_bp")),
        ((99, 0), ()),
    ],
)
def test_older_kernels_lack_what_came_later(version: tuple[int, int], more: tuple[str, ...]) -> None:
    level = Level(version)
    words = [level.words(file) for file in FILES if file.name in ("action", "target_metric")]
    known = {*words[0], *words[1], *statistics_of(level)}
    assert not known & set(more)
    if not more:
        assert known == {*ACTIONS, *SINCE, *(name for name, row in STATISTICS.items() if row.since is not None)}


def test_the_numbers_of_debugfs_are_the_kernels() -> None:
    # The kernel's damon usage document, "DEBUGFS INTERFACE": 0 willneed, 1 cold, 2 pageout, 3 hugepage, 4 nohugepage,
    # 5 stat; behind a scheme it showed these five statistics.
    assert DEBUGFS_ACTIONS == ("willneed", "cold", "pageout", "hugepage", "nohugepage", "stat")
    assert statistics_of(Level((6, 12))) == ["nr_tried", "sz_tried", "nr_applied", "sz_applied", "qt_exceeds"]


def test_the_trace_event_has_the_kernels_fields() -> None:
    # include/trace/events/damon.h, damos_stat_after_apply_interval (7.0), which calls sz_applied "sz_tried", too.
    assert " ".join(f"{row.event}" for row in OF_EVENT) == (
        "nr_tried sz_tried nr_applied sz_tried sz_ops_filter_passed qt_exceeds nr_snapshots"
    )


def test_the_documents_list_the_rows() -> None:
    assert listed("actions.md", "The actions") == list(ACTIONS)
    assert listed("actions.md", "Metrics for quota goals and watermarks") == [
        "free_mem_rate", *(row.name for row in OF_MACHINE)
    ]  # fmt: skip
    assert sorted(listed("simulator.md", "Actions")) == sorted(ACTIONS)
    sentence = re.search(r"The actions are (.*?)\(which only counts\)", (DOCS / "schemes.md").read_text(), re.DOTALL)
    assert sentence is not None
    assert re.findall(r"`(\w+)`", sentence[1]) == list(ACTIONS)
    columns = re.search(r"^\| `schemes` \|(.*?)\|", (DOCS / "records.md").read_text(), re.MULTILINE)
    assert columns is not None
    assert [name for name in re.findall(r"`(\w+)`", columns[1]) if name in STATISTICS] == list(STATISTICS)
