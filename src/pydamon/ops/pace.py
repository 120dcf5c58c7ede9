"""The time of sampling: a clock, when the next sample is due on it, and what else there is to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """What sampling needs of time."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed point; never goes back."""
        ...

    def sleep_ns(self, duration_ns: int) -> bool:
        """Return True after ``duration_ns``, or earlier and False if something asks the loop to look up."""
        ...


class Until(Protocol):
    """What ends a series of samples; ``end_ns`` is when all sampling ends, on the clock."""

    end_ns: int | None

    def interrupted(self) -> bool:
        """Whether something is to be done before the next sample: a stop, a commit. Asked before each one."""
        ...


class Meanwhile(Protocol):
    """What is to be done from time to time, also in the middle of a sleep: at ``due_ns``, on the clock."""

    due_ns: int

    def look(self) -> None:
        """Do it; ``due_ns`` is later than the present time after that."""
        ...


@dataclass(slots=True)
class Sampled:
    """How many samples there were so far, how long they were to take together, and how long they took."""

    samples: int = 0
    asked_ns: int = 0
    sampled_ns: int = 0


class Pace:
    """Sleeps from sample to sample, ``sample_ns`` apart, on ``clock``.

    A sampler asks `over` before each sample but its first, opens the windows, and has `sleep` wait for their end.
    ``meanwhile`` does not end a sample: the rest of its sleep is slept after it. ``sampled`` says whether it could be
    kept: a sample takes from the end of the last one (or from `restart`, or from what cut the last sleep short) to its
    own, with all that was done in between.
    """

    def __init__(self, clock: Clock, until: Until, sample_ns: int = 0, *, meanwhile: Meanwhile | None = None) -> None:
        self.clock = clock
        self.sample_ns = sample_ns
        self._until = until
        self.meanwhile = meanwhile
        self.sampled = Sampled()
        self._due_ns = 0
        self._last_ns: int | None = None

    def restart(self) -> int:
        """The next sample is due one interval from now on; returns the present time."""
        self._due_ns = self._last_ns = self.clock.now_ns()
        return self._due_ns

    def over(self) -> bool:
        """Whether no further sample is to begin: the time is over, or there is something else to do."""
        until = self._until
        return until.interrupted() or (until.end_ns is not None and self.clock.now_ns() >= until.end_ns)

    def sleep(self) -> bool:
        """Sleep until a sampling interval after the last sample was due; False if it was cut short: no sample.

        The kernel sleeps for a whole interval: what it does in between takes next to nothing. Here that takes a part of
        it, and if it came on top, an aggregation interval (and with it every age) would be longer than was asked for.
        Half of the interval is slept at least, so that there is time for an access to be seen in.
        """
        sample_ns, now_ns, meanwhile = self.sample_ns, self.clock.now_ns(), self.meanwhile
        due_ns = self._due_ns + sample_ns
        if due_ns > now_ns + sample_ns:
            due_ns = now_ns + sample_ns
        elif due_ns < now_ns + sample_ns // 2:
            due_ns = now_ns + sample_ns // 2
        self._due_ns = due_ns
        end_ns = self._until.end_ns
        if end_ns is not None and end_ns < due_ns:
            self._sleep(now_ns, end_ns)
            return False
        if meanwhile is not None and meanwhile.due_ns < due_ns:
            whole = self._sleep(now_ns, due_ns)
        else:
            whole = self.clock.sleep_ns(due_ns - now_ns)
        began_ns = now_ns if self._last_ns is None else self._last_ns
        self._last_ns = self.clock.now_ns()
        if whole:
            sampled = self.sampled
            sampled.samples += 1
            sampled.asked_ns += sample_ns
            sampled.sampled_ns += self._last_ns - began_ns
        return whole

    def _sleep(self, now_ns: int, end_ns: int) -> bool:
        """Sleep from now on, but for what is to be done meanwhile; False if it was cut short by something else."""
        meanwhile = self.meanwhile
        while meanwhile is not None and meanwhile.due_ns < end_ns:
            if meanwhile.due_ns > now_ns and not self.clock.sleep_ns(meanwhile.due_ns - now_ns):
                return False
            meanwhile.look()
            now_ns = self.clock.now_ns()
        return self.clock.sleep_ns(max(end_ns - now_ns, 0))
