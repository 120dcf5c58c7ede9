"""Whether samples came in time is counted as it was, whatever delays or cuts them."""

from __future__ import annotations

from pydamon.ops.pace import Pace, Sampled

MS = 1_000_000


class Course:
    """A clock that oversleeps by ``late_ns``; sleeps that reach a time of ``wakes`` end there."""

    def __init__(self, late_ns: int = 0, *wakes: int) -> None:
        self.now, self.late_ns, self.wakes = 0, late_ns, list(wakes)

    def now_ns(self) -> int:
        return self.now

    def sleep_ns(self, duration_ns: int) -> bool:
        if self.wakes and self.wakes[0] <= self.now + duration_ns:
            self.now = self.wakes.pop(0)
            return False
        self.now += duration_ns + self.late_ns
        return True


class Until:
    def __init__(self, end_ns: int | None = None) -> None:
        self.end_ns = end_ns

    def interrupted(self) -> bool:
        return False


class Look:
    """Something that is to be done every 3 ms and takes one."""

    def __init__(self, clock: Course) -> None:
        self.clock, self.due_ns = clock, 3 * MS

    def look(self) -> None:
        self.clock.now += MS
        self.due_ns = self.clock.now + 2 * MS


def test_samples_in_time_take_what_was_asked_for() -> None:
    pace = Pace(Course(), Until(), 5 * MS)
    pace.restart()
    assert all(pace.sleep() for _ in range(100))
    assert pace.sampled == Sampled(100, 500 * MS, 500 * MS)


def test_work_between_samples_counts_as_theirs() -> None:
    """17 times as late: each check takes 82.5 ms, and half an interval is slept at least."""
    clock = Course()
    pace = Pace(clock, Until(), 5 * MS)
    pace.restart()
    for _ in range(10):
        clock.now += 165 * MS // 2
        assert pace.sleep()
    assert pace.sampled == Sampled(10, 50 * MS, 850 * MS)


def test_sleeping_too_long_counts_too() -> None:
    pace = Pace(Course(late_ns=5 * MS), Until(), 5 * MS)
    pace.restart()
    for _ in range(4):
        pace.sleep()
    # What was overslept is not slept next time, up to half of the interval.
    assert pace.sampled == Sampled(4, 20 * MS, 10 * MS + 3 * (5 * MS + 5 * MS // 2))


def test_a_pause_and_what_was_cut_short_do_not() -> None:
    clock = Course(0, 12 * MS)
    pace = Pace(clock, Until(), 5 * MS)
    pace.restart()
    assert [pace.sleep() for _ in range(4)] == [True, True, False, True]
    assert pace.sampled.samples == 3
    before = pace.sampled.sampled_ns
    clock.now += 1000 * MS
    pace.restart()
    pace.sleep()
    assert pace.sampled == Sampled(4, 20 * MS, before + 5 * MS)


def test_the_end_is_no_sample() -> None:
    pace = Pace(Course(), Until(end_ns=12 * MS), 5 * MS)
    pace.restart()
    assert [pace.sleep() for _ in range(3)] == [True, True, False]
    assert pace.sampled.samples == 2


def test_each_interval_counts_as_it_was_asked_for() -> None:
    clock = Course()
    pace = Pace(clock, Until(), 5 * MS, meanwhile=Look(clock))
    pace.restart()
    pace.sleep()
    pace.sample_ns = 10 * MS
    pace.sleep()
    assert pace.sampled == Sampled(2, 15 * MS, clock.now)
