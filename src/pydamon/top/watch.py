"""Looks at many processes at once: a page panel of each out of one budget, nothing else.

Regions are only for the process that is looked at by itself (`pydamon.top.one`).
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panels import each_used
from pydamon.core.panel import Look
from pydamon.core.panel_watch import PanelWatch
from pydamon.engines.clock import MachineClock
from pydamon.engines.user.access import Access
from pydamon.engines.user.choose import choose
from pydamon.errors import PydamonError
from pydamon.linux.process import Process as Held
from pydamon.ops.panels import ProcessPanels
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec.primitives import facts
from pydamon.top.listing import IDLE_S, WINDOW_S, Known, Listing, memory
from pydamon.views.processes import Process, Processes, Use

PAGES, LEAST = 4096, 32
MOST = 2048  # processes whose pages are asked
_CPU_SHARE = 0.02
_TREND = 60
_EARLY_NS = 100_000_000  # a look may be that early: steps come about once a second
_BP = 10_000
_FDS = 4 * MOST

_LOOKS = 10_000  # that are kept to be written: about 12 MiB

Key = tuple[int, int]


class Looked(NamedTuple):
    """A look that may be written: at whom, where its memory lies, and since when."""

    look: Look
    pid: int
    name: str
    extent: tuple[int, int]
    since_ns: int


class _Asked:
    """A process whose pages are asked, and what was found."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.look: Look | None = None
        self.used: Use | None = None
        self.idle: Use | None = None
        self.trend: deque[int] = deque(maxlen=_TREND)
        self.cost = PrimitiveCost()
        self.cost_bp = self.disturb_bp = 0


