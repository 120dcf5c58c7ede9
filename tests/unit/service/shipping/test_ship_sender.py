"""Sending: patient with a store that is away, bounded in rate."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydamon.dataset.stores import Entry, StoreError
from pydamon.errors import MachineError
from pydamon.service.shipping.sender import MOST_S, Sender
from pydamon.service.shipping.spool import Packed, Spool

MINUTE = 1_795_737_600


class Memory:
    """A store that is away for as long as ``away`` says, or does not take names that it refuses."""

    where = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.away = 0
        self.refused: set[str] = set()

    def put(self, name: str, data: bytes) -> None:
        self.away -= 1
        if self.away >= 0 or name in self.refused:
            raise StoreError("is away", where=self.where)
        self.files[name] = data

    def get(self, name: str) -> bytes:
        return self.files[name]

    def list(self, prefix: str = "") -> Iterator[Entry]:
        yield from (Entry(name, len(data)) for name, data in self.files.items())

    def delete(self, name: str) -> None:
        del self.files[name]


class Trial:
    """A spool with files that wait, and who sends them."""

    def __init__(self, path: Path, files: int) -> None:
        self.said: list[str] = []
        self.store = Memory()
        self.spool = Spool(str(path / "spool"), 1 << 30)
        for number in range(files):
            self.spool.add(MINUTE + 60 * number, b"")
            self.spool.cut(lambda records, n=number: [Packed("minutes", "2026-11-27", n, 10, b"x" * 1000)])  # type: ignore[misc]
        self.sender = Sender(
            self.spool, lambda: self.store, rate=500, wall_s=lambda: 7.9, say=self.said.append, draw=random.Random(3)
        )

    def waits(self, most: int = 100) -> list[float]:
        found: list[float] = []
        while len(found) < most and (wait := self.sender.step()) is not None:
            found.append(wait)
        return found


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    found = Trial(tmp_path, 3)
    yield found
    found.spool.close()


def test_files_go_out_oldest_first_no_faster_than_the_rate(trial: Trial) -> None:
    assert trial.waits() == [2.0, 2.0, 2.0]  # 1,000 bytes at 500 a second
    assert [name.split("/")[2] for name in trial.store.files] == ["bucket=00", "bucket=01", "bucket=02"]
    sent = trial.sender.sent
    assert (sent.files, sent.rows, sent.bytes, sent.failures, sent.last_success_s) == (3, 30, 3000, 0, 7)
    assert trial.said == []


def test_an_outage_is_said_once_and_its_end_too(trial: Trial) -> None:
    trial.store.away = 9
    trial.waits()
    assert trial.said == [
        "cannot ship: memory: is away; 3 files (3000 bytes) wait, and it is tried again",
        "the store takes files again, after 9 attempts",
    ]
    assert trial.sender.sent.failures == 9
    assert trial.sender.sent.last_error is None
    assert len(trial.store.files) == 3


def test_waits_after_failures_are_random_below_a_bound_that_doubles_up_to_ten_minutes(trial: Trial) -> None:
    trial.store.away = 1_000_000
    waits = trial.waits(2000)
    assert all(0 <= wait <= min(2.0**at, MOST_S) for at, wait in enumerate(waits[:1000]))
    late = waits[20:]
    assert max(late) > 0.99 * MOST_S
    assert sum(late) / len(late) == pytest.approx(MOST_S / 2, rel=0.1)  # 6 standard errors of a uniform mean


def test_a_file_that_is_always_refused_does_not_hold_up_the_others(trial: Trial) -> None:
    trial.store.refused = {trial.spool.waiting()[0].part.name}
    trial.waits(20)
    assert len(trial.store.files) == 2
    assert len(trial.spool.waiting()) == 1


def test_a_store_that_cannot_be_opened_is_tried_again(trial: Trial, tmp_path: Path) -> None:
    tries = iter([MachineError("no such directory", where="to")])

    def opened() -> Memory:
        for error in tries:
            raise error
        return trial.store

    trial.sender._open_store = opened
    trial.waits()
    assert trial.sender.sent.failures == 1
    assert len(trial.store.files) == 3
