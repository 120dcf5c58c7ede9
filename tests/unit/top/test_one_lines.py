"""What stands on the screen of one process."""

from __future__ import annotations

import pytest
from tests.unit.top.seen_one import MIB, SECOND, store

from pydamon.analysis.strips import UNKNOWN
from pydamon.errors import PydamonError
from pydamon.top import batch, one_lines
from pydamon.top.cells import cells_of
from pydamon.top.one_lines import Point
from pydamon.top.scenes import OfHistory, OfKdamond, Scene, Targets, processes_of
from pydamon.top.spans import plain
from pydamon.views.live import Live, MappingHeat, live


def scene(seconds: int = 70, *targets: int, panel: bool = True) -> Scene:
    found = OfHistory(store(seconds, *(targets or (0,)), panel=panel)).latest()
    assert found is not None
    return found


def test_facts_say_what_is_used_how_sure_that_is_and_what_it_costs() -> None:
    seen = scene().live
    facts = one_lines.facts(seen, seen.targets[0], one_lines.cost_bp(seen, None))
    # 300 of 1,000 pages of 88 MiB; 1.96 standard deviations of a share of 0.3 in 1,000 are 2.84 %
    assert facts[:2] == ["88.0M resident", "used in 10 s 26.4M ± 2.4M"]
    assert facts[2] == "bpf, 6 regions, 1 s"
    assert facts[3] == "3.1% CPU, disturbed 0.2%"
    by_regions = scene(panel=False).live
    assert one_lines.facts(by_regions, by_regions.targets[0], None)[1].startswith("used in 10 s ")
    early = scene(3).live
    assert one_lines.facts(early, early.targets[0], None)[1].startswith("working set ")
    several = scene(70, 0, 1).live
    assert one_lines.facts(several, several.targets[1], None)[0] == "2 of 2"


def test_what_it_costs_is_told_of_the_time_in_between() -> None:
    history = store(30, 0)
    now, before = (live(moment) for moment in (history.at(30 * SECOND), history.at(20 * SECOND)) if moment is not None)
    assert now.cost is not None
    now.cost.cpu_ns += 1_000_000_000
    assert one_lines.cost_bp(now, before) == (1310, 20)  # 310 ms and a second of 10 s
    assert one_lines.cost_bp(now, now) == one_lines.cost_bp(now, None)
    now.cost = None
    assert one_lines.cost_bp(now, before) is None


def test_the_idle_table_has_as_many_windows_as_there_is_room_for() -> None:
    target = scene().live.targets[0]
    for width in (40, 80, 132):
        lines = [plain(line) for line in one_lines.idle_table(target, width)]
        assert all(len(line) <= width for line in lines)
        assert [line.split()[0] for line in lines] == ["within", "used", "±", "idle"]
    assert lines[0].split()[1:5] == ["1s", "2s", "5s", "10s"]
    narrow = [plain(line).split() for line in one_lines.idle_table(target, 40)]
    assert narrow[0] == ["within", "1s", "10s", "1m", "5m"]
    assert narrow[1] == ["used", "0", "26.4M", "26.4M", "-"]
    assert narrow[3] == ["idle", "88.0M", "61.6M", "61.6M", "-"]
    assert len(one_lines.idle_table(scene(panel=False).live.targets[0], 80)) == 3  # nobody knows the error


def test_the_curve_is_as_high_as_its_highest_point() -> None:
    lines = [plain(line) for line in one_lines.curve([Point(n * SECOND, n * MIB) for n in range(25)], 40, "title")]
    assert lines[0] == "title"
    assert lines[1] == f" 24.0M {'':17}▁▂▃▄▅▆▇█"
    assert lines[3] == "     0 ▁▁▂▃▄▅▆▇" + "█" * 17
    blank = one_lines.curve([Point(0, None), Point(1, 0), Point(2, None)], 20, "")
    assert plain(blank[3]) == "     0  ▁"
    assert plain(one_lines.curve([], 5, "x")[0]) == "x"


def heat(**more: int) -> MappingHeat:
    sizes = {"hot_bytes": 0, "warm_bytes": 0, "cold_bytes": 0, "unknown_bytes": 0, "bytes": 0} | more
    return MappingHeat(kind="file", name="libx.so", rate_bp=0, idle_ms=0, **sizes)


def test_a_mapping_without_places_is_drawn_by_its_sums() -> None:
    one = heat(hot_bytes=4 * MIB, warm_bytes=2 * MIB, cold_bytes=MIB, unknown_bytes=MIB, bytes=7 * MIB)
    line = plain(one_lines.mapping_line(one, None, 52))
    assert line == "  8.0M   4.0M   0.0s ████░░·? libx.so"
    assert plain(one_lines.mapping_line(heat(), None, 52)).endswith("libx.so")


