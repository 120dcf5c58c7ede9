"""`pydamon.Monitor` and `make_spec`: engines, endings, errors, results as tables."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.waiting import wait_until

import pydamon
from pydamon.core.snapshot import max_nr_accesses
from pydamon.engines.base import Choice
from pydamon.linux.damon_trace import STAT


def sim(**more: object) -> pydamon.Monitor:
    return pydamon.Monitor(pydamon.make_spec(ops="sim"), workload="stairs", **more)  # type: ignore[arg-type]


@pytest.fixture
def sleeper(processes: None) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"], stdout=-1)
    assert process.stdout
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


def test_everything_that_is_promised_is_there() -> None:
    for name in pydamon.__all__:
        assert getattr(pydamon, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pydamon.nonsense


@pytest.mark.usefixtures("processes")
def test_importing_it_is_cheap() -> None:
    code = "import sys, pydamon; print('numpy' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_same_as_the_command_gives(tmp_path: Path) -> None:
    from pydamon.cli import main

    out = tmp_path / "cli.damon"
    assert main(["record", "--ops", "sim", "--workload", "stairs", "--duration", "3s", "-o", str(out)]) == 0
    with sim(duration="3s") as monitor, pydamon.open_record(str(out)) as record:
        ours, theirs = pydamon.to_numpy(monitor), pydamon.to_numpy(record)
    assert ours.keys() == theirs.keys()
    for name, column in ours.items():
        assert np.array_equal(column, theirs[name]), name


def test_a_record_of_the_library_is_one_of_the_command(tmp_path: Path) -> None:
    path = str(tmp_path / "x.damon")
    with sim(duration="2s") as monitor:
        assert monitor.record(path) == 20
        assert monitor.notices == []
    with pydamon.open_record(path) as record:
        table = pydamon.to_arrow(record)
        assert record.info.ops == "sim"
    assert table.column_names == [
        "target", "start_ns", "end_ns", "sample_us", "aggr_us", "start", "end", "nr_accesses", "age",
        "resident", "age_ms",
    ]  # fmt: skip
    assert len(set(table["end_ns"].to_pylist())) == 20


def test_leaving_the_loop_ends_it() -> None:
    with sim() as monitor:
        for _ in monitor:
            break
        with pytest.raises(pydamon.PydamonError, match="can be iterated once"):
            list(monitor)
    with pytest.raises(pydamon.PydamonError, match="is closed"):
        list(monitor)


def test_it_can_be_closed_without_having_begun(sleeper: int) -> None:
    spec = pydamon.make_spec(sleeper, primitive="smaps")
    pydamon.Monitor(spec).close()
    with sim() as monitor:
        monitor.stop()


def test_a_process_and_a_stop_from_another_thread(sleeper: int) -> None:
    spec = pydamon.make_spec(sleeper, primitive="smaps", sample="1s", aggr="60s")
    with pydamon.Monitor(spec) as monitor:
        threading.Timer(0.2, monitor.stop).start()
        began = time.monotonic()
        assert list(monitor) == []  # no aggregation was completed
        assert time.monotonic() - began < 30  # the sleep of 1 s was cut short, not the one of a minute
        cost = monitor.cost()
        assert cost is not None
        assert monitor.choice.name == "smaps"


def test_parameters_change_while_it_runs() -> None:
    with sim(duration="4s") as monitor:
        counts = []
        for number, snapshot in enumerate(monitor):
            if number == 10:
                monitor.commit(
                    nr_regions=pydamon.NrRegions(min=3, max=12), schemes=(pydamon.make_scheme("stat name=x"),)
                )
            counts.append(len(snapshot.start))
        assert max(counts[:10]) > 12 >= max(counts[20:])
        assert [state.scheme.name for state in monitor.schemes] == ["x"]
        assert monitor.cost() is None


class TestAsync:
    def test_all_snapshots_come(self) -> None:
        async def count() -> int:
            with sim(duration="3s") as monitor:
                return len([snapshot async for snapshot in monitor])

        assert asyncio.run(count()) == 30

    def test_other_tasks_go_on_and_a_slow_reader_loses_nothing(self) -> None:
        async def count() -> tuple[int, int]:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            seen = 0
            with sim(duration="4s") as monitor:
                async for _ in monitor:
                    seen += 1
                    await asyncio.sleep(0.002)
            task.cancel()
            return seen, turns

        seen, turns = asyncio.run(count())
        assert seen == 40
        assert turns > 40

    def test_leaving_early_ends_the_monitoring(self) -> None:
        async def first() -> int:
            with sim() as monitor:
                async for snapshot in monitor:
                    return len(snapshot.start)
            return 0

        before = threading.active_count()
        assert asyncio.run(first()) > 0
        wait_until(lambda: threading.active_count() <= before)
        assert not any(thread.name == "pydamon" for thread in threading.enumerate())

    def test_an_error_reaches_who_iterates(self) -> None:
        def fail(_: object) -> None:
            raise ValueError("mine")

        async def run() -> None:
            with sim(callbacks=pydamon.Callbacks(after_aggregation=fail)) as monitor:
                async for _ in monitor:
                    pass

        with pytest.raises(ValueError, match="mine"):
            asyncio.run(run())


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: pydamon.make_spec(), "targets"),
        (lambda: pydamon.make_spec(1, sample="5"), "intervals.sample_us"),
        (lambda: pydamon.make_spec(1, regions=(10, 2)), "nr_regions"),
        (lambda: pydamon.make_spec(1, schemes=["pagout"]), r"schemes\[0\]"),
        (lambda: pydamon.make_spec(1, schemes=["stat", {"action": "x"}]), r"schemes\[1\].action"),
        (lambda: pydamon.make_spec(1, colour="red"), "colour"),
        (lambda: pydamon.make_scheme("stat size>=1Q"), "size"),
        (lambda: pydamon.Monitor(pydamon.make_spec(ops="sim")), "workload"),
        (lambda: pydamon.Monitor(pydamon.make_spec(ops="sim"), "user", workload="stairs"), "engine"),
        (lambda: pydamon.Monitor(pydamon.make_spec(ops="sim"), "x", workload="stairs"), "engine"),  # type: ignore[arg-type]
        (lambda: pydamon.Monitor(pydamon.Spec(modules={"damon_stat": {}})), "kdamonds"),
        (lambda: pydamon.Monitor(pydamon.make_spec(ops="reported")), "source"),
        (lambda: pydamon.Monitor(pydamon.make_spec(1 << 22 | 1)), "4194305"),
        (lambda: pydamon.Monitor(pydamon.make_spec(ops="sim"), workload="stairs", duration="3"), "3"),
    ],
)
def test_what_is_wrong_is_named(make: object, where: str) -> None:
    with pytest.raises(pydamon.RequestError, match=where):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("spec", "tuned"),
    [
        (lambda: pydamon.make_spec(1), True),
        (lambda: pydamon.make_spec({"cgroup": "/x"}), True),
        (lambda: pydamon.make_spec(ops="paddr"), True),
        (lambda: pydamon.make_spec(1, sample="5ms", auto=True), True),
        (lambda: pydamon.make_spec(ops="sim", auto=True), True),
        (lambda: pydamon.make_spec(1, sample="5ms"), False),
        (lambda: pydamon.make_spec(1, aggr="100ms"), False),
        (lambda: pydamon.make_spec(1, auto=False), False),
        (lambda: pydamon.make_spec(1, faithful=True), False),
        (lambda: pydamon.make_spec(1, intervals={"sample_us": 5_000}), False),
        (lambda: pydamon.make_spec(ops="sim"), False),
        (lambda: pydamon.make_spec(ops="reported"), False),
    ],
)
def test_intervals_that_nobody_said_are_those_that_fit(spec: Callable[[], pydamon.Spec], tuned: bool) -> None:
    intervals = spec().context.intervals
    assert (intervals.intervals_goal is not None) == tuned
    assert (intervals.sample_us, intervals.aggr_us) == (5_000, 100_000)


def test_auto_takes_the_kernels_damon_only_where_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = "is in use by somebody else"
    monkeypatch.setattr("pydamon.run.kernel.obstacle_to_kernel", lambda spec, roots: busy)
    with pydamon.Monitor(pydamon.make_spec(os.getpid(), primitive="smaps"), "auto", duration="1s") as monitor:
        assert (monitor.chosen.name, monitor.choice.name) == ("user", "smaps")
        assert busy in monitor.chosen.reason
    monkeypatch.setattr("pydamon.run.kernel.obstacle_to_kernel", lambda spec, roots: None)
    spec = pydamon.make_spec(os.getpid(), primitive="smaps")
    with pydamon.Monitor(spec, "auto", dry_run=True) as monitor:
        assert monitor.chosen.reason == "not the kernel's DAMON: dry_run is only with the user engine"


@pytest.mark.parametrize("error", [pydamon.MachineError, pydamon.RequestError])
def test_auto_takes_the_user_engine_where_the_kernel_lacks_something(
    monkeypatch: pytest.MonkeyPatch, error: type[pydamon.PydamonError]
) -> None:
    def lacks(*args: object, **options: object) -> None:
        raise error("has no file for it", where="intervals.intervals_goal")

    monkeypatch.setattr("pydamon.run.kernel.obstacle_to_kernel", lambda spec, roots: None)
    monkeypatch.setattr("pydamon.run.kernel.open_kernel_engine", lacks)
    spec = pydamon.make_spec(os.getpid(), primitive="smaps")
    with pydamon.Monitor(spec, "auto") as monitor:
        assert monitor.chosen.name == "user"
        assert monitor.chosen.reason == "not the kernel's DAMON: intervals.intervals_goal: has no file for it"
    monkeypatch.setattr("pydamon.run.kernel.choose_engine", lambda *args, **options: Choice("kernel", ""))
    with pytest.raises(error):
        pydamon.Monitor(spec, "kernel")


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    return True


def test_a_record_that_cannot_be_written_leaves_nothing_open(tmp_path: Path) -> None:
    before = descriptors()
    with (
        pydamon.Monitor(pydamon.make_spec(os.getpid(), primitive="smaps")) as monitor,
        pytest.raises(pydamon.PydamonError),
    ):
        monitor.record(str(tmp_path / "none" / "x.damon"))
    assert descriptors() == before


def test_an_iterator_that_is_kept_is_closed_with_the_monitor() -> None:
    before = descriptors()
    with pydamon.Monitor(pydamon.make_spec(os.getpid(), primitive="smaps"), duration="20s") as monitor:
        snapshots = iter(monitor)
        next(snapshots)
    assert descriptors() == before
    assert list(snapshots) == []


def test_a_late_stop_writes_to_nobodys_file(tmp_path: Path) -> None:
    with sim(duration="1s") as monitor:
        list(monitor)
    with open(tmp_path / "file", "wb") as first, open(tmp_path / "other", "wb") as second:
        monitor.stop()
        assert first.tell() == second.tell() == 0
    assert [(tmp_path / name).read_bytes() for name in ("file", "other")] == [b"", b""]


def test_leaving_an_asynchronous_loop_early_closes_the_pipe_when_it_has_ended(tmp_path: Path) -> None:
    before = descriptors()

    async def first() -> None:
        with pydamon.Monitor(pydamon.make_spec(os.getpid(), primitive="smaps"), duration="20s") as monitor:
            async for _ in monitor:
                break

    asyncio.run(first())
    assert descriptors() == before


def test_a_frame_library_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with sim(duration="1s") as monitor:
        snapshots = list(monitor)
    monkeypatch.setitem(sys.modules, "polars", None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    for convert in (pydamon.to_pandas, pydamon.to_polars):
        with pytest.raises(pydamon.MachineError, match="is not installed; pip install"):
            convert(snapshots)


def test_frames(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with sim(duration="1s") as monitor:
        snapshots = list(monitor)
    frame = pydamon.to_pandas(snapshots[-1])
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(snapshots[-1].start)


def test_polars_frames() -> None:
    polars = pytest.importorskip("polars")
    with sim(duration="1s") as monitor:
        snapshots = list(monitor)
    frame = pydamon.to_polars(snapshots)
    assert isinstance(frame, polars.DataFrame)
    assert frame["end"].to_list() == [end for snapshot in snapshots for end in snapshot.end.tolist()]


def test_nothing_makes_an_empty_table() -> None:
    assert pydamon.to_arrow([]).num_rows == 0


def test_schemes_see_whole_aggregations_also_after_their_length_was_changed() -> None:
    """A scheme that was out of step with the aggregation saw a part of the hits, from then on."""
    seen: list[tuple[int, int]] = []

    def sampled(kdamond: Any) -> None:
        if kdamond.passed_samples in (30, 95):
            longer = 160_000 if kdamond.passed_samples == 30 else 90_000
            monitor.commit(intervals=pydamon.Intervals(sample_us=5000, aggr_us=longer))

    def passed(event: str, time_ns: int, **values: Any) -> None:
        most = max(int(part.probe_hits.max()) for part in monitor.schemes[values["scheme"]].tried)
        seen.append((most, max_nr_accesses(monitor.intervals.sample_us, monitor.intervals.aggr_us)))

    spec = pydamon.make_spec(ops="sim", schemes=["stat"], probes=[{}])
    calls = pydamon.Callbacks(after_sampling=sampled)
    with pydamon.Monitor(spec, workload="stairs", duration="3s", callbacks=calls) as monitor:
        assert monitor.engine.follow([STAT], passed) == []
        for _ in monitor:
            pass
    # Not all memory of the simulated process is there; the whole of what is has all samples.
    assert {window for _, window in seen} == {20, 32, 18}
    assert all(most == window for most, window in seen)


def test_a_simulation_that_pauses_goes_on_to_its_end_without_a_sample() -> None:
    with sim(duration="1s") as monitor:
        seen = []
        for snapshot in monitor:
            seen.append(snapshot.end_ns)
            if len(seen) == 3:
                monitor.commit(pause=True)
        assert len(seen) == 3
        assert monitor.engine.clock.now_ns() == 10**9


def test_probes_can_be_committed() -> None:
    counts = []
    with pydamon.Monitor(pydamon.make_spec(ops="sim"), workload="stairs", duration="1s") as monitor:
        for snapshot in monitor:
            counts.append(len(snapshot.probe_hits))
            if len(counts) == 3:
                monitor.commit(probes=(pydamon.Probe(),))
    assert counts[:3] == [0, 0, 0]
    assert counts[5:] == [1] * len(counts[5:])
