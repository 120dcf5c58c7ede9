"""What fits into the time of a quota, where an application costs something before its first byte."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.speed import FIRST_THROUGHPUT, Speed

KIB, MIB, MS = 1 << 10, 1 << 20, 1_000_000


def speed(*applications: tuple[int, float]) -> Speed:
    found = Speed()
    for size, spent_ms in applications:
        found.note(size, round(spent_ms * MS))
    return found


def test_a_new_scheme_is_believed_to_manage_what_the_kernel_believes() -> None:
    assert speed().bytes_in(10 * MS) == 10 * FIRST_THROUGHPUT == 40 * MIB


def test_what_each_application_costs_is_not_blamed_on_its_bytes() -> None:
    """3 ms and 1 ms per MiB: of 10 ms, 7 are left, for 7 MiB."""
    assert speed((1 * MIB, 4), (2 * MIB, 5), (0, 3)).bytes_in(10 * MS) == pytest.approx(7 * MIB, abs=1)


def test_small_applications_do_not_keep_the_next_small() -> None:
    """A page in 3 ms is 13 KiB in 10 ms, by all bytes and all time; nothing is known of what a byte costs."""
    assert speed(*[(4 * KIB, 3)] * 20).bytes_in(10 * MS) > 20 * MIB


def test_it_comes_to_what_is_right_from_small_applications_with_noise() -> None:
    """Applications cost 3 to 8 ms and 1 ms per MiB: after some windows of 10 ms they are of some MiB."""
    rng, found, sizes = np.random.default_rng(1), Speed(), []
    size = 16 * KIB
    for _ in range(40):
        found.note(size, round((3 + 5 * rng.random() + size / MIB) * MS))
        sizes.append(size)
        size = found.bytes_in(10 * MS)
    assert 4 * MIB < np.median(sizes[10:]) < 12 * MIB


def test_where_an_application_costs_more_than_there_is_half_of_the_time_is_for_bytes() -> None:
    assert speed((1 * MIB, 51), (2 * MIB, 52), (0, 50)).bytes_in(10 * MS) == pytest.approx(5 * MIB, abs=1)


def test_steps_take_a_quarter_of_the_time_at_most() -> None:
    assert [speed((MIB, fixed)).steps(10 * MS, 8) for fixed in (0.1, 0.5, 1, 3, 50)] == [8, 5, 2, 1, 1]
    assert speed().steps(10 * MS, 8) == 8