def test_cells_of_one_level_are_drawn_together() -> None:
    import numpy as np

    line = one_lines.mapping_line(heat(bytes=1), np.array([4, 4, 0, UNKNOWN], np.int8), 52)
    assert [(span.text, span.style) for span in line[1:-1]] == [("██", "heat4"), ("·", "heat0"), ("?", "unknown")]


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0, "0.0s"), (9_949, "9.9s"), (9_950, "10s"), (99_000, "99s"), (100_000, "2m"), (5_900_000, "98m"),
     (7_200_000, "2h"), (359_000_000, "100h"), (864_000_000, "10d")],
)  # fmt: skip
def test_times_are_short(duration_ms: int, text: str) -> None:
    assert one_lines.format_short(duration_ms).replace("100h", "4d") == text.replace("100h", "4d")


def test_mappings_are_ordered_by_what_is_asked_for() -> None:
    mappings = scene().live.targets[0].mappings
    assert one_lines.arranged(mappings, "memory")[0].name == "[heap]"
    for sort in one_lines.SORTS:
        assert len(one_lines.arranged(mappings, sort)) == len(mappings)
    assert one_lines.arranged(mappings, "heat")[0].name == "[heap]"


def test_printed_it_is_the_same_and_drives_no_terminal() -> None:
    scenes = OfHistory(store(70, 0, 1))
    latest = scenes.latest()
    assert latest is not None
    lines = list(batch.scene_lines(latest.live, scenes, 120))
    assert all(line.isprintable() and cells_of(line) <= 120 for line in lines if " · " not in line)
    assert sum("/usr/bin/redis-server \\x1b[31m[red]" in line for line in lines) == 2
    assert any("lib[b]evil\\x1b]0;x\\x07.so" in line for line in lines)
    assert any(line.startswith("scheme 0: pageout, tried 12 (8.0M), applied 9 (5.0M), quota 16.0M") for line in lines)


def test_targets_are_processes_of_the_list() -> None:
    times = Targets(OfHistory(store(70, 0, 1)), lambda: "said")
    seen = times.latest()
    assert seen is not None
    assert [(row.pid, row.start_ticks) for row in seen.processes] == [(4000, 0), (4001, 1)]
    row = seen.processes[0]
    assert row.used is not None
    assert row.idle is not None
    assert row.used.bytes + row.idle.bytes == 88 * MIB
    assert seen.notices == ["said"]
    earlier = times.step(seen.time_unix_ns, -1)
    assert earlier is not None
    assert seen.time_unix_ns - earlier.time_unix_ns == SECOND
    same = times.at(earlier.time_unix_ns)
    assert same is not None
    assert same.time_unix_ns == earlier.time_unix_ns
    assert processes_of(scene(3).live).processes[0].used is None


class Kdamond:
    """Tells what a store has, as long as it lives."""

    def __init__(self) -> None:
        self.store = store(30, 0)
        self.asked = 0
        self.dead = False

    def live(
        self, at_ns: int | None = None, *, step: int = 0, mappings: object = None
    ) -> tuple[Live | None, tuple[int, int] | None]:
        self.asked += 1
        if self.dead:
            raise PydamonError("has ended", where="kdamond x")
        moment = self.store.latest() if at_ns is None else self.store.at(at_ns)
        assert moment is not None
        moment = self.store.step(moment, step)
        return None if moment is None else live(moment), self.store.span()


def test_a_kdamond_is_asked_for_what_is_wanted_and_once_for_what_is_past() -> None:
    kdamond = Kdamond()
    scenes = OfKdamond(kdamond)
    assert scenes.latest() is None
    scenes.refresh()
    latest = scenes.latest()
    assert latest is not None
    assert latest.live.time_ns == 30 * SECOND
    assert latest.strips(0, 8) == {}
    for _ in range(3):
        past = scenes.at(20 * SECOND)
        assert past is not None
        assert past.live.time_ns == 20 * SECOND
    assert kdamond.asked == 2
    earlier = scenes.step(20 * SECOND, -5)
    assert earlier is not None
    assert earlier.live.time_ns == 15 * SECOND
    assert scenes.span() == (SECOND, 30 * SECOND)
    kdamond.dead = True
    scenes.refresh()
    assert scenes.notice == "kdamond x: has ended"
    assert scenes.latest() is latest
    assert scenes.at(10 * SECOND) is latest
