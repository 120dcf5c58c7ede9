"""Modules that are loops, on a simulated machine: whole runs, in virtual time."""

from __future__ import annotations

import pytest

from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.workload import model

MIB = 1 << 20
HOT_AND_COLD = "hot, 20 MiB\ncold, 80 MiB\n\nsteady\n600000\nhot, 0, 4096, 1\n"


def run(*modules: str, seconds: int = 100, text: str = HOT_AND_COLD, panel: int | None = 0) -> tuple[Run, list[str]]:
    said: list[str] = []
    spec = make_spec(ops="sim", modules=list(modules), sample=200_000, aggr=1_000_000)
    request = Request(workload=model.parse(text, source="x"), duration_ns=seconds * 1_000_000_000, panel=panel)
    with Run(spec, request, say=said.append) as made:
        made.run()
    return made, said


def test_by_pressure_cold_memory_goes_and_what_is_in_use_stays() -> None:
    made, _ = run("reclaim driver=pressure interval=1s probe=5%")
    machine = made.engine.simulated
    assert machine is not None
    summary = machine.summary()
    assert summary.resident_bytes == 20 * MIB
    assert summary.faults == 0
    (done,) = made.acts()
    assert done.done_bytes == 80 * MIB  # 5 % of what was left, and nobody ever waited
    assert done.module == "reclaim"


def test_one_percent_per_interval_is_as_worked_by_hand() -> None:
    """After n steps of 1 % there is 100 MiB x 0.99^n, rounded down to pages each time."""
    made, _ = run("reclaim driver=pressure interval=2s", seconds=60)
    left, (done,) = 100 * MIB, made.acts()
    for _ in range(done.count):
        left -= left // 100 // 4096 * 4096
    assert 28 <= done.count <= 30
    assert made.engine.simulated is not None
    assert made.engine.simulated.summary().resident_bytes == left


def test_what_comes_back_is_pressure_and_stops_it() -> None:
    """All is used in turn, a part each 8 s: what was taken is waited for, and it stops asking for more."""
    parts = "".join(f"p{n}, 16 MiB\n" for n in range(6))
    text = parts + "".join(f"\nuse{k}\n8000\np{k % 6}, 0, 4096, 1\n" for k in range(12))
    calm, _ = run("reclaim driver=pressure interval=1s probe=5%", text=text, seconds=96)
    eager, _ = run("reclaim driver=pressure interval=1s probe=5% psi=100% io_psi=100%", text=text, seconds=96)
    taken = [sum(done.done_bytes for done in made.acts()) for made in (calm, eager)]
    assert 0 < taken[0] < taken[1] / 2


def test_what_is_not_simulated_is_said() -> None:
    with pytest.raises(RequestError, match="zram_writeback"):
        run("zram_writeback interval=1s", seconds=5)


def test_by_refaults_the_age_is_set_by_what_really_comes_back() -> None:
    """8 of 10 parts are used in turn, each every 40 s; 2 are used all the time.

    With an age of 20 s 16 MiB would come back every 5 s, far more than 0.2 %. For two minutes nothing is taken; then
    the panel says 40 s, at which nothing comes back.
    """
    parts = "".join(f"p{n}, 16 MiB\n" for n in range(10))
    use = "".join(f"\nuse{k}\n5000\np8, 0, 4096, 1\np9, 0, 4096, 1\np{k % 8}, 0, 4096, 1\n" for k in range(120))
    made, said = run("reclaim driver=refaults min_age=20s watermarks=off", text=parts + use, seconds=160, panel=None)
    assert made.engine.simulated is not None
    assert made.engine.simulated.summary().faults == 0
    age = made.engine.context.schemes[0].access_pattern.age.min
    assert age.value is not None
    assert 30_000_000 < age.value <= 40_000_000
    assert said[0] == "module reclaim: set the minimum age of scheme reclaim to 1 d"
    fixed, _ = run("reclaim min_age=20s watermarks=off", text=parts + use, seconds=60, panel=0)
    assert fixed.engine.simulated is not None
    assert fixed.engine.simulated.summary().faults * 4096 >= 100 * MIB
