"""Puts what waits in the spool into the store, oldest first: at a bounded rate, and patiently where that fails.

After a failure it waits a random time of up to 1 s, 2 s, 4 s, … ten minutes ("full jitter"), so that many hosts do not
come back to a store at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from pydamon.dataset.stores import Store
from pydamon.errors import PydamonError
from pydamon.service.shipping.spool import Spool, Waiting

FIRST_S = 1.0
MOST_S = 600.0
RATE = 1 << 20  # bytes per second


class Sent(msgspec.Struct):
    """What went out since the start; times in seconds since 1970."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    failures: int = 0
    last_success_s: int | None = None
    last_error: str | None = None  # None: the last attempt went well


class Sender:
    """Sends the files of ``spool``. ``open_store`` may raise PydamonError: the store is opened again then.

    `step` is called when it is due; ``wall_s`` tells the time. One thread at a time.
    """

    def __init__(
        self,
        spool: Spool,
        open_store: Callable[[], Store],
        *,
        rate: int = RATE,
        wall_s: Callable[[], float],
        say: Callable[[str], object] = lambda line: None,
        draw: random.Random | None = None,
    ) -> None:
        self.sent = Sent()
        self._spool = spool
        self._open_store = open_store
        self._store: Store | None = None
        self._rate = rate
        self._wall_s = wall_s
        self._say = say
        self._draw = draw if draw is not None else random.Random()
        self._failed = 0  # in a row

    def step(self) -> float | None:
        """Send one file. In how many seconds there is more to do; None: nothing waits."""
        waiting = self._spool.waiting()
        if not waiting:
            return None
        # What is refused again and again does not hold up the others.
        each = waiting[self._failed % len(waiting)]
        data = self._spool.content(each)
        if data is None:
            return 0.0
        try:
            if self._store is None:
                self._store = self._open_store()
            self._store.put(each.part.name, data)
        except PydamonError as error:
            return self._failure(str(error), waiting)
        self._spool.sent(each)
        self._success(each)
        return each.bytes / self._rate

    def _success(self, each: Waiting) -> None:
        sent = self.sent
        sent.files += 1
        sent.rows += each.rows
        sent.bytes += each.bytes
        sent.last_success_s = int(self._wall_s())
        sent.last_error = None
        if self._failed:
            self._say(f"the store takes files again, after {self._failed} attempts")
        self._failed = 0

    def _failure(self, words: str, waiting: list[Waiting]) -> float:
        self._store = None
        self._failed += 1
        self.sent.failures += 1
        if self.sent.last_error is None:
            size = sum(each.bytes for each in waiting)
            self._say(f"cannot ship: {words}; {len(waiting)} files ({size} bytes) wait, and it is tried again")
        self.sent.last_error = words
        return self._draw.uniform(0, min(MOST_S, FIRST_S * 2 ** min(self._failed - 1, 20)))
