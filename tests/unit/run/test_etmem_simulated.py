"""`etmem` on a simulated machine: by regions and page by page, in virtual time."""

from __future__ import annotations

import pytest

from pydamon.library.build import make_spec
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.workload import model

MIB = 1 << 20
TEXT = "cold, 24 MiB\nhot, 8 MiB\n\nsteady\n600000\nhot, 0, 4096, 1\n"


def run(module: str, seconds: int = 40) -> Run:
    spec = make_spec(ops="sim", modules=[module], sample=100_000, aggr=1_000_000)
    request = Request(workload=model.parse(TEXT, source="x"), duration_ns=seconds * 1_000_000_000, panel=0)
    with Run(spec, request) as made:
        made.run()
    return made


def resident(made: Run) -> int:
    assert made.engine.simulated is not None
    return made.engine.simulated.summary().resident_bytes


@pytest.mark.parametrize("scan", ["region", "page loop=2 interval=500ms sleep=1s"])
def test_what_is_cold_goes_and_what_is_in_use_stays(scan: str) -> None:
    made = run(f"etmem scan={scan} min_age=2s")
    assert made.engine.simulated is not None
    assert resident(made) == 8 * MIB
    assert made.engine.simulated.summary().faults == 0


def test_page_by_page_each_page_is_judged_by_itself() -> None:
    made = run("etmem scan=page interval=1s", seconds=5)
    context = made.engine.context
    assert (context.intervals.sample_us, context.nr_regions.min) == (1_000_000, 1_000_000)
    assert resident(made) == 8 * MIB


def test_a_share_stays_however_cold() -> None:
    """Half of 32 MiB; without it only what is hot would stay."""
    made = run("etmem scan=page interval=1s sleep=1s dram_percent=50%", seconds=60)
    assert 15.5 * MIB <= resident(made) <= 16 * MIB


def test_a_size_stays_too() -> None:
    assert 20 * MIB <= resident(run("etmem swap_threshold=20MiB", seconds=60)) <= 21 * MIB


def test_hot_memory_is_in_huge_pages_until_it_is_cold() -> None:
    text = "a, 64 MiB\nb, 64 MiB\n\nfirst\n20000\na, 0, 4096, 1\n\nthen\n60000\nb, 0, 4096, 1\n"
    spec = make_spec(ops="sim", modules=["etmem huge=hot min_age=5s"], sample=100_000, aggr=1_000_000)
    request = Request(workload=model.parse(text, source="x"), duration_ns=60 * 10**9, panel=0)
    huge: list[int] = []
    with Run(spec, request) as made:
        for _ in made.monitor():
            assert made.engine.simulated is not None
            huge.append(made.engine.simulated.summary().huge_bytes)
    assert max(huge[:20]) >= 48 * MIB
    assert 48 * MIB <= huge[-1] <= 64 * MIB  # of b; those of a are gone with it
    assert resident(made) <= 66 * MIB
