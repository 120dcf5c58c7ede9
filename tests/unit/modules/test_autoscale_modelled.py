"""`autoscale` on a model of a machine: what of cold memory it has taken after two minutes, and no more than that."""

from __future__ import annotations

import pytest

from pydamon.modules.autoscale import NAME, AutoscaleController
from pydamon.modules.controller import ColdBytes, Observations, Pressure, ReclaimBytes
from pydamon.modules.registry import parse

MIB = 1 << 20
SECOND = 1_000_000_000
HOT, FILES, ANON = 96 * MIB, 128 * MIB, 288 * MIB


class Model:
    """A machine that uses all of its memory for ``busy_s``, and then the hot part only. Snapshots come every 10 s.

    The kernel gives files as long as it has cold ones, and anonymous memory if it is not asked for files alone.
    """

    def __init__(self, busy_s: int, age_s: int) -> None:
        self.files, self.anon, self.taken = FILES, ANON, 0
        self._busy_s, self._age_s = busy_s, age_s
        self._snapshot = (0, HOT + FILES + ANON, 0)  # when, resident, cold

    @property
    def resident(self) -> int:
        return HOT + self.files + self.anon

    def look(self, now_s: int) -> Observations:
        if now_s % 10 == 0:
            idle = now_s - self._busy_s >= self._age_s
            self._snapshot = (now_s, self.resident, self.files + self.anon if idle else 0)
        at_s, resident, cold = self._snapshot
        return Observations(
            now_ns=now_s * SECOND,
            memory=Pressure(total_us=0),
            current_bytes=self.resident,
            resident_bytes=resident,
            snapshot_ns=at_s * SECOND,
            cold=(ColdBytes(self._age_s * 1_000_000, cold),),
            done_bytes=self.taken,
        )

    def reclaim(self, asked: ReclaimBytes) -> None:
        of_files = min(asked.bytes, self.files)
        of_anon = min(asked.bytes - of_files, self.anon) if asked.swappiness is None else 0
        self.files, self.anon = self.files - of_files, self.anon - of_anon
        self.taken += of_files + of_anon


def idle_for(seconds: int, *, busy_s: int, age_s: int = 15) -> list[int]:
    """What is left of the cold memory, step by step, from when it was used last."""
    model = Model(busy_s, age_s)
    (loop,) = parse(f"{NAME} cold_min_age={age_s}s").controllers("physical")
    assert isinstance(loop, AutoscaleController)
    left = []
    for now_s in range(0, busy_s + seconds + 1, 5):
        for decision in loop.step(model.look(now_s)):
            if isinstance(decision, ReclaimBytes):
                model.reclaim(decision)
        if now_s >= busy_s:
            left.append(model.files + model.anon)
    return left


@pytest.mark.parametrize("busy_s", [0, 60, 300])
def test_two_minutes_after_memory_became_idle_most_of_it_is_taken(busy_s: int) -> None:
    left = idle_for(120, busy_s=busy_s)
    assert left[2] == FILES + ANON  # not before it was idle for the time that makes it cold
    assert left[-1] <= (FILES + ANON) * 0.2
    assert left == sorted(left, reverse=True)


def test_at_no_time_is_more_taken_than_the_demand_and_its_margin_leave() -> None:
    left = idle_for(600, busy_s=60)
    assert left[-1] == pytest.approx(HOT / 10, abs=MIB)  # the margin of a tenth stays


def test_memory_that_was_wanted_until_now_is_taken_later_the_longer_the_age_is() -> None:
    assert idle_for(60, busy_s=60, age_s=15)[-1] < idle_for(60, busy_s=60, age_s=40)[-1]
