"""Policies beside each other on a simulated machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pydamon.run.simulation import programs
from pydamon.run.simulation.results import Result
from pydamon.run.simulation.runs import Policy, Setting, compare
from pydamon.spec import Intervals
from pydamon.spec.forms.scheme_short import parse_short
from pydamon.spec.machine import parse_machine
from pydamon.workload import model
from pydamon.workload.program import Phases, Program

MIB = 1 << 20
S = 1_000_000_000
COARSE = Intervals(sample_us=50_000, aggr_us=1_000_000)


def run(
    program: Program | str, *texts: str, machine: str = "swap=zram", seconds: float = 60, **more: object
) -> list[Result]:
    """Without a policy, and with the scheme or the module that each text is."""
    one = Phases(model.parse(program, source="x"), "x") if isinstance(program, str) else program
    policies = [
        Policy(text, modules=(text,)) if text.startswith("reclaim") else Policy(text, (parse_short(text),))
        for text in texts
    ]
    setting = Setting(
        programs=(one,),
        machine=parse_machine(machine),
        duration_ns=int(seconds * S),
        repeat=0,
        **{"intervals": COARSE} | more,  # type: ignore[arg-type]
    )
    return compare(setting, policies, say=lambda line: None)


STEADY = "hot, 32 MiB\ncold, 96 MiB\n\np\n600000\nhot, 0, 4096, 1\n"


def test_cold_memory_is_saved_and_costs_nothing_but_its_cpu() -> None:
    nothing, policy = run(STEADY, "pageout rate=0% age>=5s")
    assert nothing.saved_bytes == nothing.refault_bytes == 0
    assert nothing.used_bytes == pytest.approx(128 * MIB, rel=0.01)
    # Cold for 5 s after some seconds of 60: of 96 MiB two thirds are saved, as zram keeps a third; regions may lag.
    assert 0.6 * 64 * MIB < policy.saved_bytes < 64 * MIB
    assert policy.slowdown < 0.001
    assert policy.scheme_share > 0
    assert policy.counters["pswpout"] * 4096 == policy.schemes[0].stats["sz_applied"]
    assert policy.timeline[0][1] == 128 * MIB > policy.timeline[-1][1]
    assert policy.processes[0].resident_bytes == policy.resident_bytes


def test_equal_seeds_equal_results() -> None:
    assert run(STEADY, "pageout rate=0% age>=5s", seed=3) == run(STEADY, "pageout rate=0% age>=5s", seed=3)


def test_a_module_runs_in_it_and_its_watermarks_hold_it_back() -> None:
    _, off, held = run(STEADY, "reclaim min_age=5s watermarks=off", "reclaim min_age=5s")
    assert off.saved_bytes > 10 * MIB
    assert held.saved_bytes == 0  # half of the memory is free


def test_slow_memory_and_huge_pages_show_in_the_slowdown() -> None:
    nothing, far, huge = run(
        STEADY, "migrate_hot node=1 rate>=5%", "hugepage size>=2MiB", machine="nodes=128MiB+128MiB swap=off", seconds=20
    )
    assert nothing.slowdown == pytest.approx(0, abs=1e-3)
    # 5 million accesses a second to memory, 160 ns slower each, as soon as all is there.
    assert far.parts["slow memory"] == pytest.approx(0.8, rel=0.35)
    assert huge.parts["huge pages"] < -0.03
    assert far.counters["pgmigrate_success"] >= 32 * MIB // 4096
    assert far.node_bytes[1] >= 32 * MIB


def test_the_knee_of_time_quotas() -> None:
    """DAMON_RECLAIM's published table: 10 ms/s saves little, 50 ms/s most, 200 ms/s all that there is to save.

    (4.55, 40.84, 48.42 and, without a quota, 47.16 %; slowdown 2.5, 4.5, 4.7, 5.4 %.)
    """
    steps = 12
    text = "hot, 200 MiB\n" + "".join(f"s{step}, 160 MiB\n" for step in range(steps))
    text += "".join(f"\nstep{step}\n8000\nhot, 0, 4096, 1\ns{step}, 0, 4096, 1\n" for step in range(steps))
    quotas = ("10ms", "50ms", "200ms")
    policies = [f"pageout rate=0% age>=5s quota={quota}/1s" for quota in quotas] + ["pageout rate=0% age>=5s"]
    _, low, middle, high, none = run(text, *policies, seconds=200)
    assert low.saved_bytes < 0.5 * none.saved_bytes
    assert 0.8 * none.saved_bytes < middle.saved_bytes < 1.02 * high.saved_bytes
    assert high.saved_bytes == pytest.approx(none.saved_bytes, rel=0.05)
    slowdowns = [low.slowdown, middle.slowdown, high.slowdown]
    assert slowdowns == sorted(slowdowns)
    shares = [low.scheme_share, middle.scheme_share, high.scheme_share]
    assert shares == sorted(shares)
    assert low.scheme_share <= 0.0105  # 10 ms in a second


def test_a_trace_is_a_program(tmp_path: Path) -> None:
    """A page 50 times as hot as the others, for two million instructions."""
    trace = tmp_path / "trace"
    rng = np.random.default_rng(1)
    lines = []
    for page in rng.choice(64, 20_000, p=[50 / 113, *[1 / 113] * 63]).tolist():
        lines.append(f"I  {0x400000 + 4096 * 100:x},4\n L {0x800000 + page * 4096:x},8\n" + "I  464000,4\n" * 9)
    trace.write_text("".join(lines))
    (program,) = programs.gather([f"lackey:{trace}"]).programs
    layout = program.place(0, "one")
    assert layout.mappings[-1].end - layout.mappings[-1].start == 64 * 4096
    schedule = program.schedule(0, repeat=1, time_scale=1.0)
    assert schedule.end_ns == 200_000  # instructions
    known = program.accesses(layout, 1, 1)
    spans = np.array([[0x800000 + page * 4096, 0x800000 + (page + 1) * 4096] for page in range(64)], np.int64)
    counts = known.accesses(spans, schedule, 0, 200_000)
    assert counts[0] == pytest.approx(20_000 * 50 / 113, rel=0.2)
    assert counts[1:].sum() == pytest.approx(20_000 * 63 / 113, rel=0.2)
    (result,) = run(program, machine="ram=16MiB", seconds=0.002, intervals=Intervals(sample_us=5, aggr_us=100))
    assert result.resident_bytes == sum(place.end - place.start for place in layout.regions)
