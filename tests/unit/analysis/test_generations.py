"""Idle times of generations: what is surely so old, and what may be."""

from __future__ import annotations

from tests.unit.linux.test_lru_gen import PAGE, TEXT

from pydamon.analysis.generations import Idle, by_cgroup, idle, within
from pydamon.linux.lru_gen import parse


def test_a_bound_between_two_generations_has_two_numbers() -> None:
    root = within(parse(TEXT), "/")[:1]
    rows = {row.bound_s: row for row in idle(root)}
    pages = {715: 10243, 716: 9400, 717: 3912, 718: 5100}
    everything = sum(pages.values()) * PAGE
    assert rows[0] == Idle(0, everything, everything)
    # 1 s: generation 717 began to be left 1.1 s ago, 718 is not older than 1.1 s.
    assert rows[1] == Idle(1, (pages[715] + pages[716] + pages[717]) * PAGE, everything)
    assert rows[2] == Idle(2, (pages[715] + pages[716]) * PAGE, everything - pages[718] * PAGE)
    assert rows[60] == Idle(60, pages[715] * PAGE, (pages[715] + pages[716]) * PAGE)
    assert rows[120] == Idle(120, 0, pages[715] * PAGE)
    assert max(rows) == 120


def test_cgroups_are_summed_and_picked() -> None:
    parts = parse(TEXT)
    assert [(path, len(mine)) for path, mine in by_cgroup(parts)] == [("/system.slice/my app.service", 2), ("/", 1)]
    assert [part.node for part in within(parts, "system.slice/")] == [0, 1]
    assert within(parts, "/sys") == []
    assert within(parts, "/") == parts
    assert idle([]) == [Idle(0, 0, 0)]
