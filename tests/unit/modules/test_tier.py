"""`tier`: its notation, the schemes that it makes, and the loop that minds how busy the machine is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import MachineError, RequestError
from pydamon.modules.base import Facts
from pydamon.modules.busy import LEAST, BusyController, BusyRule, allowed_share
from pydamon.modules.chains import fast_nodes, neighbours, parse_chains, write_chains
from pydamon.modules.controller import Observations, Pressure, SetQuota
from pydamon.modules.registry import parse
from pydamon.spec import Scheme
from pydamon.spec.forms.scheme_short import write_short
from pydamon.spec.schemes import validate_schemes

SECOND = 1_000_000_000
TWO = Facts(tiers=((((0, 1),), ((2, 1),)),), knows_ages=True)


def made(text: str, target: str = "process", facts: Facts = TWO) -> tuple[Scheme, ...]:
    schemes = parse(text).fitted(facts).schemes(target)  # type: ignore[arg-type]
    validate_schemes(schemes, ops="paddr" if target == "physical" else "vaddr", nr_targets=1)
    return schemes


# -- notation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0>1", "0:3,1>2", "0>2+1>3", "0>1>2,3:5", "auto"])
def test_tiers_are_read_as_they_are_written(text: str) -> None:
    assert write_chains(parse_chains(text)) == text


def test_tiers_have_neighbours_and_fast_nodes() -> None:
    chains = parse_chains("0>2>4+1>3")
    assert neighbours(chains) == [(((0, 1),), ((2, 1),)), (((2, 1),), ((4, 1),)), (((1, 1),), ((3, 1),))]
    assert fast_nodes(chains) == {0, 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "tier.tiers: '0' names one tier; write the slower one behind >, like 0>1"),
        ("0>0", "tier.tiers: '0>0' names node 0 twice"),
        ("0>x", "tier.tiers: 'x' is no NUMA node, which is 0 to 1023"),
        ("0>5000", "tier.tiers: '5000' is no NUMA node"),
        ("0>", "tier.tiers: '' is no NUMA node"),
        ("0:0>1", "tier.tiers: '0:0': the weight must be 1 to 1000"),
        ("0>٣", "tier.tiers: '٣' is no NUMA node"),
    ],
)
def test_wrong_tiers_are_named(text: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse(f"tier tiers={text}")
    assert str(raised.value).startswith(message)


def test_goals_that_leave_a_gap_are_refused() -> None:
    with pytest.raises(RequestError, match="free: and used are below 100% together"):
        made("tier used=99% free=0.5%")


# -- schemes ----------------------------------------------------------------------------------------------------------


def test_by_default_it_is_the_kernels_sample() -> None:
    """samples/damon/mtier.c: 200 MiB a second each way, 99.7 % used, 0.5 % free, weights 0:100:100, once a second."""
    down, up = made("tier")
    limits = "quota=100ms+200M/1s weights=0:100:100"
    assert write_short(down) == (
        f"migrate_cold size>=4K rate=0samples age>=10s every=1s {limits} goal=node_mem_free_bp@0:0.5% tuner=temporal "
        "filter=reject:!node=0 filter=reject:young node=2 name=tier-demote-0"
    )
    assert write_short(up) == (
        f"migrate_hot size>=4K rate>=5% every=1s {limits} goal=node_mem_used_bp@0:99.7% tuner=temporal "
        "filter=reject:!node=2 filter=reject:!young node=0 name=tier-promote-0"
    )


def test_the_kernel_gets_what_its_damon_knows() -> None:
    down, up = made("tier", "physical", Facts(engine="kernel", tiers=TWO.tiers))
    assert {scheme.quotas.goal_tuner for scheme in (down, up)} == {"consist"}
    assert [item.filter_type for scheme in (down, up) for item in scheme.filters] == ["young", "young"]


def test_three_tiers_in_a_chain_never_skip_one() -> None:
    schemes = made("tier tiers=0>1>2 young=ignored")
    ways = [(scheme.filters[0].nid, scheme.target_nid) for scheme in schemes]
    assert ways == [(1, 2), (2, 1), (0, 1), (1, 0)]
    assert not any(item.allow or item.matching for scheme in schemes for item in scheme.filters)


def test_several_nodes_of_a_tier_share_by_weight_and_are_emptied_one_by_one() -> None:
    down, other, up = made("tier tiers=0:3,1>2,3 young=ignored")
    assert [dest.weight for dest in up.dests] == [3, 1]
    assert [goal.nid for goal in up.quotas.goals] == [0, 1]
    assert [(item.nid, item.allow) for item in up.filters] == [(2, True), (3, True)]
    assert [(scheme.name, scheme.quotas.goals[0].nid) for scheme in (down, other)] == [
        ("tier-demote-0", 0),
        ("tier-demote-1", 1),
    ]
    assert [dest.id for dest in down.dests] == [2, 3]


def test_a_cgroups_share_has_the_goals_of_the_cgroup() -> None:
    down, up = made("tier share=30%", "cgroup", Facts(tiers=TWO.tiers, cgroup="/a"))
    told = [(goal.metric, goal.target_value, goal.memcg_path) for goal in (*down.quotas.goals, *up.quotas.goals)]
    assert told == [
        ("node_memcg_free_bp", 7_020, "/a"),
        ("node_memcg_used_bp", 3_000, "/a"),
        ("node_mem_used_bp", 9_970, None),
    ]
    with pytest.raises(RequestError, match="share: is of a cgroup: it must be the target"):
        made("tier share=30%")


def test_of_physical_memory_only_the_cgroup_that_is_named_moves() -> None:
    down, _ = made("tier cgroup=/a", "physical")
    assert [(item.filter_type, item.matching) for item in down.filters] == [
        ("node", False),
        ("memcg", False),
        ("young", True),
    ]


def test_one_node_is_an_error_with_the_nearest_that_works() -> None:
    with pytest.raises(MachineError, match="one node; reclaim pages cold memory out instead"):
        parse("tier").fitted(Facts(tiers_obstacle="one node"))
    assert parse("tier tiers=0>1").fitted(Facts(tiers_obstacle="one node")).schemes("process")


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        ("tier tiers=0>1", Facts(cpu_psi=False), ["how long moved bytes take stands in for it"]),
        ("tier tiers=0>1 cpu=off", Facts(cpu_psi=False), []),
        ("tier tiers=0>1>2", Facts(engine="kernel"), ["it takes two tiers (tiers=0>1), or the user engine"]),
        ("tier tiers=0>1 young=ignored", Facts(knows_ages=False), ["whole regions are moved"]),
        ("tier tiers=0>1 cgroup=/a", Facts(), ["a process is moved as a whole"]),
    ],
)
def test_what_it_cannot_do_is_said(text: str, facts: Facts, words: list[str]) -> None:
    lines = parse(text).cannot(facts)
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


# -- the loop that minds how busy the machine is ----------------------------------------------------------------------


def waited(now_s: float, total_ms: float) -> Observations:
    return Observations(now_ns=int(now_s * SECOND), cpu=Pressure(total_us=int(total_ms * 1000)))


def sizes(decisions: tuple[object, ...]) -> list[int | None]:
    return [decision.sz_bytes for decision in decisions if isinstance(decision, SetQuota)]


def test_twice_what_is_allowed_leaves_a_quarter_and_comes_back_by_doubling() -> None:
    """10 % are allowed: 20 % in the second step, then none."""
    loop = BusyController(BusyRule(schemes=("a", "b"), sz_bytes=1 << 20, time_ms=100, cpu_percent=10))
    assert loop.step(waited(0, 0)) == ()
    assert loop.step(waited(2, 100)) == ()
    decisions = loop.step(waited(4, 500))
    assert sizes(decisions) == [1 << 18, 1 << 18]
    assert [decision.time_ms for decision in decisions if isinstance(decision, SetQuota)] == [25, 25]
    assert sizes(loop.step(waited(6, 500))) == [1 << 19, 1 << 19]
    assert sizes(loop.step(waited(8, 500))) == [1 << 20, 1 << 20]
    assert loop.step(waited(10, 500)) == ()


def test_busy_cpus_take_at_least_four_fifths() -> None:
    loop = BusyController(BusyRule(schemes=("a",), sz_bytes=100 << 20))
    loop.step(waited(0, 0))
    (size,) = sizes(loop.step(waited(2, 1000)))
    assert size is not None
    assert size <= 20 << 20


def test_bandwidth_counts_as_well_as_cpus() -> None:
    loop = BusyController(BusyRule(schemes=("a",), sz_bytes=100 << 20, bandwidth_percent=40))
    assert sizes(loop.step(Observations(now_ns=1, bandwidth_permil=800))) == [25 << 20]
    assert (
        BusyController(BusyRule(schemes=("a",), bandwidth_percent=0)).step(
            Observations(now_ns=1, bandwidth_permil=1000)
        )
        == ()
    )


def test_where_nothing_is_told_the_cost_of_a_byte_stands_in() -> None:
    """3 times what it took at best is allowed; 6 times leaves a quarter."""
    loop = BusyController(BusyRule(schemes=("a",), sz_bytes=100 << 20))
    assert loop.step(Observations(now_ns=1, applied={"a": 10 << 20}, spent_ns=10_000_000)) == ()
    assert loop.step(Observations(now_ns=2, applied={"a": 11 << 20}, spent_ns=90_000_000)) == ()  # too little to tell
    assert sizes(loop.step(Observations(now_ns=3, applied={"a": 20 << 20}, spent_ns=70_000_000))) == [25 << 20]
    told = BusyController(BusyRule(schemes=("a",), sz_bytes=100 << 20))
    told.step(waited(0, 0))
    calm = Observations(now_ns=SECOND, cpu=Pressure(total_us=0), applied={"a": 10 << 20}, spent_ns=1)
    dear = Observations(now_ns=2 * SECOND, cpu=Pressure(total_us=0), applied={"a": 20 << 20}, spent_ns=10**9)
    assert told.step(calm) == told.step(dear) == ()


def test_without_anything_to_go_by_quotas_stay() -> None:
    loop = BusyController(BusyRule(schemes=("a",), sz_bytes=1 << 20))
    assert loop.step(Observations(now_ns=1)) == loop.step(Observations(now_ns=2)) == ()


@given(st.lists(st.tuples(st.integers(1, 10**10), st.integers(0, 10**7)), max_size=30))
def test_the_share_is_never_more_than_whole_nor_nothing(steps: list[tuple[int, int]]) -> None:
    loop = BusyController(BusyRule(schemes=("a",), sz_bytes=1 << 20))
    now_ns = total_us = 0
    for passed_ns, more_us in steps:
        now_ns, total_us = now_ns + passed_ns, total_us + more_us
        for decision in loop.step(Observations(now_ns=now_ns, cpu=Pressure(total_us=total_us))):
            assert isinstance(decision, SetQuota)
            assert 4096 <= (decision.sz_bytes or 0) <= 1 << 20
        assert LEAST <= loop.share <= 1


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_higher_load_never_leaves_more(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert allowed_share(high) <= allowed_share(low)
