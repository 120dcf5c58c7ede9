"""Modules: notation, knobs and what becomes of them; worked numbers are those of the kernel's documents (reclaim.rst,
lru_sort.rst)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.modules.base import Facts
from pydamon.modules.registry import MODULES, expand, parse, uses
from pydamon.modules.table import table
from pydamon.spec import from_builtins, to_builtins, validate
from pydamon.spec.forms.scheme_short import write_short

ROOT = Path(__file__).parents[3]


def test_reclaim_is_the_kernels_by_default() -> None:
    (scheme,) = parse("reclaim").schemes("process")
    assert write_short(scheme) == (
        "pageout size>=4K rate=0samples age>=2min quota=10ms+128M/1s weights=0:0:1 "
        "watermarks=free:50%:40%:20%/5s name=reclaim"
    )


def test_knobs_reach_the_scheme() -> None:
    (scheme,) = parse("reclaim min_age=30s quota=64MiB/2s watermarks=off files=only pressure=1ms").schemes("process")
    assert write_short(scheme) == (
        "pageout size>=4K rate=0samples age>=30s quota=64M/2s weights=0:0:1 goal=some_mem_psi_us:1ms "
        "filter=reject:anon name=reclaim"
    )


def test_lru_sort_has_both_halves_on_physical_memory_only() -> None:
    assert [scheme.action for scheme in parse("lru_sort").schemes("cgroup")] == ["cold"]
    hot, cold = parse("lru_sort hot_freq=25%").schemes("physical")
    assert (hot.action, cold.action) == ("lru_prio", "lru_deprio")
    assert str(hot.access_pattern.nr_accesses.min) == "25 %"


def test_lru_sort_has_the_goals_and_filters_of_the_kernels_module() -> None:
    """active_mem_bp = x, inactive_mem_bp = 10,000 - x + 2; hot pages have to be young, cold ones must not be."""
    hot, cold = parse("lru_sort active=60% young=asked").schemes("physical")
    assert [goal.metric for goal in (*hot.quotas.goals, *cold.quotas.goals)] == ["active_mem_bp", "inactive_mem_bp"]
    assert [goal.target_value for goal in (*hot.quotas.goals, *cold.quotas.goals)] == [6_000, 4_002]
    assert [(one.filter_type, one.matching, one.allow) for one in hot.filters] == [("young", False, False)]
    assert [(one.filter_type, one.matching, one.allow) for one in cold.filters] == [("young", True, False)]
    (only,) = parse("lru_sort active=60%").schemes("process")
    assert [goal.target_value for goal in only.quotas.goals] == [4_002]
    assert parse("lru_sort active=off").schemes("physical")[0].quotas.goals == ()


def test_watermarks_of_a_node_go_by_what_is_free_there() -> None:
    use = parse("reclaim watermarks=free@1:50%:40%:20% files=only")
    assert use.schemes("physical")[0].watermarks.nid == 1
    assert use.write() == "reclaim watermarks=free@1:50%:40%:20%/5s files=only"

    def said(by_node: dict[int, int]) -> list[str]:
        return use.cannot(Facts(free_permil=300, node_free_permil=by_node))

    assert said({0: 900, 1: 300}) == []
    (much,) = said({0: 300, 1: 700})
    assert much.startswith("70% of the memory of NUMA node 1 is free now: it begins at 40% or less")
    assert said({0: 300}) == ["there is no NUMA node 1 with memory here; nodes that have some: 0"]


@pytest.mark.parametrize("name", MODULES)
def test_what_is_written_is_read(name: str) -> None:
    use = parse(name)
    assert parse(use.write(all_knobs=True)) == use
    assert use.write() == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reclam", "'reclam' is no module; did you mean reclaim?"),
        ("reclaim min_agee=3s", "reclaim: there is no knob 'min_agee'; did you mean min_age?"),
        ("reclaim min_age=3", "reclaim.min_age: '3' has no unit; write it like 5ms, 1.5s or 2min"),
        ("reclaim min_age=3s min_age=4s", "reclaim.min_age: was given before"),
        ("reclaim files=none", "reclaim.files: is 'none'; it must be also or only"),
        ("reclaim files", "reclaim.files: needs a value, like files=also"),
        ("reclaim watermarks=free:10%:20%:5%", "reclaim.watermarks: 'free:10%:20%:5%': high, middle and low"),
        ("lru_sort hot_freq=150%", "lru_sort.hot_freq: '150%' is more than 100%"),
        ("stat every=5s", "stat: has no knobs, and so not 'every'"),
        ("", "names no module"),
    ],
)
def test_wrong_text_names_module_and_knob(text: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse(text)
    assert str(raised.value).startswith(message)


def test_a_spec_has_modules_beside_contexts() -> None:
    spec = make_spec(1, modules=["reclaim min_age=30s", {"name": "lru_sort", "cold_min_age": "60s"}])
    assert from_builtins(to_builtins(spec)).kdamonds[0].modules == spec.kdamonds[0].modules
    expanded = expand(spec)
    assert [scheme.name for scheme in expanded.context.schemes] == ["reclaim", "lru_sort-cold"]
    assert expand(expanded) == expanded
    validate(expanded)


def test_schemes_of_ones_own_stay() -> None:
    spec = expand(make_spec(1, schemes=["stat name=mine"], modules=["reclaim"]))
    assert [scheme.name for scheme in spec.context.schemes] == ["mine", "reclaim"]


def test_a_module_is_there_once() -> None:
    with pytest.raises(RequestError, match=r"modules\[1\]: reclaim is there twice"):
        make_spec(1, modules=["reclaim", "reclaim min_age=3s"])


def test_reported_accesses_have_no_modules() -> None:
    with pytest.raises(RequestError, match="reported accesses have none"):
        make_spec(ops="reported", modules=["reclaim"])


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        ("reclaim watermarks=off", Facts(swap_bytes=0), ["files=only"]),
        ("reclaim watermarks=off files=only", Facts(swap_bytes=0), []),
        ("reclaim", Facts(swap_bytes=1, free_permil=930), ["93% of memory is free now: it begins at 40% or less"]),
        ("reclaim", Facts(swap_bytes=1, free_permil=300), []),
        ("reclaim", Facts(swap_bytes=1, free_permil=100), ["left to the kernel"]),
        ("reclaim pressure=1ms", Facts(swap_bytes=1, psi=False), ["PSI"]),
        ("reclaim min_age=100ms", Facts(swap_bytes=1), ["used again soon"]),
        ("lru_sort watermarks=off", Facts(), ["only cold memory is sorted"]),
        ("lru_sort watermarks=off", Facts(target="physical"), []),
    ],
)
def test_what_cannot_be_done_is_said(text: str, facts: Facts, words: list[str]) -> None:
    lines = parse(text).cannot(facts)
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert word in line


def test_the_documents_table_is_the_registrys() -> None:
    assert table() in (ROOT / "docs/modules.md").read_text()


def test_uses_are_in_order() -> None:
    spec = make_spec(1, modules=["lru_sort", "reclaim"])
    assert [use.module.name for use in uses(spec)] == ["lru_sort", "reclaim"]


@pytest.mark.parametrize(("text", "needs"), [("reclaim", True), ("reclaim files=only", False), ("lru_sort", False)])
def test_swap_is_needed_only_where_anonymous_memory_is_to_go(text: str, needs: bool) -> None:
    assert parse(text).schemes("process")[0].needs_swap is needs
