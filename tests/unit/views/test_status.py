"""What ``status`` tells of schemes, and how it looks."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.scheme_state import Tried
from pydamon.engines.base import Engine
from pydamon.engines.sim import SimEngine
from pydamon.errors import PydamonError
from pydamon.service.log import Log
from pydamon.spec import Intervals, Scheme, from_builtins, read
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.statistics import STATISTICS
from pydamon.views import kdamond as made
from pydamon.views import lines, status
from pydamon.views.fields import fields_of
from pydamon.workload.builtin import load

SCHEME = {
    "action": "pageout",
    "name": "cold",
    "quotas": {
        "sz_bytes": "1 MiB",
        "goals": [{"metric": "user_input", "target_value": 200, "current_value": 50, "name": "rps"}],
    },
}


def running(swap_bytes: int = 1 << 30) -> list[dict[str, Any]]:
    """The schemes of a kdamond that tried two regions, of 8 and 4 KiB, and managed the first."""
    damos = Damos(cast(Any, SimpleNamespace()), VirtualClock())
    damos.start((read(SCHEME, Scheme), Scheme(action="stat")), Intervals())
    state = damos.states[0]
    state.stats.nr_tried, state.stats.sz_tried = 2, 12_288
    state.stats.nr_applied, state.stats.sz_applied = 1, 8_192
    state.quota.begin_window(state.scheme.quotas, 0, 2500, 4096)
    state.quota.charge(state.scheme.quotas, 12_288, 8_192, 1000)
    start = np.array([0x1000, 0x8000], np.uint64)
    size = np.array([8192, 4096], np.uint64)
    zeros = np.zeros(2, np.int64)
    state.tried = [Tried(0, start, start + size, zeros, zeros, size, size)]
    state.watermarks.activated = True
    engine = cast(Engine, SimpleNamespace(schemes=lambda: damos.states, swap_bytes=lambda: swap_bytes))
    return cast(list[dict[str, Any]], msgspec.to_builtins(made.schemes(engine)))


def kdamond(schemes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "started_unix_ns": 1, "about": "a process", "command_pid": None, "dry_run": False, "spec": {},
        "name": "web", "pid": 7, "state": "running", "uptime_ns": 61_000_000_000, "engine": "user", "ops": "vaddr",
        "primitive": "smaps", "primitive_reason": "asked for", "record": None, "commit_pending": False,
        "paused": False,
        "targets": [{"target": 0, "pid": 8, "command": "evil\x1b[2Jname"}],
        "intervals": {"sample_us": 5000, "aggr_us": 100000, "ops_update_us": 1000000, "intervals_goal": None},
        "nr_regions": {"min": 10, "max": 1000}, "regions": 33, "snapshots": 600, "schemes": schemes, "acts": [],
        "modules": [],
        "cost": {"cpu_ns": 1, "cpu_bp": 123}, "notices": ["a notice"],
        "reason": "stopped", "command_fate": None, "undone": None,
    }  # fmt: skip


def test_schemes_are_told_with_everything_that_is_known() -> None:
    first, second = running()
    assert first["stats"]["sz_tried_bytes"] == 12_288
    assert first["tried_regions"] == {"nr": 2, "sz_bytes": 12_288}
    # the goal is reached by a quarter, so that the feedback loop allows little; never more than 1 MiB
    assert 0 <= first["quota"]["effective_bytes"] <= 1 << 20
    assert first["quota"]["charged_bytes"] == 12_288
    assert first["goals"] == [
        {"name": "rps", "metric": "user_input", "target_value": 200, "current_value": 50, "score_bp": 2500}
    ]
    assert second["quota"]["limited"] is False
    assert second["watermarks"] == {"metric": "none", "active": False}
    assert read(first["scheme"], Scheme) == read(SCHEME, Scheme)  # it can be given back to tune


def test_it_can_be_written_as_json() -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(running()))
    assert decoded[0]["goals"] == running()[0]["goals"]
    assert read(decoded[0]["scheme"], Scheme) == read(SCHEME, Scheme)


def test_no_schemes_where_none_can_be_applied() -> None:
    spec = from_builtins({"kdamonds": [{"contexts": [{"ops": "sim", "targets": [{}]}]}]})
    assert made.schemes(SimEngine(spec, load("stairs"))) == []


def test_tables_are_aligned_and_show_no_control_characters() -> None:
    shown = lines.overview([status.running(kdamond(running()))])
    assert not any("\x1b" in line for line in shown)
    head, row, _, scheme_head, cold, stat = shown
    assert row[head.index("SAMPLE") :].startswith("5 ms")
    assert row[head.index("UP") :] == "1 min 1 s"
    assert cold[scheme_head.index("TRIED") :].startswith("2 (12.0 KiB)")
    assert cold[scheme_head.index("STATE") :] == "active"
    assert stat[scheme_head.index("STATE") :] == "inactive, by its watermarks"


def test_details_name_goals_and_notices() -> None:
    shown = lines.details(status.running(kdamond(running())))
    assert "notices    a notice" in shown
    assert shown[-2].split() == ["SCHEME", "GOAL", "METRIC", "TARGET", "CURRENT", "REACHED"]
    assert shown[-1].split() == ["cold", "rps", "user_input", "200", "50", "25.0%"]


def test_details_have_what_modules_tell() -> None:
    numbers = {"taken_bytes": 3 << 20, "min_age_us": 120_000_000, "idle_ms": list(range(101))}
    modules = [{"name": "reclaim", "text": "reclaim min_age=2min\x1b[2J", "numbers": numbers}]
    told = status.running(kdamond([]) | {"modules": modules})
    assert status.to_builtins(told)["modules"] == modules
    shown = lines.details(told)
    assert shown[shown.index("module reclaim min_age=2min\\x1b[2J") :] == [
        "module reclaim min_age=2min\\x1b[2J",
        "  taken        3.0 MiB",
        "  min age      2 min",
        "  idle         0 s, 25 ms, 50 ms, 75 ms, 100 ms",
    ]


def test_what_has_ended_says_what_it_did() -> None:
    told = status.ended(kdamond(running()) | {"undone": ["4.0 KiB migrated back"]})
    shown = lines.ended("web", "stopped", told)
    assert shown[0] == "kdamond web: stopped after 1 min 1 s, 600 snapshots"
    assert "undone: 4.0 KiB migrated back" in shown
    nothing = status.ended({"name": "web", "reason": "ended by SIGTERM"})
    assert lines.ended("web", "ended by SIGTERM", nothing) == ["kdamond web: ended by SIGTERM"]


def test_what_schemes_cannot_do_without_swap_is_told_once() -> None:
    assert [scheme["remark"] for scheme in running()] == [None, None]
    schemes = running(swap_bytes=0)
    assert [scheme["remark"] for scheme in schemes] == [NO_SWAP, None]
    line = f"pageout: {NO_SWAP}"
    two = [status.running(kdamond(schemes)), status.running(kdamond(schemes))]
    for shown in (
        lines.overview(two),
        lines.details(two[0]),
        lines.ended("x", "stopped", status.ended(kdamond(schemes))),
    ):
        assert shown.count(line) == 1
    assert not any("swap" in line for line in lines.overview([status.running(kdamond(running()))]))


def test_late_samples_are_told() -> None:
    cost = {"cpu_ns": 1, "cpu_bp": 123, "samples": 100, "asked_ns": 500_000_000, "sampled_ns": 8_500_000_000}
    line = "samples came 17 × later than asked for: every 85 ms, not every 5 ms; use a longer sampling interval"
    told = status.running(kdamond([]) | {"cost": cost})
    assert lines.overview([told])[-1].startswith(f"web: {line}")
    assert any(each.startswith(f"late       {line}") for each in lines.details(told))
    assert lines.ended("web", "stopped", status.ended(kdamond([]) | {"cost": cost}))[2].startswith(line)
    told = status.running(kdamond([]) | {"cost": cost | {"sampled_ns": 510_000_000}})
    assert not any("late" in each for each in [*lines.overview([told]), *lines.details(told)])


def test_a_dry_run_is_told_as_one() -> None:
    told = lines.overview([status.running(kdamond(running()) | {"dry_run": True})])
    assert told[-1].startswith("web: dry run, nothing was done")
    assert not any("dry run" in line for line in lines.overview([status.running(kdamond(running()))]))


def test_what_it_costs_is_told_as_far_as_it_is_known() -> None:
    told = kdamond([]) | {"cost": {"cpu_ns": 1, "cpu_bp": 123, "kdamond_cpu_ns": 5, "kdamond_cpu_bp": 45}}
    assert "cost       1.2% of a CPU, and 0.5% in the kernel's kdamond" in lines.details(status.running(told))
    more = {"checks": 1234, "check_ns": 1, "clears": 2, "clear_ns": 3, "disturb_ns": 4, "disturb_bp": 50}
    told = kdamond([]) | {"cost": {"cpu_ns": 1, "cpu_bp": 123} | more}
    shown = lines.details(status.running(told))
    assert "cost       1.2% of a CPU, 1,234 checks, target disturbed 0.5% of the time" in shown


def test_a_status_is_its_own_json() -> None:
    told = kdamond(running())
    back = status.to_builtins(status.running(told))
    assert back == {key: value for key, value in told.items() if key not in ("reason", "command_fate", "undone")}


def test_a_status_of_another_version_is_no_traceback() -> None:
    told = kdamond(running())
    del told["intervals"]
    with pytest.raises(PydamonError, match="web: is of another version of pydamon"):
        status.running(told)


def test_every_value_of_a_status_has_a_field_that_says_what_it_is() -> None:
    def paths(value: Any, path: str) -> set[str]:
        if path in ("spec", "schemes[].scheme", "intervals.intervals_goal", "notices", "undone"):
            return set()
        if isinstance(value, list):
            return set().union(*(paths(each, f"{path}[]") for each in value))
        if isinstance(value, dict):
            return set().union(*(paths(each, f"{path}.{key}".lstrip(".")) for key, each in value.items()))
        return {path}

    known = fields_of(status.Running) | fields_of(status.Ended)
    assert paths(kdamond(running()), "") <= set(known)
    assert all(field.help and field.kind in ("counter", "gauge", "fact") for field in known.values())
    # A number's unit stands in its name, and the other way round.
    for field in known.values():
        last = field.path.rpartition(".")[2]
        units = ("_ns", "_us", "_bytes", "_bytes_per_s", "_bp")
        assert next((unit[1:] for unit in units if last.endswith(unit)), "") == field.unit, field.path


def test_the_numbers_of_schemes_are_the_table_of_statistics() -> None:
    fields = fields_of(status.Running)
    for row in STATISTICS.values():
        field = fields[f"schemes[].stats.{row.key}"]
        assert (field.kind, field.unit, field.help) == (row.kind, row.unit, row.help)


def test_the_document_lists_all_numbers() -> None:
    text = (Path(__file__).parents[3] / "docs" / "start.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| (counter|gauge) \| (.*) \|$", text, re.MULTILINE)
    fields = fields_of(status.Running).values()
    assert rows == [(field.path, field.kind, field.help) for field in fields if field.kind != "fact"]


def test_the_log_keeps_whole_lines_and_the_last_ones(tmp_path: Any) -> None:
    with open(tmp_path / "log", "wb") as file:
        log = Log(file.fileno())
        print("pydamon: one\r\x1b[K", file=log)
        log.write("tw")
        log.write("o\n" + "x" * 5000 + "\n")
        for number in range(30):
            print(number, file=log)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[20:] for line in lines[:2]] == ["one\\r\\x1b[K", "two"]
    assert len(lines[2]) == 1020
    assert log.last() == [str(number) for number in range(10, 30)]
