"""A shipper that is killed again and again, with a store that fails: every minute is in the data set once in the end.

A nursery imports all that is needed once; each life is a fork of it. A life kills itself (SIGKILL) at the n-th call of
those that change files, before it, after it, or in the middle of a write; others are killed by the clock.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydamon.dataset.schema import AGES_S
from pydamon.dataset.stores import Directory, Entry, Store, StoreError, open_store
from pydamon.service.shipping.batches import Packer, Told, encode
from pydamon.service.shipping.sender import Sender
from pydamon.service.shipping.spool import Spool

SEED = 20261127
FIRST = 1_795_737_600 - 30 * 60  # 2026-11-26 23:30 UTC: batches reach over midnight
HOST = "killed"
_CUT_EVERY = 4
_MOST_BYTES = 64 << 20
_CALLS = ("write", "fsync", "fdatasync", "rename", "unlink", "open", "mkdir")
_MOST_CALLS = 120
_CLOCKED = 0.2  # of the kills
_LONGEST_S = 0.15


class Outcome(NamedTuple):
    """How it went: lives that were killed, outages of the store, and minutes and rows that were told."""

    kills: int
    outages: int
    minutes: int
    rows: int


def payload(minute: int, cgroups: int) -> bytes:
    """What is told of a minute: numbers that follow from it."""
    return encode(Told(host=HOST, columns=columns(minute, cgroups)))


def columns(minute: int, cgroups: int) -> dict[str, list[Any]]:
    """Of each cgroup: what it has is told by the minute and its number."""
    base = [(minute // 60 * 1000 + number) * 4096 for number in range(cgroups)]
    return {
        "cgroup": [f"/kill/{number}" for number in range(cgroups)],
        "seconds": [60] * cgroups,
        "resident": base,
        **{f"cold_{age}s": [size // (2 + place) for size in base] for place, age in enumerate(AGES_S)},
    }


class Failing:
    """A store that is away now and then: for some calls before or after the file is there."""

    def __init__(self, store: Store, draw: random.Random, began: Callable[[], object]) -> None:
        self.where = store.where
        self._store = store
        self._draw = draw
        self._away = 0
        self._began = began

    def put(self, name: str, data: bytes) -> None:
        """Put it, and perhaps fail."""
        if self._away == 0 and self._draw.random() < 0.3:
            self._away = self._draw.randint(1, 4)
            self._began()
        if self._away:
            self._away -= 1
            if self._draw.random() < 0.3:
                self._store.put(name, data)  # it is there, but nobody hears of it
            raise StoreError("is away", where=self.where)
        self._store.put(name, data)

    def get(self, name: str) -> bytes:
        """As the store has it."""
        return self._store.get(name)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """As the store has it."""
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        """As the store has it."""
        self._store.delete(name)


def live(folder: Path, minutes: int, cgroups: int, draw: random.Random, *, outages: bool) -> None:
    """One life: go on with minutes where the last one has ended, until all are told."""
    spool = Spool(str(folder / "spool"), _MOST_BYTES)
    store = open_store(str(folder / "fleet"), make=True)
    sender = Sender(
        spool,
        lambda: Failing(store, draw, lambda: _note(folder / "outages")) if outages else store,
        rate=1 << 40,
        wall_s=lambda: 0.0,
        draw=draw,
    )
    packer = Packer()
    for at in range(minutes):
        minute = FIRST + 60 * at
        if spool.knows(minute):
            continue
        spool.add(minute, payload(minute, cgroups))  # behind what the life before has left
        if draw.randrange(_CUT_EVERY) == 0:
            spool.cut(packer)
            sender.step()
    spool.cut(packer)
    while spool.waiting():
        sender.step()


def _note(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.writev(fd, [b"."])  # not a call that is counted
    os.close(fd)


def _arm(draw: random.Random) -> None:
    """Have this process kill itself at one of the calls to come."""
    at, how = draw.randrange(_MOST_CALLS), draw.choice(("before", "after", "within"))
    count = 0

    def armed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count != at:
                return call(*arguments, **named)
            if how == "after":
                call(*arguments, **named)
            elif how == "within" and name == "write":
                fd, data = arguments
                call(fd, bytes(data)[: draw.randrange(len(data) + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        return called

    for name in _CALLS:
        setattr(os, name, armed(name, getattr(os, name)))


def _one(folder: Path, minutes: int, cgroups: int, seed: int, *, armed: bool, clocked: bool) -> int:
    """A life in a process of its own; its status, negative for a signal."""
    draw = random.Random(seed)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if armed and not clocked:
                _arm(draw)
            live(folder, minutes, cgroups, draw, outages=armed)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    if clocked:
        time.sleep(draw.uniform(0, _LONGEST_S))  # when it is killed is what is tried
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path, kills: int, *, minutes_a_kill: int = 3, cgroups: int = 3, seed: int = SEED) -> Outcome:
    """Kill so many lives, and let the last one end; raises AssertionError if anything is missing or there twice."""
    draw = random.Random(seed)
    killed = minutes = 0
    folder.mkdir(parents=True, exist_ok=True)
    while killed < kills:
        minutes += minutes_a_kill
        clocked = draw.random() < _CLOCKED
        status = _one(folder, minutes, cgroups, draw.randrange(1 << 30), armed=True, clocked=clocked)
        assert status in (0, -signal.SIGKILL), f"a life ended with status {status}"
        killed += status < 0
    assert _one(folder, minutes, cgroups, 0, armed=False, clocked=False) == 0
    outages = folder / "outages"
    check(folder, minutes, cgroups)
    return Outcome(killed, outages.stat().st_size if outages.exists() else 0, minutes, minutes * cgroups)


def check(folder: Path, minutes: int, cgroups: int) -> None:
    """All minutes are in the data set once, as they were told, and nothing is left in the spool."""
    import duckdb

    files = str(folder / "fleet" / "minutes" / "*" / "*" / "*.parquet")
    found = duckdb.connect().execute(
        "select minute, cgroup, resident, cold_86400s from read_parquet(?, hive_partitioning = true)", [files]
    )
    rows = sorted(found.fetchall())
    expected = []
    for at in range(minutes):
        told = columns(FIRST + 60 * at, cgroups)
        expected += [
            (FIRST + 60 * at, told["cgroup"][n], told["resident"][n], told["cold_86400s"][n]) for n in range(cgroups)
        ]
    assert len(rows) == len(set(rows)), f"{len(rows) - len(set(rows))} rows are there twice"
    assert rows == sorted(expected), f"{len(set(expected) - set(rows))} rows are missing"
    left = set(os.listdir(folder / "spool")) - {"seen.json"}
    assert not left, f"left in the spool: {left}"
    assert not [each for each in Directory(str(folder / "fleet")).list() if not each.name.endswith(".parquet")]


def run_apart(folder: Path, kills: int, seed: int = SEED) -> Outcome:
    """As `run`, in a process of its own: lives are forks of it, and this one may have threads."""
    command = [sys.executable, "-m", "benchmarks.ship_kills", str(folder), str(kills), str(seed)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return Outcome(*map(int, found.stdout.split()))


def words(outcome: Outcome) -> str:
    """For people."""
    return (
        f"{outcome.kills} kills and {outcome.outages} outages of the store: {outcome.rows} rows of {outcome.minutes}"
        " minutes, each there once"
    )


def main() -> None:
    """``python -m benchmarks.ship_kills FOLDER KILLS [SEED]``: prints what was done."""
    import pyarrow.parquet  # noqa: F401  each life is a fork: it has all that is imported

    folder, kills, *seed = sys.argv[1:]
    print(" ".join(map(str, run(Path(folder), int(kills), seed=int(seed[0]) if seed else SEED))))


if __name__ == "__main__":
    main()
