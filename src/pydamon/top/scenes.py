"""What there is to see of what is monitored, by the time: of a store, of a record, or as another process tells it."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pydamon.analysis.strips import Strip, strips
from pydamon.plain import printable
from pydamon.views.live import Live, Used, live
from pydamon.views.processes import Process, Processes, Use
from pydamon.views.store import History, Moment

_KEPT = 512
_MOST_TOLD = 3600
WINDOW_S, IDLE_S = 10, 60

Strips = Mapping[tuple[str, str], Strip]


class Scene(NamedTuple):
    """The view of a moment, and the moment itself where it is known."""

    live: Live
    moment: Moment | None = None

    def strips(self, target: int, cells: int) -> Strips:
        """The heat of the mappings of a target (`analysis.strips`), by name and kind as the view has them; nothing
        where only the view is known."""
        known = None if self.moment is None else self.moment.targets.get(target)
        if known is None or not known.mapped.mappings:
            return {}
        found = strips(known.snapshot, known.mapped.layout, cells)
        return {(printable(name), kind): strip for (name, kind), strip in found.items()}


class Scenes(Protocol):
    """Scenes in the order of time; times by the clock of the snapshots, in ns."""

    def latest(self) -> Scene | None: ...

    def at(self, time_ns: int) -> Scene | None: ...

    def step(self, time_ns: int, by: int) -> Scene | None: ...

    def span(self) -> tuple[int, int] | None: ...


class OfHistory:
    """The scenes of a `History`; those that were asked for last are kept."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._kept: OrderedDict[int, Scene] = OrderedDict()

    def latest(self) -> Scene | None:
        """See `Scenes`."""
        return self._scene(self.history.latest())

    def at(self, time_ns: int) -> Scene | None:
        """See `Scenes`."""
        return self._scene(self.history.at(time_ns))

    def step(self, time_ns: int, by: int) -> Scene | None:
        """See `Scenes`."""
        moment = self.history.at(time_ns)
        return self._scene(None if moment is None else self.history.step(moment, by))

    def span(self) -> tuple[int, int] | None:
        """See `Scenes`."""
        return self.history.span()

    def _scene(self, moment: Moment | None) -> Scene | None:
        if moment is None:
            return None
        scene = self._kept.get(moment.time_ns)
        if scene is None:
            scene = self._kept[moment.time_ns] = Scene(live(moment), moment)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return scene


class Told:
    """Scenes as another process tells them: ``add`` what it has told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scenes: deque[Scene] = deque(maxlen=_MOST_TOLD)

    def add(self, told: Live) -> None:
        """Another one, unless it is of the same time as the last."""
        with self._lock:
            if not self._scenes or told.time_ns > self._scenes[-1].live.time_ns:
                self._scenes.append(Scene(told))

    def latest(self) -> Scene | None:
        """See `Scenes`."""
        scenes = self._all()
        return scenes[-1] if scenes else None

    def at(self, time_ns: int) -> Scene | None:
        """See `Scenes`."""
        return self.step(time_ns, 0)

    def step(self, time_ns: int, by: int) -> Scene | None:
        """See `Scenes`."""
        scenes = self._all()
        place = max(bisect_right(scenes, time_ns, key=lambda scene: scene.live.time_ns) - 1, 0) + by
        return scenes[min(max(place, 0), len(scenes) - 1)] if scenes else None

    def span(self) -> tuple[int, int] | None:
        """See `Scenes`."""
        scenes = self._all()
        return (scenes[0].live.time_ns, scenes[-1].live.time_ns) if scenes else None

    def _all(self) -> list[Scene]:
        with self._lock:
            return list(self._scenes)


class Targets:
    """The targets of scenes as `Processes`: what the list shows. The key of one is its number as ``start_ticks``."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self._last: tuple[int, Processes] | None = None

    def latest(self) -> Processes | None:
        """See `processes_page.Times`; times are those of the scenes, since 1970 where that is known."""
        return self._processes(self.scenes.latest())

    def at(self, time_ns: int) -> Processes | None:
        """See `latest`."""
        return self._processes(self.scenes.at(time_ns - self._offset_ns()))

    def step(self, time_ns: int, by: int) -> Processes | None:
        """See `latest`."""
        return self._processes(self.scenes.step(time_ns - self._offset_ns(), by))

    def _offset_ns(self) -> int:
        scene = self.scenes.latest()
        return 0 if scene is None else offset_ns(scene.live)

    def _processes(self, scene: Scene | None) -> Processes | None:
        if scene is None:
            return None
        time_ns = scene.live.time_ns
        if self._last is None or self._last[0] != time_ns:
            self._last = time_ns, processes_of(scene.live)
        return self._last[1]


def offset_ns(seen: Live) -> int:
    """What added to a time makes it one since 1970; 0 where that is not known."""
    return 0 if seen.time_unix_ns is None else seen.time_unix_ns - seen.time_ns


def used_of(used: Sequence[Used], window_s: int) -> Use | None:
    """What was used within a window."""
    for one in used:
        if one.window_s == window_s:
            low, high = (one.bytes if bound is None else bound for bound in (one.low_bytes, one.high_bytes))
            return Use(bytes=one.bytes, low_bytes=low, high_bytes=high)
    return None


def processes_of(seen: Live) -> Processes:
    """The targets of a view as processes."""
    rows = []
    for target in seen.targets:
        longer = used_of(target.used, IDLE_S)
        size = target.resident_bytes
        idle = None
        if longer is not None:
            rest, low, high = (max(size - value, 0) for value in (longer.bytes, longer.high_bytes, longer.low_bytes))
            idle = Use(bytes=rest, low_bytes=low, high_bytes=high)
        rows.append(
            Process(
                pid=target.target if target.pid is None else target.pid,
                start_ticks=target.target,
                name=target.command or f"target {target.target}",
                uid=-1,
                cgroup=target.cgroup or "",
                resident_bytes=size,
                used=used_of(target.used, WINDOW_S),
                idle=idle,
                through=seen.primitive or "",
            )
        )
    return Processes(
        time_unix_ns=seen.time_ns + offset_ns(seen),
        window_s=WINDOW_S,
        idle_s=IDLE_S,
        processes=rows,
        total_bytes=0,
        available_bytes=0,
        pages=0,
        every_ns=0,
        cpu_ns=0 if seen.cost is None else seen.cost.cpu_ns,
        cpu_bp=0,
        notices=[],
    )
