"""``pydamon trace``: events of a simulation live, of a record, and requests that make no sense."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.helpers.again import for_longer

from pydamon.cli import main
from pydamon.core.scheme_state import SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Tell
from pydamon.engines.kernel.engine import tell_scheme_event
from pydamon.engines.kernel.results import SchemeEvent
from pydamon.records import trace_text
from pydamon.run import events

SIM = ["--ops", "sim", "--workload", "stairs", "--duration", "1s"]

Capture = pytest.CaptureFixture[str]


def test_a_simulation_is_traced_live_as_its_record_is_afterwards(tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "run.damon")
    assert main(["trace", *SIM]) == 0
    live = capsys.readouterr().out.replace(f" {os.getpid():5d} [", "     0 [")
    assert main(["record", *SIM, "-o", out]) == 0
    capsys.readouterr()
    assert main(["trace", "-i", out]) == 0
    recorded = capsys.readouterr().out
    assert recorded == live
    lines = recorded.splitlines()
    assert len(lines) >= 10  # ten aggregations
    assert all(": damon:damon_aggregated: target_id=0 nr_regions=" in line for line in lines)


def test_schemes_are_traced_as_they_are_applied(capsys: Capture) -> None:
    assert main(["trace", *SIM, "-e", "all", "--scheme", "pageout size>=4K quota=1M/1s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = [line.split()[4] for line in lines]
    assert set(kinds) == {
        f"damon:{name}:"
        for name in ("damon_aggregated", "damos_before_apply", "damos_esz", "damos_stat_after_apply_interval")
    }
    assert [line.split("esz=")[1] for line in lines if "damos_esz" in line] == ["1048576"]
    first = kinds.index("damon:damos_before_apply:")
    assert kinds[first - 1] == "damon:damon_aggregated:"  # of the aggregation after which it was applied


def test_a_process_is_traced(capsys: Capture) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to be quick")
    told: list[str] = []

    def trace(duration: str) -> None:
        assert main(["trace", "--duration", duration, "--aggr", "100ms", "--sample", "10ms", str(os.getpid())]) == 0
        captured = capsys.readouterr()
        assert captured.err.startswith("pydamon: monitoring ")
        told.append(captured.out)

    for_longer(trace, lambda: told[-1].count("damon:damon_aggregated: target_id=0") > 10, 0.6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-i", "x.damon", "1234"], "--input: takes no target"),
        (["-i", "x.damon", "--", "ls"], "--input: takes no target"),
        (["-i", "x.damon", "--sample", "5ms"], "--sample: is about monitoring"),
        (["-i", "x.damon", "--user-events"], "--user-events: are for what happens now"),
        (["--quiet", "1234"], "--quiet: goes with --user-events"),
        ([], "trace: needs a pid"),
        ([*SIM, "-e", "damon_region_aggregated"], "--event: damon_region_aggregated is about probes"),
        (["-e", "damon_nothing", "1234"], "'damon_nothing' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(args: list[str], message: str, capsys: Capture) -> None:
    assert main(["trace", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_kernel_without_user_events_is_named(tmp_path: Path, capsys: Capture) -> None:
    if os.path.exists("/sys/kernel/tracing/user_events_data"):
        pytest.skip("this kernel has them")
    assert main(["trace", *SIM, "--user-events"]) == 3
    assert "CONFIG_USER_EVENTS" in capsys.readouterr().err


class _Event:
    """A user event to which somebody listens."""

    enabled = True

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, payload: bytes) -> None:
        self.written.append(payload)


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], _Event]:
    found: dict[str, _Event] = {}
    monkeypatch.setattr(events, "UserEvent", lambda name, fields, root: found.setdefault(name, _Event()))
    return found.__getitem__


def test_user_events_have_the_kernels_fields_packed(listened: Callable[[str], _Event]) -> None:
    sink = events.UserEvents(trace_text.EVENTS)
    u64, u32 = np.uint64, np.uint32
    found = Snapshot(
        3, 0, 9, 5000, 100_000,
        np.array([4096, 8192], u64), np.array([8192, 12288], u64), np.array([1, 2], u32), np.array([7, 8], u32),
    )  # fmt: skip
    sink("damon_aggregated", 9, snapshot=found)
    assert listened("damon_aggregated").written == [
        struct.pack("<QIQQII", 3, 2, 4096, 8192, 1, 7),
        struct.pack("<QIQQII", 3, 2, 8192, 12288, 2, 8),
    ]
    one = {"start": found.start[:1], "end": found.end[:1], "nr_accesses": found.nr_accesses[:1], "age": found.age[:1]}
    sink("damos_before_apply", 9, scheme=1, target=3, nr_regions=2, **one)
    assert listened("damos_before_apply").written == [struct.pack("<IIQQQIII", 0, 1, 3, 4096, 8192, 1, 7, 2)]
    sink("damos_esz", 9, scheme=1, esz=None)
    assert listened("damos_esz").written == [struct.pack("<IIQ", 0, 1, 2**64 - 1)]
    sink("damos_stat_after_apply_interval", 9, scheme=1, stats=SchemeStats(1, 2, 3, 4, 5, 6, 7))
    assert listened("damos_stat_after_apply_interval").written == [struct.pack("<II7Q", 0, 1, 1, 2, 3, 4, 5, 6, 7)]
    probed = found.replace(probe_hits=np.array([[3, 4], [300, 0]], u32))
    sink("damon_region_aggregated", 9, snapshot=probed)
    assert listened("damon_region_aggregated").written == [
        struct.pack("<QQQIII4B", 3, 4096, 8192, 2, 1, 7, 3, 255, 0, 0),
        struct.pack("<QQQIII4B", 3, 8192, 12288, 2, 2, 8, 4, 0, 0, 0),
    ]
    sink("damon_monitor_intervals_tune", 9, sample_us=77)
    assert listened("damon_monitor_intervals_tune").written == [struct.pack("<Q", 77)]


def test_tuned_intervals_are_traced_when_they_change() -> None:
    seen: list[tuple[str, int]] = []

    def sink(event: str, time_ns: int, **values: int) -> None:
        seen.append((event, values["sample_us"]))

    tracer = events.Tracer(("damon_monitor_intervals_tune",), [sink])
    sampled = tracer.callbacks().after_sampling
    assert sampled is not None
    for sample_us in (5000, 5000, 8000, 8000):
        clock, intervals = SimpleNamespace(now_ns=lambda: 1), SimpleNamespace(sample_us=sample_us)
        kdamond: Any = SimpleNamespace(intervals=intervals, clock=clock)
        sampled(kdamond)
    assert seen == [("damon_monitor_intervals_tune", 8000)]


def test_events_of_the_kernels_schemes_become_the_same_text() -> None:
    # Texts of the formats below /sys/kernel/tracing/events/damon; damos_esz is not had from this kernel.
    lines: list[str] = []
    tracer = events.Tracer(trace_text.EVENTS, [events.text_sink(lines.append, trace_text.Writer())])
    stats = {"nr_tried": 1, "sz_tried": 2, "nr_applied": 3, "sz_applied": 4, "sz_ops_filter_passed": 5}
    stats |= {"qt_exceeds": 6, "nr_snapshots": 7}
    region = {"target_idx": 1, "nr_regions": 9, "start": 2**63, "end": 2**63 + 4096, "nr_accesses": 3, "age": 11}

    class KernelEngine:
        def follow(self, events: Collection[str], tell: Tell) -> list[str]:
            for event in (
                SchemeEvent(1_500_000_000, "damos_before_apply", {"context_idx": 0, "scheme_idx": 2, **region}),
                SchemeEvent(2_000_000_000, "damos_esz", {"context_idx": 0, "scheme_idx": 2, "esz": 4096}),
                SchemeEvent(
                    2_000_000_000, "damos_stat_after_apply_interval", {"context_idx": 0, "scheme_idx": 0} | stats
                ),
            ):
                tell_scheme_event(event, tell)
            return ["damos_esz"] if events else []

    engine: Any = KernelEngine()
    assert tracer.follow(engine) == ["damos_esz"]
    assert [line.partition("[000] ")[2].strip() for line in lines] == [
        "1.500000: damon:damos_before_apply: ctx_idx=0 scheme_idx=2 target_idx=1 nr_regions=9 "
        "9223372036854775808-9223372036854779904: 3 11",
        "2.000000: damon:damos_esz: ctx_idx=0 scheme_idx=2 esz=4096",
        "2.000000: damon:damos_stat_after_apply_interval: ctx_idx=0 scheme_idx=0 nr_tried=1 sz_tried=2 nr_applied=3 "
        "sz_tried=4 sz_ops_filter_passed=5 qt_exceeds=6 nr_snapshots=7",
    ]
    assert events.Tracer(("damon_aggregated",), []).follow(engine) == []
