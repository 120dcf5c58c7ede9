"""What is monitored is kept once: the latest, a bounded history, and the same from a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pydamon.analysis.panel import estimate, estimates, look_of
from pydamon.analysis.summary import Layout, holdings
from pydamon.core.panel import BOUNDS_S
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.linux.process import Mapping
from pydamon.records.joined import open_record
from pydamon.run.found import Found, Origin
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec import Context, Intervals, Kdamond, Scheme, Spec, Target
from pydamon.views.fields import fields_of
from pydamon.views.live import WINDOWS_S, Live, by_clock, live, read
from pydamon.views.moments import Moment
from pydamon.views.recorded import Recorded
from pydamon.views.store import Store

MIB = 1 << 20
SECOND = 10**9
ORIGIN = Origin("user", "none other", "vaddr", "bpf", "the best", [], 5 * SECOND)


def snapshot(target: int, at_ns: int, **more: Any) -> Snapshot:
    """10 MiB that are accessed, 20 MiB idle for 5 s, 70 MiB for 100 s; half of each is resident."""
    edges = np.array([0, 10, 30, 100], np.uint64) * np.uint64(MIB)
    return Snapshot(
        target, at_ns - SECOND, at_ns, 10_000, SECOND // 1000, edges[:-1], edges[1:],
        np.array([50, 0, 0], np.uint32), np.array([1, 5, 100], np.uint32),
        resident=np.array([5, 10, 35], np.uint64) * np.uint64(MIB), **more,
    )  # fmt: skip


def look(target: int, at_ns: int, *, used: int, older: int, unseen_s: int) -> dict[str, Any]:
    """Of pages that stand for 50 MiB: so many used within a second, so many never seen used, for so long."""
    idle, unseen = [0] * len(BOUNDS_S), [0] * len(BOUNDS_S)
    idle[0] = used
    unseen[max(place for place, bound in enumerate(BOUNDS_S) if bound <= unseen_s)] = older
    return {
        "time_ns": at_ns, "target": target, "resident_bytes": 50 * MIB, "pages": used + older, "unknown": 0,
        "idle": idle, "unseen": unseen, "ended": [0] * len(BOUNDS_S),
    }  # fmt: skip


def found(at_ns: int, *targets: int, second: bool = True, **tables: list[dict[str, Any]]) -> Found:
    snapshots = [snapshot(target, at_ns) for target in targets]
    return Found(at_ns, snapshots, dict.fromkeys(targets, MAPPINGS), tables, second)


MAPPINGS = [
    Mapping(0, 30 * MIB, "rw-p", 0, 0, "[heap]"),
    Mapping(30 * MIB, 100 * MIB, "r--p", 0, 7, "/usr/lib/libx.so"),
]


def filled(seconds: int, *targets: int, panel: bool = True) -> Store:
    store = Store()
    store.begin(ORIGIN)
    for second in range(1, seconds + 1):
        rows = [look(one, second * SECOND, used=256, older=768, unseen_s=second - 1) for one in targets]
        store.note(found(second * SECOND, *targets, panel=rows if panel else []))
    return store


def latest(store: Store) -> Moment:
    moment = store.latest()
    assert moment is not None
    return moment


def test_what_is_used_within_a_time_is_told_with_an_error_by_the_panel() -> None:
    (target,) = live(latest(filled(7, 0))).targets
    assert target.by == "panel"
    assert target.resident_bytes == 50 * MIB
    # Of 1,024 pages 256 were used. What was first seen 7 s ago may be idle for longer: no window above is told.
    assert [used.window_s for used in target.used] == [1, 2, 5]
    for used in target.used:
        assert used.bytes == pytest.approx(50 * MIB / 4, rel=0.01)
        assert used.low_bytes is not None
        assert used.high_bytes is not None
        # Wilson's interval of 256 of 1,024, of 12,800: 0.25 ± 1.96 × √(0.25 × 0.75 / 1024) × √(1 - 0.08)
        assert used.high_bytes - used.low_bytes == pytest.approx(50 * MIB * 2 * 0.0254, rel=0.02)


def test_without_a_panel_the_regions_tell_it_without_an_error() -> None:
    (target,) = live(latest(filled(100, 0, panel=False))).targets
    assert target.by == "regions"
    sizes = {used.window_s: used.bytes // MIB for used in target.used}
    # 5 MiB were accessed, 10 MiB were 5 s ago, 35 MiB were 100 s ago, which is as long as it is monitored.
    assert sizes == {1: 5, 2: 5, 5: 5, 10: 15, 20: 15, 30: 15, 60: 15}
    assert {used.low_bytes for used in target.used} == {None}


def test_heat_is_told_by_kind_and_by_mapping() -> None:
    view = live(latest(filled(3, 0)))
    (target,) = view.targets
    kinds = {
        heat.kind: (heat.hot_bytes // MIB, heat.warm_bytes // MIB, heat.cold_bytes // MIB) for heat in target.kinds
    }
    assert kinds == {"anonymous": (5, 10, 0), "file": (0, 0, 35), "shared": (0, 0, 0)}
    library, heap = target.mappings
    assert (library.name, library.bytes, library.idle_ms, library.rate_bp) == ("libx.so", 35 * MIB, 100_000, 0)
    # 5 of 15 MiB with half of its 100 samples
    assert (heap.name, heap.bytes, heap.idle_ms, heap.rate_bp) == ("[heap]", 15 * MIB, 0, 1667)
    assert live(latest(filled(3, 0)), mappings=[]).targets[0].mappings == []
    assert live(latest(filled(3, 0)), mappings=[]).targets[0].kinds == target.kinds


def test_all_together_are_a_stratified_sample() -> None:
    one, both = (live(latest(filled(5, *targets))).total for targets in ([0], [0, 1]))
    assert both.by == "panel"
    assert both.resident_bytes == 100 * MIB
    assert both.used[0].bytes == pytest.approx(2 * one.used[0].bytes, rel=0.01)
    assert one.used[0].high_bytes is not None
    assert both.used[0].high_bytes is not None
    assert both.used[0].high_bytes - both.used[0].bytes < 1.6 * (one.used[0].high_bytes - one.used[0].bytes)
    assert [heat.cold_bytes // MIB for heat in both.kinds] == [70, 0, 0]
    plain = live(latest(filled(100, 0, 1, panel=False))).total
    assert (plain.by, plain.used[0].bytes, plain.used[0].low_bytes) == ("regions", 10 * MIB, None)


def test_a_target_that_has_no_snapshot_any_more_is_gone_and_forgotten() -> None:
    store = filled(3, 0, 1, 2)
    store.note(found(4 * SECOND, 2))
    assert list(latest(store).targets) == [2]
    before = store.at(3 * SECOND)
    assert before is not None
    assert list(before.targets) == [0, 1, 2]
    held = vars(store)
    assert {key for name in ("_mapped", "_looks", "_first_looks") for key in held[name]} == {2}


def test_one_goes_back_and_forth_in_time() -> None:
    store = filled(10, 0)
    assert store.span() == (SECOND, 10 * SECOND)
    at = store.at(int(4.5 * SECOND))
    assert at is not None
    assert at.time_ns == 4 * SECOND
    steps = [store.step(at, by) for by in (-1, 1, -100, 100)]
    assert [step.time_ns // SECOND for step in steps if step is not None] == [3, 5, 1, 10]
    first = store.at(0)
    assert first is not None
    assert first.time_ns == SECOND
    assert live(at).time_unix_ns == 9 * SECOND
    empty = Store()
    assert (empty.latest(), empty.at(0), empty.span(), empty.step(at, 1)) == (None, None, None, None)


def test_history_is_kept_by_time_and_bounded_in_bytes() -> None:
    store = Store(most_bytes=100_000, every_ns=SECOND)
    store.begin(ORIGIN)
    for tenth in range(10_000):
        store.note(found(tenth * SECOND // 10, 0, second=tenth % 10 == 0))
    span = store.span()
    assert span is not None
    assert span[1] == 9999 * SECOND // 10  # the latest is always there
    kept: list[Moment] = []
    moment = store.at(0)
    while moment is not None and (not kept or moment.time_ns > kept[-1].time_ns):
        kept.append(moment)
        moment = store.step(moment, 1)
    steps = np.diff([one.time_ns for one in kept])
    assert set(steps[:-1].tolist()) == {SECOND}  # before the latest
    assert kept[-2].time_ns == 999 * SECOND
    assert 100 < len(kept) < 300  # of some 500 bytes: 3 regions, and who it is


def test_the_time_is_that_of_the_clock_as_it_is_now() -> None:
    view = live(latest(filled(10, 0)))
    assert view.time_unix_ns == 15 * SECOND  # the clock was 5 s ahead when it began
    assert by_clock(view, 5 * SECOND + SECOND // 2) is view
    assert by_clock(view, 3605 * SECOND + 12_345).time_unix_ns == 3615 * SECOND
    assert by_clock(view, -5 * SECOND).time_unix_ns == 5 * SECOND
    simulated = msgspec.structs.replace(view, time_unix_ns=None)
    assert by_clock(simulated, 9 * SECOND).time_unix_ns is None


def test_it_is_told_as_json_and_read_again() -> None:
    view = live(latest(filled(12, 0, 1)))
    told = json.loads(msgspec.json.encode(view))
    assert read(told) == view
    with pytest.raises(PydamonError, match="another version"):
        read({"time_ns": "never"})
    fields = fields_of(Live)
    assert fields["targets[].used[].bytes"].unit == "bytes"
    assert fields["total.kinds[].cold_bytes"].kind == "gauge"
    assert fields["schemes[].stats.sz_applied_bytes"].kind == "counter"


def simulated(path: Path | None, **request: Any) -> tuple[Run, Store]:
    intervals = Intervals(sample_us=10_000, aggr_us=200_000)
    context = Context(ops="sim", targets=(Target(),), intervals=intervals, schemes=(Scheme(action="stat"),))
    spec = Spec(kdamonds=(Kdamond(contexts=(context,)),))
    store = Store(every_ns=0)
    output = "" if path is None else str(path)
    asked = Request(output=output, workload="stairs", duration_ns=30 * SECOND, seed=3, **request)
    return Run(spec, asked, observers=[store]), store


def test_a_record_has_the_moments_that_the_store_had(tmp_path: Path) -> None:
    run, store = simulated(tmp_path / "r")
    with run:
        run.run()
    with open_record(str(tmp_path / "r")) as reader:
        recorded = Recorded(reader)
        assert recorded.span() == (SECOND // 5, 30 * SECOND)
        for second in (2, 7, 15, 29):
            half_ns = second * SECOND + SECOND // 2  # a look at the panel is told an aggregation later
            then, again = store.at(half_ns), recorded.at(half_ns)
            assert then is not None
            assert again is not None
            assert then.time_ns == again.time_ns
            mine, theirs = live(then), live(again)
            assert mine.targets == theirs.targets
            assert mine.total == theirs.total
            assert mine.schemes == theirs.schemes
            assert mine.schemes[0].stats["nr_tried"] > 0
            assert len(mine.targets[0].used) > 1
        moment = recorded.latest()
        assert moment is not None
        for by, wanted in ((-1, -1), (-10, -11), (1, -10), (1000, 0)):
            moment = recorded.step(moment, by)
            assert moment is not None
            assert moment.time_ns == 30 * SECOND + wanted * SECOND // 5


def test_parts_of_a_record_are_one_history(tmp_path: Path) -> None:
    run, store = simulated(tmp_path / "r.damon", rotate=(None, 8 * SECOND))
    with run:
        run.run()
    assert len(list(tmp_path.iterdir())) > 2
    with open_record(str(tmp_path / "r.*.damon")) as reader:
        recorded = Recorded(reader)
        assert recorded.span() == (SECOND // 5, 30 * SECOND)
        for second in (3, 12, 20, 29):
            then, again = store.at(second * SECOND + SECOND // 2), recorded.at(second * SECOND + SECOND // 2)
            assert then is not None
            assert again is not None
            assert live(then).targets == live(again).targets
        moment = recorded.at(0)
        times: list[int] = []
        while moment is not None and (not times or moment.time_ns != times[-1]):
            times.append(moment.time_ns)
            moment = recorded.step(moment, 1)
        assert times == [SECOND // 5 * n for n in range(1, 151)]


def test_mappings_are_laid_out_once() -> None:
    layout = Layout(MAPPINGS)
    assert holdings(snapshot(0, SECOND), layout) == holdings(snapshot(0, SECOND), MAPPINGS)
    store = filled(2, 0)
    earlier, later = store.at(SECOND), store.latest()
    assert earlier is not None
    assert later is not None
    assert earlier.targets[0].mapped is later.targets[0].mapped


def test_several_windows_at_once_are_each_as_by_itself() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        row = look(0, 500 * SECOND, used=0, older=0, unseen_s=0)
        row["idle"] = rng.integers(0, 30, len(BOUNDS_S)).tolist()
        row["unseen"] = (rng.integers(0, 30, len(BOUNDS_S)) * (np.arange(len(BOUNDS_S)) > rng.integers(40))).tolist()
        one = look_of(row)
        assert one is not None
        for first_ns in (0, 450 * SECOND):
            found = estimates(one, WINDOWS_S, first_ns)
            assert found == [estimate([one], window_s, first_ns) for window_s in WINDOWS_S]
            assert any(found)


def test_windows_are_bounds_of_panels_and_of_reports() -> None:
    assert set(WINDOWS_S) <= set(BOUNDS_S)
