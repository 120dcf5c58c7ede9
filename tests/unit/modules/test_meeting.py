"""Several modules in one spec: which are refused together, and what is said of those that are not."""

from __future__ import annotations

import itertools

import pytest

from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.modules import meeting
from pydamon.modules.registry import expand, parse, uses


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (["etmem dram_percent=60%", "reclaim"], "etmem (dram_percent=60%) and reclaim contradict"),
        (["reclaim", "etmem swap_threshold=1GiB"], "etmem (swap_threshold=1.0 GiB) and reclaim contradict"),
        (["etmem huge=hot", "thp cold_min_age=off"], "thp (max_bloat=5%) and etmem contradict"),
        (["thp", "etmem dram_percent=60%"], "both page out"),
    ],
)
def test_a_bound_beside_who_does_not_keep_it_is_refused(modules: list[str], words: str) -> None:
    with pytest.raises(RequestError) as raised:
        make_spec(1, modules=modules)
    assert words in str(raised.value)
    assert str(raised.value).startswith("kdamonds[0].modules")


@pytest.mark.parametrize("size", [2, 3])
def test_others_may_meet_in_any_order(size: int) -> None:
    names = ["reclaim", "thp", "tier tiers=0>1", "lru_sort", "stat", "etmem"]
    for modules in itertools.permutations(names, size):
        spec = expand(make_spec(1, modules=list(modules)))
        made = [scheme.name for scheme in spec.context.schemes]
        assert len(made) == len(set(made))
        assert [use.module.name for use in uses(spec)] == [text.split()[0] for text in modules]


def test_who_takes_before_tier_moves_is_told() -> None:
    late = [parse("tier tiers=0>1 cold_age=1min"), parse("reclaim min_age=30s")]
    (line,) = meeting.lines(late, "process")
    assert line.startswith("module reclaim: pages out what was not used for 30 s, so that tier finds little")
    assert meeting.lines([parse("tier tiers=0>1 cold_age=10s"), parse("reclaim min_age=30s")], "process") == []
    assert meeting.lines([parse("reclaim"), parse("thp")], "process") == []
