"""Several modules on one target: in one run each does its part; of two runs one is refused where they contradict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.run.alone import Alone
from pydamon.run.modules import hold
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec.machine import MachineSpec
from pydamon.workload import model

MIB = 1 << 20
MACHINE = MachineSpec(node_bytes=(64 * MIB, 256 * MIB))
TEXT = "cold, 96 MiB\nhot, 32 MiB\n\nsteady\n900000\nhot, 0, 4096, 1\n"


def applied(*modules: str) -> tuple[dict[str, int], list[str]]:
    """Bytes that each scheme was applied to within three simulated minutes, and what was said."""
    said: list[str] = []
    spec = make_spec(ops="sim", modules=list(modules), sample=100_000, aggr=1_000_000)
    request = Request(workload=model.parse(TEXT, source="x"), machine=MACHINE, duration_ns=180_000_000_000, panel=0)
    with Run(spec, request, say=said.append) as made:
        for _ in made.monitor():
            pass
    return {state.scheme.name or "": state.stats.sz_applied for state in made.engine.schemes()}, said


THREE = ("reclaim min_age=60s watermarks=off quota=off", "thp cold_min_age=off", "tier cold_age=10s young=ignored")


@pytest.mark.parametrize("order", [THREE, THREE[::-1]], ids=["reclaim first", "tier first"])
def test_three_modules_each_do_their_part_in_any_order(order: tuple[str, ...]) -> None:
    done, said = applied(*order)
    assert done["tier-promote-0"] >= 16 * MIB  # what is hot came to the fast node,
    assert done["tier-demote-0"] >= 16 * MIB  # for which what is not had to go down,
    assert 0.8 * 96 * MIB <= done["reclaim"] <= 1.2 * 96 * MIB  # and out once it was idle for longer,
    assert done["thp"] > 0  # and huge pages were made
    assert not [line for line in said if "finds little to move" in line]


def test_memory_that_goes_out_first_is_not_moved_and_that_is_said() -> None:
    done, said = applied("reclaim min_age=5s watermarks=off quota=off", "tier cold_age=30s young=ignored way=down")
    assert [line for line in said if "tier finds little to move down after 30 s" in line]
    assert done["reclaim"] > 0.8 * 96 * MIB
    assert done["tier-demote-0"] < 8 * MIB


@pytest.fixture
def held() -> Iterator[Callable[[str], Alone]]:
    """Another run with a module on this process."""
    runs: list[Alone] = []

    def begin(module: str) -> Alone:
        alone = Alone()
        runs.append(alone)
        hold(make_spec(os.getpid(), modules=[module]), Request(), alone)
        return alone

    yield begin
    for each in runs:
        each.close()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("thp", "etmem huge=hot"),
        ("etmem huge=hot", "thp"),
        ("etmem dram_percent=60%", "reclaim"),
        ("thp", "thp max_bloat=off"),
    ],
)
def test_of_two_runs_the_second_is_refused_where_it_contradicts(
    held: Callable[[str], Alone], first: str, second: str
) -> None:
    one = held(first)
    with pytest.raises(RequestError, match=f"modules {second.split()[0]}: "):
        held(second)
    one.close()


def test_two_runs_that_do_not_contradict_each_other_meet(held: Callable[[str], Alone]) -> None:
    for module in ("thp", "reclaim", "tier tiers=0>1", "lru_sort", "stat"):
        held(module)
