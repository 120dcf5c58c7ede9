"""What ``status`` tells of schemes, and how it looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np

from pydamon.cli.render import status as text
from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.scheme_state import Tried
from pydamon.engines.base import Engine
from pydamon.engines.sim import SimEngine
from pydamon.run import account
from pydamon.service.log import Log
from pydamon.spec import Intervals, Scheme, from_builtins, read
from pydamon.workload.builtin import load

SCHEME = {
    "action": "pageout",
    "name": "cold",
    "quotas": {
        "sz_bytes": "1 MiB",
        "goals": [{"metric": "user_input", "target_value": 200, "current_value": 50, "name": "rps"}],
    },
}


def running() -> list[dict[str, Any]]:
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
    return account.schemes(cast(Engine, SimpleNamespace(schemes=lambda: damos.states)))


def kdamond(schemes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "web", "pid": 7, "state": "running", "uptime_ns": 61_000_000_000, "engine": "user", "ops": "vaddr",
        "primitive": "smaps", "primitive_reason": "asked for", "record": None, "commit_pending": False,
        "targets": [{"target": 0, "pid": 8, "command": "evil\x1b[2Jname"}],
        "intervals": {"sample_us": 5000, "aggr_us": 100000, "ops_update_us": 1000000, "intervals_goal": None},
        "nr_regions": {"min": 10, "max": 1000}, "regions": 33, "snapshots": 600, "schemes": schemes,
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
    assert account.schemes(SimEngine(spec, load("stairs"))) == []


def test_tables_are_aligned_and_show_no_control_characters() -> None:
    lines = text.overview([kdamond(running())])
    assert not any("\x1b" in line for line in lines)
    head, row, _, scheme_head, cold, stat = lines
    assert row[head.index("SAMPLE") :].startswith("5 ms")
    assert row[head.index("UP") :] == "1 min 1 s"
    assert cold[scheme_head.index("TRIED") :].startswith("2 (12.0 KiB)")
    assert cold[scheme_head.index("STATE") :] == "active"
    assert stat[scheme_head.index("STATE") :] == "inactive, by its watermarks"


def test_details_name_goals_and_notices() -> None:
    lines = text.details(kdamond(running()))
    assert "notices    a notice" in lines
    assert lines[-2].split() == ["SCHEME", "GOAL", "METRIC", "TARGET", "CURRENT", "REACHED"]
    assert lines[-1].split() == ["cold", "rps", "user_input", "200", "50", "25.0%"]


def test_what_has_ended_says_what_it_did() -> None:
    lines = text.ended(kdamond(running()) | {"undone": ["4.0 KiB migrated back"]})
    assert lines[0] == "kdamond web: stopped after 1 min 1 s, 600 snapshots"
    assert "undone: 4.0 KiB migrated back" in lines
    assert text.ended({"name": "web", "reason": "ended by SIGTERM"}) == ["kdamond web: ended by SIGTERM"]


def test_the_log_keeps_whole_lines_and_the_last_ones(tmp_path: Any) -> None:
    with open(tmp_path / "log", "wb") as file:
        log = Log(file.fileno())
        print("pydamon: one\r\x1b[K", file=log)
        log.write("tw")
        log.write("o\n" + "x" * 5000 + "\n")
        for number in range(30):
            print(number, file=log)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line[20:] for line in lines[:2]] == ["one  [K", "two"]
    assert len(lines[2]) == 1020
    assert log.last() == [str(number) for number in range(10, 30)]
