"""In what order processes are shown, and what stands in their cells."""

from __future__ import annotations

import pytest
from tests.unit.top.seen_processes import MIB, process, processes

from pydamon.top import batch, cells, words
from pydamon.top.order import COLUMNS, Group, Order, arranged

ROWS = processes().processes


def pids(order: Order) -> list[int]:
    return [entry.pid for entry in arranged(ROWS, order) if not isinstance(entry, Group)]


def test_the_most_used_come_first_and_those_of_which_nothing_is_known_last() -> None:
    assert pids(Order()) == [2001, 101, 31, 102, 30, 1]
    assert pids(Order(turned=True)) == [1, 30, 102, 31, 101, 2001]


def test_each_column_can_be_sorted_by() -> None:
    assert pids(Order(by="pid")) == [1, 30, 31, 101, 102, 2001]
    assert pids(Order(by="resident"))[:2] == [2001, 101]
    assert pids(Order(by="user"))[0] == 1
    order = Order()
    seen = []
    for _ in COLUMNS:
        order = order.next(1)
        seen.append(order.by)
    assert sorted(seen) == sorted(column.name for column in COLUMNS)
    assert Order(by=COLUMNS[0].name).next(-1).by == COLUMNS[-1].name


def test_a_filter_goes_by_the_command_or_the_pid() -> None:
    assert pids(Order(words="POSTGRES")) == [101, 102]
    assert pids(Order(words="2001")) == [2001]
    assert pids(Order(words="no such")) == []


def test_a_tree_has_sums_above_the_processes_of_each_cgroup() -> None:
    entries = arranged(ROWS, Order(tree=True))
    assert [entry.path if isinstance(entry, Group) else entry.pid for entry in entries] == [
        "/init.scope", 1, "/system.slice/postgresql.service", 101, 102, "/system.slice/redis.service", 2001,
        "/user.slice", 31, "/[bold]\x1b[5m", 30,
    ]  # fmt: skip
    groups = {entry.path: entry for entry in entries if isinstance(entry, Group)}
    postgres = groups["/system.slice/postgresql.service"]
    assert (postgres.processes, postgres.resident_bytes, postgres.used_bytes) == (2, 812 * MIB, 42 * MIB)
    assert groups["/init.scope"].used_bytes is None
    assert groups["/[bold]\x1b[5m"].depth == 1


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (10 * 1024, "10.0K"), (100 * 1024, "100K"), (1023 * 1024, "1.0M"),
     (999 * 1024, "999K"), (5 << 30, "5.0G"), (1 << 60, "1.0E"), ((1 << 64) - 1, "16.0E")],
)  # fmt: skip
def test_sizes_take_five_characters_at_most(size_bytes: int, text: str) -> None:
    assert cells.size(size_bytes) == text
    assert len(text) <= 5


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_each_line_is_exactly_as_wide_as_the_screen(width: int) -> None:
    columns = cells.columns_for(width)
    for tree in (False, True):
        for entry in arranged(ROWS, Order(tree=tree)):
            text = cells.line(entry, columns, indent=int(tree))
            assert cells.cells_of(text) == max(width, cells.cells_of(cells.head(columns, Order())))
            assert text.isprintable()
    if width >= 40:
        assert cells.cells_of(cells.head(columns, Order())) == width


def test_wide_characters_count_twice_and_marks_not() -> None:
    assert cells.cells_of("日本") == 4
    assert cells.cells_of("e\u0301") == 1
    assert cells.fit("日本語", 5) == "日本…"
    assert cells.fit("日本語", 4) == "日… "


def test_the_trend_is_drawn_from_the_last_values() -> None:
    assert cells.spark((9, 0, 1, 2, 4), 4) == "▁▂▄█"
    assert cells.spark((0, 0), 8) == "▁▁"
    assert cells.spark((), 8) == ""


def test_what_is_not_known_yet_is_told_as_at_least() -> None:
    row = process(7, "x", 8 * MIB, MIB)
    assert row.used is not None
    row.used.at_least = True
    text = cells.line(row, cells.columns_for(80))
    assert " >1.0M     -  8.0M " in text


def test_plain_text_is_the_same_list_without_what_drives_a_terminal() -> None:
    lines = list(batch.list_lines(processes(), Order(), 80))
    assert all(cells.cells_of(line) <= 80 for line in lines)
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("pydamon top  14:13:20 · 6 processes · 6.0G of 8.0G")
    whole = list(batch.list_lines(processes(), Order()))
    assert any("\\x1b]0;owned\\x07 \\x1b[2J \\x9b31m \\u202etxt.exe\\nnext" in line for line in whole)


def test_printing_waits_until_it_is_known_what_was_used() -> None:
    slept: list[float] = []

    def step() -> object:
        seen = processes()
        for row in seen.processes:
            if row.used is not None:
                row.used.at_least = len(slept) < 5
        return seen

    batch.settled(step, slept.append)  # type: ignore[arg-type]
    assert slept == [1.0] * 5


def test_a_jump_goes_by_the_clock_or_back_from_now() -> None:
    now = processes().time_unix_ns + 900_000_000
    second = 1_000_000_000
    assert words.parse_jump("30s", now) == now - 30 * second
    assert words.parse_jump(" -2m ", now) == now - 120 * second
    assert words.parse_jump("14:13:05", now) == processes().time_unix_ns - 15 * second
    assert words.parse_jump("14:14", now) == processes().time_unix_ns + 40 * second - 86400 * second
    for wrong in ("", "soon", "25:00", "1:2:3:4"):
        with pytest.raises(Exception, match=r"time|soon|empty|number"):
            words.parse_jump(wrong, now)


def test_the_foot_keeps_help_and_quit() -> None:
    for width in (20, 40, 80, 200):
        found = words.foot((*words.LIST_KEYS, *words.COMMON_KEYS), width)
        assert [name for _, name in found[-2:]] == ["Help", "Quit"]
        assert sum(len(key) + len(name) + 2 for key, name in found) <= max(width, 20)
    assert len(words.foot((*words.LIST_KEYS, *words.COMMON_KEYS), 200)) == 12
