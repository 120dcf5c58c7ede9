"""What there is to see of what is monitored, by the time: of a store, of a record, or as another process tells it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pydamon.analysis.strips import Strip, strips
from pydamon.errors import PydamonError
from pydamon.plain import printable
from pydamon.top.listing import IDLE_S, WINDOW_S
from pydamon.views.live import Live, Used, live
from pydamon.views.moments import History, Moment
from pydamon.views.processes import Process, Processes, Use

_KEPT = 512

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


class Kdamond(Protocol):
    """Tells what it knows of memory (`service.client.Client`). Raises PydamonError."""

    def live(
        self, at_ns: int | None = None, *, step: int = 0, mappings: Sequence[int] | None = None
    ) -> tuple[Live | None, tuple[int, int] | None]: ...


class OfKdamond:
    """The scenes of a kdamond in the background, which is asked: once a second for the latest (`refresh`, from any
    thread), for others when they are wanted. ``notice`` says why it does not answer any more."""

    def __init__(self, kdamond: Kdamond) -> None:
        self.notice = ""
        self._kdamond = kdamond
        self._latest: Scene | None = None
        self._span: tuple[int, int] | None = None
        self._kept: OrderedDict[tuple[int, int], Scene] = OrderedDict()

    def refresh(self) -> None:
        """Ask what is known now."""
        found, self._span = self._ask(None, 0) or (self._latest, self._span)
        self._latest = found

    def latest(self) -> Scene | None:
        """See `Scenes`."""
        return self._latest

    def at(self, time_ns: int) -> Scene | None:
        """See `Scenes`."""
        return self.step(time_ns, 0)

    def step(self, time_ns: int, by: int) -> Scene | None:
        """See `Scenes`."""
        kept = self._kept.get((time_ns, by)) if by <= 0 else None  # what comes later may be there by now
        if kept is not None:
            return kept
        found = self._ask(time_ns, by)
        if found is None or found[0] is None:
            return self._latest
        self._kept[time_ns, by] = found[0]
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found[0]

    def span(self) -> tuple[int, int] | None:
        """See `Scenes`."""
        return self._span

    def _ask(self, at_ns: int | None, step: int) -> tuple[Scene | None, tuple[int, int] | None] | None:
        try:
            view, span = self._kdamond.live(at_ns, step=step)
        except PydamonError as error:
            self.notice = str(error)
            return None
        self.notice = ""
        return None if view is None else Scene(view), span


class Targets:
    """The targets of scenes as `Processes`: what the list shows. The key of one is its number as ``start_ticks``.

    ``notice`` is what there is to say.
    """

    def __init__(self, scenes: Scenes, notice: Callable[[], str] = lambda: "") -> None:
        self.scenes = scenes
        self._notice = notice
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
        said = self._notice()
        self._last[1].notices[:] = [said] if said else []
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
        cpu_ns=0 if seen.cost is None else seen.cost.cpu_ns,
    )
