"""Access rates and ages: reading, writing, and turning into samples and aggregations of the intervals in force."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.spec.quantities import Age, Rate, decode, encode

U32_MAX = 2**32 - 1


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", 5, "samples"),
        (5, 5, "samples"),
        ("5 samples", 5, "samples"),
        ("1 sample", 1, "samples"),
        ("12.5%", Fraction(25, 2), "%"),
        ("0 %", 0, "%"),
        ("100%", 100, "%"),
        ("3Hz", 3, "Hz"),
        ("1,000 hz", 1000, "Hz"),
        ("0.25/s", Fraction(1, 4), "Hz"),
        ("min", 0, "samples"),
        (" MAX ", None, "samples"),
        (U32_MAX, None, "samples"),  # what tools that know only numbers write for "no limit"
        (2**64 - 1, None, "samples"),
        ("18446744073709551615", None, "samples"),
    ],
)
def test_rates_are_read(text: str | int, value: Any, unit: str) -> None:
    assert Rate.parse(text) == Rate(value, unit)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("3", 3, "aggrs"),
        (3, 3, "aggrs"),
        ("3 aggrs", 3, "aggrs"),
        ("1 aggr", 1, "aggrs"),
        ("3 aggr_intervals", 3, "aggrs"),
        ("30s", 30_000_000, "us"),
        ("2 min", 120_000_000, "us"),
        ("0.5 ms", 500, "us"),
        ("1500 ns", Fraction(3, 2), "us"),
        ("0 ns", 0, "us"),
        ("max", None, "aggrs"),
        ("min", 0, "aggrs"),
        (U32_MAX, None, "aggrs"),
    ],
)
def test_ages_are_read(text: str | int, value: Any, unit: str) -> None:
    assert Age.parse(text) == Age(value, unit)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Rate, "", "is not an access rate"),
        (Rate, "%", "is not an access rate"),
        (Rate, "-5", "is not an access rate"),
        (Rate, "five", "is not an access rate"),
        (Rate, "1e9", "no such unit"),
        (Rate, "1/3", "no such unit"),
        (Rate, "5 s", "no such unit of an access rate"),
        (Rate, "100.1%", "more than 100%"),
        (Rate, "1.2.3", "is not an access rate"),
        (Rate, "1 2 %", "is not an access rate"),
        (Rate, "٣%", "is not an access rate"),
        (Rate, "nan", "is not an access rate"),
        (Rate, True, "is not an access rate"),
        (Rate, None, "is not an access rate"),
        (Rate, 0.5, "is not an access rate"),
        pytest.param(Rate, [5] * 10_000, "is not an access rate", id="list"),
        (Rate, -1, "must not be below 0"),
        pytest.param(Rate, -(10**6000), "must not be below 0", id="huge"),
        pytest.param(Rate, "9" * 10_000, "too long", id="long"),
        (Rate, "5" + "%" * 100, "too long"),
        (Age, "5 lightyears", "no unit of time"),
        (Age, "0.5 ns", "not a whole number"),
        (Age, "5%", "is not a time|no unit of time"),
        (Age, {}, "is not an age"),
    ],
)
def test_what_is_no_quantity_is_refused_in_a_line(kind: type[Rate] | type[Age], text: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        kind.parse(text)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "window", "lower", "upper"),
    [
        ("5%", 20, 1, 1),
        ("1%", 20, 1, 0),  # 0.2 samples: at least one, at most none
        ("51%", 20, 11, 10),  # 10.2
        ("100%", 20, 20, 20),
        ("100%", 1, 1, 1),
        ("33%", 3, 1, 0),
        ("50 Hz", 20, 5, 5),  # in 100 ms
        ("55 Hz", 20, 6, 5),
        ("1000 Hz", 20, 100, 100),  # more than there are samples: never
        ("7", 20, 7, 7),
        ("2.5", 20, 3, 2),
        ("max", 20, U32_MAX, U32_MAX),
    ],
)
def test_rates_in_samples(text: str, window: int, lower: int, upper: int) -> None:
    rate = Rate.parse(text)
    assert rate.to_samples(window, 100_000, upper=False) == lower
    assert rate.to_samples(window, 100_000, upper=True) == upper


@pytest.mark.parametrize(
    ("text", "aggr_us", "lower", "upper"),
    [
        ("2 min", 100_000, 1200, 1200),
        ("2 min", 70_000, 1715, 1714),  # 1714.3
        ("50 ms", 100_000, 1, 0),
        ("7 aggrs", 100_000, 7, 7),
        ("7 aggrs", 10_000_000, 7, 7),
        ("0 s", 100_000, 0, 0),
        ("100000 d", 1, U32_MAX, U32_MAX),
        ("max", 100_000, U32_MAX, U32_MAX),
    ],
)
def test_ages_in_aggregations(text: str, aggr_us: int, lower: int, upper: int) -> None:
    age = Age.parse(text)
    assert age.to_aggregations(aggr_us, upper=False) == lower
    assert age.to_aggregations(aggr_us, upper=True) == upper


decimals = st.decimals(min_value=0, max_value=100, places=12, allow_nan=False).map(lambda d: f"{d:f}")


@given(decimals, st.sampled_from(["%", " Hz", "", " samples"]))
def test_rates_read_back_equal(number: str, unit: str) -> None:
    rate = Rate.parse(number + unit)
    assert Rate.parse(str(rate)) == rate
    assert decode(Rate, json.loads(json.dumps(encode(rate)))) == rate


@given(st.integers(0, 10**15), st.sampled_from(["ns", "us", "ms", "s", "min", "h", "d", "aggrs", ""]))
def test_ages_read_back_equal(number: int, unit: str) -> None:
    try:
        age = Age.parse(f"{number} {unit}")
    except RequestError:  # beyond 64 bits of ns
        return
    assert Age.parse(str(age)) == age


def test_a_tiny_lower_bound_does_not_become_none() -> None:
    rate = Rate.parse("0.0000000000001%")
    assert Rate.parse(str(rate)).to_samples(20, 100_000, upper=False) == 1


def test_units_make_a_difference() -> None:
    assert Rate.parse("5%") != Rate.parse("5")
    assert Rate(5, "samples") != Age(5, "samples")
    assert hash(Rate.parse("5.0%")) == hash(Rate.parse("5%"))


@pytest.mark.parametrize(
    ("age", "text"),
    [
        ("120s", "2 min"),
        ("7200 s", "2 h"),
        ("86400s", "1 d"),
        ("1500 ms", "1500000 us"),
        ("0s", "0 us"),
        ("5", "5 aggrs"),
    ],
)
def test_ages_are_written_for_people(age: str, text: str) -> None:
    assert str(Age.parse(age)) == text
