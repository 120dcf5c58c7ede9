"""Ships what monitors tell: once a minute onto this machine's disk, and from there in batches to the store.

The minute that has just ended gives a row its time, by the machine's clock. A minute that was told already, since the
clock was set back, is not told again; while that lasts nothing is shipped, which is counted and said.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from pydamon.errors import PydamonError
from pydamon.linux.footprint import read_footprint
from pydamon.service.shipping import batches
from pydamon.service.shipping.batches import Packer, Told
from pydamon.service.shipping.journal import MOST_RECORD
from pydamon.service.shipping.rows import Rows, Seen
from pydamon.service.shipping.sender import Sender
from pydamon.service.shipping.settings import Shipping
from pydamon.service.shipping.spool import MOST_JOURNAL, Spool
from pydamon.service.shipping.told import STATUS, Status
from pydamon.version import __version__

_MINUTE_S = 60
_MOST_HELD = 16 << 20  # bytes of minutes that the disk does not take
_LOOK_S = 30.0  # between two looks at what waits, where nothing is due
_LAST_S = 3.0  # to send the rest at the end

# What monitors tell now.
Look = Callable[[], Sequence[Seen]]
# The regions of these monitors as a stream of Arrow, for that host and minute; None: there are none.
LookAtRegions = Callable[[Sequence[Seen], str, int], bytes | None]
Say = Callable[[str], object]


class Shipper:
    """Call `minute` when one has ended; ``sender`` sends in a thread of its own between `start` and `stop`.

    ``wall_s`` and ``steady_s`` tell the time; the latter does not jump.
    """

    def __init__(
        self,
        settings: Shipping,
        spool: Spool,
        sender: Sender,
        look: Look,
        *,
        look_at_regions: LookAtRegions = lambda seen, host, minute: None,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
        say: Say = lambda line: None,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._sender = sender
        self._look = look
        self._look_at_regions = look_at_regions
        self._wall_s = wall_s
        self._steady_s = steady_s
        self._say = say
        self._rows = Rows(most=settings.most_cgroups)
        self._packer = Packer(say)
        self._host = settings.host_name()
        self._batch = settings.batch(self._host, wall_s())
        self._minute: int | None = None  # that was told last
        self._held: deque[tuple[int, bytes]] = deque()  # minutes that the disk did not take
        self._told_rows = self._dropped_minutes = 0
        self._disk_failed = self._repeats = False
        self._cpu_ns = time.process_time_ns()
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._note()
        self._thread.start()

    def stop(self) -> None:
        """Close the batch, and send what can be sent within some seconds; the rest is sent by who comes next."""
        self._cut()
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_S)
        self._note()

    def wait_s(self) -> float:
        """How long it is until the minute ends, by the machine's clock; of one that was told already the next."""
        wall_s = self._wall_s()
        told = self._minute is not None and int(wall_s) // _MINUTE_S * _MINUTE_S == self._minute
        return _MINUTE_S - wall_s % _MINUTE_S + (_MINUTE_S if told else 0)

    # -- once a minute ------------------------------------------------------------------------------------------------

    def minute(self) -> None:
        """A minute has ended: write down what is told of it, and close the batch if it is time."""
        wall_s = self._wall_s()
        self._call_host()
        # The nearest end of a minute: the clock may have been slowed down a little while we waited for it.
        self._minute = (int(wall_s + _MINUTE_S / 2) // _MINUTE_S - 1) * _MINUTE_S
        told = self._told(self._minute)
        if told is not None:
            self._keep(*told)
        self._write()
        batch = self._settings.batch(self._host, wall_s)
        if batch != self._batch or self._spool.open_bytes > MOST_JOURNAL:
            self._batch = batch
            self._cut()
        self._spool.bound()
        self._note()

    def _call_host(self) -> None:
        name = self._settings.host_name()
        if name != self._host:
            self._say(f"this host was called {self._host} and is called {name} from now on")
            self._host = name

    def _told(self, minute: int) -> tuple[int, bytes] | None:
        cpu_ns = time.process_time_ns()
        own = read_footprint(os.getpid()) or {}
        seen = self._look()
        columns = self._rows.columns(
            seen, self._steady_s(), (cpu_ns - self._cpu_ns) // 1000, own.get("resident_bytes", 0)
        )
        self._cpu_ns = cpu_ns
        if columns is None:
            return None
        told = Told(
            host=self._host,
            host_class=self._settings.host_class,
            kernel=os.uname().release,
            version=__version__,
            columns=columns,
            regions=self._regions(seen, minute),
        )
        self._told_rows += told.rows
        payload = batches.encode(told)
        if len(payload) > MOST_RECORD and told.regions is not None:
            self._say("this minute's regions are too many and are left out")
            told.regions = None
            payload = batches.encode(told)
        if len(payload) > MOST_RECORD:
            self._say(f"a minute of {len(payload)} bytes is too large and is dropped; lower ship.cgroups")
            self._dropped_minutes += 1
            return None
        return minute, payload

    def _regions(self, seen: Sequence[Seen], minute: int) -> bytes | None:
        """Those of all monitors, if it is this host's day; whatever is wrong with them, the rest is shipped."""
        if not self._settings.ships_regions(self._host, minute):
            return None
        try:
            return self._look_at_regions(seen, self._host, minute)
        except Exception as error:
            self._say(f"this minute's regions are left out: {type(error).__name__}: {error}")
            return None

    def _keep(self, minute: int, payload: bytes) -> None:
        self._held.append((minute, payload))
        while sum(len(each) for _, each in self._held) > _MOST_HELD:
            self._held.popleft()
            self._dropped_minutes += 1

    def _write(self) -> None:
        """Write down the minutes that are held; where the disk takes none they stay, as many as there is room for."""
        try:
            while self._held:
                self._note_repeat(self._spool.add(*self._held[0]))
                self._held.popleft()
        except OSError as error:
            if not self._disk_failed:
                self._say(f"the spool cannot be written ({error.strerror or error}); minutes are held in memory")
            self._disk_failed = True
            return
        if self._disk_failed:
            self._say("the spool can be written again")
        self._disk_failed = False

    def _note_repeat(self, is_new: bool) -> None:
        if not is_new and not self._repeats:
            self._say("the clock was set back: minutes that were told already are not told again")
        self._repeats = not is_new

    def _cut(self) -> None:
        try:
            self._spool.cut(self._packer)
        except OSError as error:
            self._say(f"no batch can be made ({error.strerror or error}); it is tried again with the next")
        self._wake.set()

    def _note(self) -> None:
        try:
            self._spool.note(STATUS, msgspec.json.encode(self.status()))
        except OSError:  # the disk is full, which was said
            return

    def status(self) -> Status:
        """How it goes."""
        waiting, counts, sent = self._spool.waiting(), self._spool.counts, self._sender.sent
        return Status(
            pid=os.getpid(),
            to=self._settings.where,
            host=self._host,
            minutes=counts.minutes,
            rows=self._told_rows,
            shipped_files=sent.files,
            shipped_rows=sent.rows,
            shipped_bytes=sent.bytes,
            pending_files=len(waiting),
            pending_bytes=sum(each.bytes for each in waiting),
            spool_bytes=self._spool.size_bytes(),
            dropped_files=counts.dropped_files + counts.dropped_journals,
            dropped_rows=counts.dropped_rows,
            dropped_minutes=self._dropped_minutes,
            repeated_minutes=counts.repeated_minutes,
            left_out_rows=self._packer.left_out,
            damaged_bytes=counts.damaged_bytes,
            cgroups_put_together=self._rows.put_together,
            failures=sent.failures,
            last_success_unix_s=sent.last_success_s,
            last_error=sent.last_error,
        )

    # -- the thread that sends ----------------------------------------------------------------------------------------

    def _send(self) -> None:
        while True:
            self._wake.clear()
            wait_s = self._attempt()
            if wait_s is not None:
                self._note()
            if self._ending.is_set() and (wait_s is None or self._sender.sent.last_error is not None):
                return
            if self._ending.is_set():
                continue
            # After a failure it waits that long, whatever comes meanwhile but the end.
            if self._sender.sent.last_error is not None or wait_s is not None:
                self._ending.wait(wait_s)
            else:
                self._wake.wait(_LOOK_S)

    def _attempt(self) -> float | None:
        try:
            return self._sender.step()
        except PydamonError as error:
            self._say(f"cannot ship: {error}")
        except OSError as error:
            self._say(f"the spool cannot be read: {error.strerror or error}")
        return _MINUTE_S
