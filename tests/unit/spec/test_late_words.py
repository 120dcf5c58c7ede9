"""When samples are late, and how that is said."""

from __future__ import annotations

import pytest

from pydamon.spec.words.late import late_words

MS = 1_000_000


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ((100, 500 * MS, 8_500 * MS), "samples came 17 × later than asked for: every 85 ms, not every 5 ms"),
        ((100, 500 * MS, 1_000 * MS), "samples came 2.0 × later than asked for: every 10 ms, not every 5 ms"),
        ((100, 500 * MS, 750 * MS), None),  # one and a half times is no news
        ((100, 500 * MS, 500 * MS), None),
        ((0, 0, 0), None),
        ((0, 5, 500), None),
        ((5, 0, 500), None),
    ],
)
def test_from_one_and_a_half_times_on(told: tuple[int, int, int], line: str | None) -> None:
    assert late_words(*told) == line
