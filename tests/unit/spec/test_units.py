"""Quantities: what people write, exactly; what they mean to write, refused with the right form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.spec import units


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("5ms", 5000),
        ("0.5 s", 500_000),
        ("2min", 120_000_000),
        ("1,000us", 1000),
        ("0", 0),
        ("3 µs", 3),
        ("1h", 3600 * 10**6),
    ],
)
def test_times(text: str, us: int) -> None:
    assert units.parse_time_us(text) == us


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4K", 4096),
        ("4KiB", 4096),
        ("2 MiB", 2 << 20),
        ("1,048,576", 1 << 20),
        ("max", 2**64 - 1),
        ("1.5k", 1536),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "-5ms", "5 parsecs", "", "ms", "1e3ms", "0.0001us", "nan", "5ms5ms", "٣ms"])
def test_bad_times_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        units.parse_time_us(text)


@pytest.mark.parametrize("text", ["-1", "4X", "0.5", "17EiB", "0x10", "1..5K"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        units.parse_size(text)


def test_a_missing_unit_says_what_to_write() -> None:
    with pytest.raises(RequestError, match="'5' has no unit; write it like 5ms"):
        units.parse_time_us("5")


def test_addresses_are_hexadecimal_with_a_prefix() -> None:
    assert units.parse_address("0x7f0000000000") == 0x7F0000000000
    assert units.parse_address("4096") == 4096
    with pytest.raises(RequestError, match="beyond 64 bits"):
        units.parse_address("0x1" + "0" * 16)


@given(st.text(max_size=80))
def test_no_text_leads_to_anything_but_a_value_or_a_request_error(text: str) -> None:
    for parse in (units.parse_time_us, units.parse_time_ns, units.parse_size, units.parse_count, units.parse_address):
        try:
            assert 0 <= parse(text) < 2**64
        except RequestError:
            pass


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (350_000, "350 us"),
        (5_000_000, "5 ms"),
        (1_500_000_000, "1.5 s"),
        (999_999_999, "1 s"),
        (59_999_999_999, "1 min"),
        (125_000_000_000, "2 min 5 s"),
        (12_000_000_000_000, "3 h 20 min"),
        (180_000_000_000_000, "2 d 2 h"),
    ],
)
def test_durations_for_people(ns: int, text: str) -> None:
    assert units.format_duration_ns(ns) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (1048575, "1.0 MiB"), (3 << 39, "1.5 TiB"), (2**64 - 1, "max")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert units.format_size(size) == text


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0, "0 %"), (0.01, "< 0.1 %"), (0.3, "0.3 %"), (1, "1 %"), (49.6, "50 %"), (99.6, "99.6 %"), (100, "100 %")],
)
def test_what_is_not_0_percent_is_not_printed_as_that(percent: float, text: str) -> None:
    assert units.format_percent(percent) == text


@pytest.mark.parametrize(
    ("text", "value"), [("99.7%", 9970), ("10ms", 10_000), ("512MiB", 512 << 20), ("1GB", 1 << 30), ("42", 42)]
)
def test_values_of_goals_have_the_unit_of_their_metric(text: str, value: int) -> None:
    assert units.parse_metric(text) == value
