"""What is kept of the past: as much as fits."""

from __future__ import annotations

from tests.unit.top.seen_processes import BEGAN, SECOND, past, processes

from pydamon.top.past import Past


def test_one_goes_back_and_forth_and_stays_within() -> None:
    kept = past(5)
    latest = kept.latest()
    assert latest is not None
    assert latest.time_unix_ns == BEGAN + 4 * SECOND
    assert kept.span() == (BEGAN, BEGAN + 4 * SECOND)

    def at(time_ns: int, by: int | None = None) -> int:
        found = kept.at(time_ns) if by is None else kept.step(time_ns, by)
        assert found is not None
        return (found.time_unix_ns - BEGAN) // SECOND

    assert at(BEGAN + 2 * SECOND + 5) == 2
    assert at(0) == 0
    assert at(BEGAN + 3 * SECOND, -1) == 2
    assert at(BEGAN + 3 * SECOND, 1) == 4
    assert at(BEGAN + 3 * SECOND, 10) == 4
    assert at(BEGAN + 3 * SECOND, -10) == 0


def test_nothing_is_there_at_first() -> None:
    kept = Past()
    assert (kept.latest(), kept.at(1), kept.step(1, 1), kept.span()) == (None, None, None, None)


def test_rows_that_stay_the_same_hold_nothing_and_the_oldest_go_first() -> None:
    same = processes().processes
    kept = Past(most_rows=12)
    for second in range(10):
        seen = processes(second)
        seen.processes = same
        kept.add(seen)
    assert kept.span() == (BEGAN, BEGAN + 9 * SECOND)
    kept.add(processes(10))
    assert kept.span() == (BEGAN, BEGAN + 10 * SECOND)
    kept.add(processes(11))  # 6 rows anew each time: 18 are too many
    assert kept.span() == (BEGAN + 1 * SECOND, BEGAN + 11 * SECOND)
    short = Past(most=3)
    for second in range(10):
        short.add(processes(second))
    assert short.span() == (BEGAN + 7 * SECOND, BEGAN + 9 * SECOND)


def test_a_clock_that_was_set_back_confuses_nobody() -> None:
    kept = past(10)
    kept.add(processes(4))
    latest = kept.latest()
    assert latest is not None
    assert kept.span() == (BEGAN, BEGAN + 4 * SECOND)
    before = kept.step(latest.time_unix_ns, -1)
    assert before is not None
    assert before.time_unix_ns == BEGAN + 3 * SECOND
    kept.add(processes(5))
    assert kept.span() == (BEGAN, BEGAN + 5 * SECOND)