class Watch:
    """What is seen of the processes of a `Listing`; all calls come from one thread. Close it in the end.

    Where this user's pages cannot be asked, it tells what is resident, and says why.
    """

    def __init__(self, listing: Listing, *, primitive: str = "auto", seed: int = 0) -> None:
        self.listing = listing
        self.through = ""
        self.left_out: set[Key] = set()  # whose accessed bits somebody else clears now
        self.notices: list[str] = []
        self._asked: dict[Key, _Asked] = {}
        self._refused: dict[Key, str] = {}
        self._rows: dict[Key, Process] = {}
        self._access: Access | None = None
        self._panels: ProcessPanels | None = None
        self._panel: PanelWatch | None = None
        self._looked_ns = self._every_ns = 0
        self._looked: deque[Looked] = deque(maxlen=_LOOKS)
        self._lock = threading.Lock()  # of the last one: it is written by another thread
        self._told = (time.monotonic_ns(), time.thread_time_ns())
        self._open(primitive, seed)

    def _open(self, primitive: str, seed: int) -> None:
        try:
            choice = choose(primitive)
            if not facts(choice.name).has_panel:
                self.notices.append(
                    f"only what is resident is told: no primitive asks single pages here ({choice.reason})"
                )
                return
            self._access = Access(choice, clears_first=False)
        except PydamonError as error:
            self.notices.append(f"only what is resident is told: {error}")
            return
        _allow_files(_FDS)
        self.through = choice.name
        self._panels = ProcessPanels(self._access.open)
        self._panel = PanelWatch(
            self._panels,
            MachineClock(),
            lambda: self._panels.targets if self._panels is not None else (),
            size=PAGES,
            seed=seed,
            least=LEAST,
            cpu_share=_CPU_SHARE,
        )

    def step(self, seen: Collection[int] = ()) -> Processes:
        """Look, if that is due; what is known now. ``seen`` are the pids whose figures have to be of now."""
        listed = self.listing.refresh(seen)
        if self._panels is not None and self._panel is not None:
            self._follow(self._panels, listed)
            self._look(self._panels, self._panel)
        now_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        (told_ns, told_cpu_ns), self._told = self._told, (now_ns, cpu_ns)
        self._rows = {known.key: self._row(known) for known in listed}
        total, available = memory()
        return Processes(
            time_unix_ns=time.time_ns(),
            window_s=WINDOW_S,
            idle_s=IDLE_S,
            processes=list(self._rows.values()),
            total_bytes=total,
            available_bytes=available,
            pages=sum(row.pages for row in self._rows.values()),
            every_ns=self._every_ns,
            cpu_ns=cpu_ns,
            cpu_bp=(cpu_ns - told_cpu_ns) * _BP // max(now_ns - told_ns, 1),
            notices=list(self.notices),
        )

    def _follow(self, panels: ProcessPanels, listed: list[Known]) -> None:
        """Ask the processes that are listed, and no others."""
        wanted = {known.key for known in listed} - self.left_out
        for key in list(self._asked):
            if key not in wanted or not panels.target_valid(self._asked[key].target):
                panels.drop(self._asked.pop(key).target)
        for key in self._refused.keys() - wanted:
            del self._refused[key]
        for key in wanted - self._asked.keys() - self._refused.keys():
            if len(self._asked) >= MOST:
                self._refused[key] = f"more than {MOST:,} processes"
                continue
            try:
                self._asked[key] = _Asked(panels.add(self._held(key)))
            except (PydamonError, OSError) as error:
                self._refused[key] = str(error)

    @staticmethod
    def _held(key: Key) -> Held:
        process = Held(key[0])
        if process.start_ticks != key[1]:
            process.close()
            raise PydamonError("has ended", where=f"process {key[0]}")
        return process

    def _look(self, panels: ProcessPanels, panel: PanelWatch) -> None:
        now_ns = time.monotonic_ns()
        if not self._looked_ns:
            panel.begin()
        elif now_ns >= panel.due_ns - _EARLY_NS:
            panel.look()
            self._take(panels, panel, now_ns)
        else:
            return
        self._every_ns, self._looked_ns = (now_ns - self._looked_ns if self._looked_ns else 0), now_ns
        self.notices += [*panels.take_notices(), *panel.notices]
        panel.notices.clear()

    def _take(self, panels: ProcessPanels, panel: PanelWatch, now_ns: int) -> None:
        looks = {look.target: look for look in panel.take_looks()}
        order = list(looks.values())
        used, idle = each_used(order, WINDOW_S), each_used(order, IDLE_S)
        place = {target: number for number, target in enumerate(looks)}
        elapsed_ns = max(now_ns - self._looked_ns, 1)
        for key, asked in self._asked.items():
            number = place.get(asked.target)
            if number is None:
                continue
            asked.look = order[number]
            self._keep(panels, key, asked.look)
            asked.used, asked.idle = _use(used[number]), _rest(idle[number], asked.look.resident_bytes)
            asked.trend.append(asked.used.bytes if asked.used is not None else 0)
            cost = panels.primitives[asked.target].cost
            before, asked.cost = asked.cost, msgspec.structs.replace(cost)
            spent_ns = cost.check_ns + cost.clear_ns - before.check_ns - before.clear_ns
            asked.cost_bp = spent_ns * _BP // elapsed_ns
            asked.disturb_bp = (cost.disturb_ns - before.disturb_ns) * _BP // elapsed_ns

    def _keep(self, panels: ProcessPanels, key: Key, look: Look) -> None:
        extent, row = panels.extent(look.target), self._rows.get(key)
        if extent is not None and row is not None:
            with self._lock:
                self._looked.append(Looked(look, key[0], row.name, extent, self._looked_ns))

    def looked(self) -> list[Looked]:
        """The last looks, in the order of time; from any thread."""
        with self._lock:
            return list(self._looked)

    def _row(self, known: Known) -> Process:
        asked = self._asked.get(known.key)
        old = self._rows.get(known.key)
        row = known.row()
        row.why_not = self._refused.get(known.key, "looked at by itself" if known.key in self.left_out else "")
        if asked is not None:
            row.used, row.idle = asked.used, asked.idle
            row.pages = asked.look.pages + asked.look.unknown if asked.look is not None else 0
            row.through = self.through
            row.cost_bp, row.disturb_bp = asked.cost_bp, asked.disturb_bp
            row.trend = tuple(asked.trend)
        return old if old == row and old is not None else row  # the same object: nothing has changed

    def close(self) -> None:
        """Ask nobody any more."""
        if self._panels is not None:
            self._panels.close()
        if self._access is not None:
            self._access.close()


def _use(found: NDArray[np.int64]) -> Use | None:
    middle, low, high = found.tolist()
    if middle < 0:
        return None
    return Use(bytes=middle, low_bytes=low, high_bytes=max(high, middle), at_least=high < 0)


def _rest(found: NDArray[np.int64], resident_bytes: int) -> Use | None:
    """What was not used; None as long as that is not known."""
    middle, low, high = found.tolist()
    if high < 0:
        return None
    return Use(bytes=resident_bytes - middle, low_bytes=resident_bytes - high, high_bytes=resident_bytes - low)


def _allow_files(count: int) -> None:
    """Let this process open so many files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
