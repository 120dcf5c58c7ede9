"""What a search looks at: the notation with ranges and choices, and which values stand for them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pydamon.analysis.search.limits import Judge, parse_limit, tightest
from pydamon.analysis.search.screen import Burden
from pydamon.analysis.search.space import MOST_VALUES, Knob, parse_space
from pydamon.analysis.search.takes import Takes, takes_of
from pydamon.core.panel import BOUNDS_S
from pydamon.errors import RequestError
from pydamon.modules.registry import parse
from pydamon.spec.costs import Costs

MIB = 1 << 20


def test_a_module_with_two_ranges() -> None:
    space = parse_space("reclaim min_age=5s..5min quota=16M..1G watermarks=off")
    assert space.module == "reclaim"
    assert space.usual == "reclaim watermarks=off"
    assert space.knobs == (Knob("min_age", "time", 5_000_000, 300_000_000), Knob("quota", "size", 16 * MIB, 1024 * MIB))
    text = space.text((30_000_000, 64 * MIB))
    assert text == "reclaim min_age=30s quota=64MiB watermarks=off"
    (scheme,) = space.schemes((30_000_000, 64 * MIB))
    assert scheme.quotas == parse("reclaim quota=64M").schemes("process")[0].quotas
    assert takes_of([scheme], 1_000_000, Costs()) == Takes(30.0, 64 * MIB, 1.0)


def test_a_scheme_with_two_ranges_in_a_word() -> None:
    """A range behind `size=` is one of regions, as in every scheme."""
    space = parse_space("pageout size=4K..max rate=0% age>=10..60s quota=10ms..100ms+128M/1s..1min")
    assert [knob.name for knob in space.knobs] == ["age", "quota time", "quota window"]
    assert space.knobs[0].low == 10_000_000
    text = space.text((10_000_000, 10_000, 2_000_000))
    assert text == "pageout size=4K..max rate=0% age>=10s quota=10ms+128M/2s"


def test_a_time_quota_is_bytes_by_what_paging_out_costs() -> None:
    """10 ms at 2,500 ns and 20 ns a page are 3,968 pages of 4 KiB."""
    (scheme,) = parse("reclaim quota=10ms/500ms").schemes("process")
    takes = takes_of([scheme], 1_000_000, Costs(zram_out_ns=2_500, look_ns=20))
    assert takes.most_bytes == pytest.approx(10e6 / 2_520 * 4096)
    assert (takes.age_s, takes.window_s) == (120.0, 0.5)


def test_choices_are_as_they_are_written() -> None:
    space = parse_space("reclaim min_age=30s|2min quota=off|64MiB")
    assert [knob.values() for knob in space.knobs] == [[0, 1], [0, 1]]
    assert space.text((1, 0)) == "reclaim min_age=2min quota=off"


@pytest.mark.parametrize("kind", ["time", "size", "share", "count"])
def test_values_go_from_low_to_high_and_are_few(kind: str) -> None:
    for low, high in ((1, 2), (7, 11), (4096, 1 << 40), (1_000_000, 86_400_000_000)):
        values = Knob("it", kind, low, high).values()  # type: ignore[arg-type]
        assert values == sorted(set(values))
        assert (values[0], values[-1]) == (low, high)
        assert len(values) <= MOST_VALUES


def test_times_are_those_of_which_a_what_if_tells() -> None:
    values = Knob("min_age", "time", 5_000_000, 300_000_000).values()
    assert values == [bound * 1_000_000 for bound in BOUNDS_S if 5 <= bound <= 300]


def test_half_and_twice_of_a_value() -> None:
    size, time = Knob("quota", "size", MIB, 8 * MIB), Knob("min_age", "time", 5_000_000, 9_000_000)
    assert [size.write(size.scaled(3 * MIB, times)) for times in (Fraction(1, 2), Fraction(2))] == ["1536KiB", "6MiB"]
    assert time.write(time.scaled(5_000_000, Fraction(1, 2))) == "2500ms"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no module and no action"),
        ("reclame min_age=5s..5min", "'reclame' is no module and no action; did you mean reclaim?"),
        ("reclaim", "has nothing to search for"),
        ("reclaim min_age=30s", "has nothing to search for"),
        ("reclaim mine_age=5s..5min", "reclaim: there is no knob 'mine_age'; did you mean min_age?"),
        ("reclaim min_age=5min..5s", "min_age: 5min..5s is empty: 5s is not above 5min"),
        ("reclaim min_age=5s..5s", "min_age: 5s..5s is empty: 5s is not above 5s"),
        ("reclaim min_age=0s..5s", "min_age: 0s..5s: LOW must be above 0"),
        ("reclaim min_age=5s..1G", "min_age: 5s..1G: both ends must be times, or sizes, or shares"),
        ("reclaim min_age=5..300", "min_age: '5' has no unit"),
        ("reclaim min_age=5s..", "min_age: 'min_age=5s..': a range is LOW..HIGH"),
        ("reclaim min_age=5s..5x", "min_age: there is no unit 'x'"),
        ("reclaim quota=16m..1024m", "quota: a unit of m may be minutes or MiB"),
        ("reclaim min_age=5s|", "min_age: has an empty choice"),
        ("reclaim min_age=5s..9s|1min", "min_age: has a range among its choices"),
        ("reclaim psi=1%..200%", "reclaim.psi: '200%' is more than 100%"),
        ("reclaim psi=1%..20%", "psi: 20% makes the same schemes as 1% on a recording"),
        ("reclaim watermarks=off|free:50%:40%:20%", "watermarks: "),
        ("reclaim driver=refaults min_age=5s..5min", "is a loop beside schemes"),
        ("stat age>=5s..5min", "stat: has no knobs"),
        ("pageout rate=0% age>=5s..5min quota=1..2", "is neither a time nor a size"),
        ("reclaim min_age=" + "5s..5min" * 600, "is longer than 4096 characters"),
    ],
)
def test_what_cannot_be_searched_is_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_space(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lru_sort cold_min_age=5s..60s", "a search is for one scheme that pages out"),
        ("cold age>=5s..5min", "a search is for one scheme that pages out; here there are: cold"),
        ("pageout rate=0..5% age>=5s..5min", "rate=0% age>=TIME"),
        ("pageout rate=0% size>=2M age>=5s..5min", "sizes of regions cannot be searched for"),
        ("reclaim min_age=5s..5min files=only", "has filters"),
        ("reclaim min_age=5s..5min pressure=10ms", "has goals"),
        ("pageout rate=0% age>=5s..5min every=5s", "is not applied at each aggregation"),
    ],
)
def test_what_histograms_do_not_tell_is_refused(text: str, words: str) -> None:
    space = parse_space(text)
    schemes = space.schemes(space.lowest)
    with pytest.raises(RequestError) as refused:
        takes_of(schemes, 1_000_000, Costs())
    assert words in str(refused.value)


def test_limits_and_what_they_are_of() -> None:
    """60 MiB a minute are 256 pages a second, each of which waits for 8 us in zram."""
    limits = [parse_limit(text) for text in ("slowdown=2%", "refaults=10%/min", "refaults=1MiB/s", "slowdown-ssd=5%")]
    judge = Judge(tuple(limits), Costs(zram_in_ns=8_000, ssd_in_ns=90_000), working_set=240.0 * MIB)
    burden = Burden(saved=0.0, back=60.0 * MIB, out=0.0)
    found = [judge.cost(limit, burden) for limit in limits]
    assert found == pytest.approx([256 * 8e-6, 0.25, MIB, 256 * 90e-6])
    assert judge.excess(burden) == pytest.approx(2.5)
    assert not judge.fits(burden)


def test_of_two_limits_of_a_kind_the_lower_holds() -> None:
    found = tightest([parse_limit(text) for text in ("slowdown=2%", "refaults=1MiB/s", "slowdown=1%")])
    assert [limit.text for limit in found] == ["slowdown=1%", "refaults=1MiB/s"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed=1%", "'speed' is no limit; "),
        ("slowdown", "slowdown needs a value"),
        ("slowdown=0%", "must be above 0% and at most 100%"),
        ("slowdown=2", "has no percent sign"),
        ("refaults=1%", "is no rate"),
        ("refaults=0/s", "must be above 0"),
    ],
)
def test_limits_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_limit(text)
    assert words in str(refused.value)
