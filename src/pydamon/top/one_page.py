"""The screen of one process, or of one target of a record or of a kdamond in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from pydamon.top import one_lines, words
from pydamon.top.cells import fit
from pydamon.top.listing import WINDOW_S
from pydamon.top.one_lines import Point
from pydamon.top.page import Page
from pydamon.top.scenes import Scene, Scenes, Strips, offset_ns, used_of
from pydamon.top.spans import Line, text_line
from pydamon.views.live import MappingHeat, Target

_SECOND_NS = 1_000_000_000
_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400)
_CURVE_S = 0.03  # that drawing once may take to look up points that are not known yet
_MOST_POINTS = 4096
_SCHEMES = 3
_COST_S = 10  # over which what it costs is told
_HIGH, _LOW = 20, 14  # of the screen: below there is no room for the curve, the idle table


class OnePage(Page):
    """Shows a target of ``scenes``, the first one unless ``target`` says another; ``back`` is called by Escape.

    ``write`` is as in `Page`, ``notice`` tells what there is to say.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "back", "Back"),
        Binding("tab", "next(1)", "Next", priority=True),
        Binding("shift+tab", "next(-1)", "Previous", priority=True),
        Binding("f6,greater_than_sign,full_stop", "sort(1)", "Sort"),
        Binding("less_than_sign,comma", "sort(-1)", "Sort"),
    ]
    KEYS = (*words.ONE_KEYS, *words.COMMON_KEYS)

    def __init__(
        self,
        scenes: Scenes,
        *,
        back: Callable[[], object],
        write: Callable[[str], str],
        target: int | None = None,
        waiting: str = "looking ...",
        notice: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(write)
        self.scenes = scenes
        self.target = target
        self.sort = one_lines.SORTS[0]
        self._back = back
        self._waiting = waiting
        self._notice = notice
        self._mappings: list[MappingHeat] = []
        self._strips: Strips = {}
        self._points: dict[tuple[int, int], int | None] = {}  # (target, time) → what the curve has there

    # -- what it says -------------------------------------------------------------------------------------------------

    def seen(self) -> Scene | None:
        """What is to be seen."""
        return self.scenes.latest() if self.when is None else self.scenes.at(self.when)

    def head(self, width: int) -> list[Line]:
        """See `Page`."""
        scene = self.seen()
        target = None if scene is None else self._chosen(scene)
        self._mappings, self._strips = [], {}
        if scene is None or target is None:
            said = self._notice() if scene is None or not scene.live.targets else f"target {self.target} has ended"
            return [text_line(fit(self._waiting, width), "bold"), text_line(fit(said, width), "note")]
        self._mappings = one_lines.arranged(target.mappings, self.sort)
        self._strips = scene.strips(target.target, one_lines.strip_cells(width))
        lines = [self._title(scene, target, width)]
        before = self.scenes.at(scene.live.time_ns - _COST_S * _SECOND_NS)
        cost = one_lines.cost_bp(scene.live, None if before is None else before.live)
        lines += [text_line(line) for line in _wrapped(one_lines.facts(scene.live, target, cost), width)]
        if self._notice():
            lines.append(text_line(fit(self._notice(), width), "note"))
        lines += one_lines.scheme_lines(scene.live.schemes, width, _SCHEMES)
        height = self.view.size.height
        if height >= _HIGH:
            points = self._curve(scene, target, width - 7)
            lines += one_lines.curve(points, width, one_lines.curve_title(points, target.by))
        if height >= _LOW:
            lines += one_lines.idle_table(target, width)
        if height >= _HIGH:
            lines.append(one_lines.legend(width))
        return [*lines, text_line(one_lines.mappings_head(width, self.sort), "head")]

    def _title(self, scene: Scene, target: Target, width: int) -> Line:
        latest = self.scenes.latest()
        when = words.clock(scene.live.time_ns + offset_ns(scene.live)) if scene.live.time_unix_ns is not None else ""
        before = ""
        if self.when is not None and latest is not None:
            before = f" ({words.ago(latest.live.time_ns - scene.live.time_ns)})"
        who = fit(one_lines.who(target), max(width - len(when) - len(before) - 2, 8)).rstrip()
        return text_line(fit(f"{who}  {when}{before}", width), "past" if self.when is not None else "bold")

    def _chosen(self, scene: Scene) -> Target | None:
        targets = scene.live.targets
        if self.target is None and targets:
            self.target = targets[0].target
        return next((one for one in targets if one.target == self.target), None)

    def rows(self) -> int:
        """See `Page`."""
        return len(self._mappings)

    def row(self, number: int, width: int) -> Line:
        """See `Page`."""
        one = self._mappings[number]
        return one_lines.mapping_line(one, self._strips.get((one.name, one.kind)), width)

    def chosen_style(self) -> str:
        """See `Page`: nothing is done with a mapping, and its heat has colours."""
        return ""

    # -- the curve ----------------------------------------------------------------------------------------------------

    def _curve(self, scene: Scene, target: Target, width: int) -> list[Point]:
        """Points at whole steps up to what is seen; those that are not known yet are looked up, some each time."""
        span = self.scenes.span()
        if span is None or width < 1:
            return []
        seconds = (span[1] - span[0]) / _SECOND_NS
        step_ns = next((s for s in _STEPS_S if s * width >= seconds), _STEPS_S[-1]) * _SECOND_NS
        last = scene.live.time_ns // step_ns
        first = max(span[0] // step_ns, last - width + 1)
        until = time.monotonic() + _CURVE_S
        found = []
        for place in range(last, first - 1, -1):
            at_ns = min((place + 1) * step_ns - 1, scene.live.time_ns)
            key = (target.target, at_ns)
            if key not in self._points and time.monotonic() < until:
                self._points[key] = self._used_at(target, at_ns)
            elif key not in self._points:
                self._later()
            found.append(Point(at_ns, self._points.get(key)))
        while len(self._points) > _MOST_POINTS:
            del self._points[next(iter(self._points))]
        return found[::-1]

    def _used_at(self, target: Target, time_ns: int) -> int | None:
        """What the curve has there: told by what tells it now (``by``), not by something else."""
        scene = self.scenes.at(time_ns)
        if scene is None or scene.live.time_ns > time_ns:
            return None
        one = next((one for one in scene.live.targets if one.target == target.target), None)
        if one is None or one.by != target.by:
            return None
        used = used_of(one.used, WINDOW_S)
        if used is not None:
            return used.bytes
        return None if one.by == "panel" else one.working_set_bytes

    def _later(self) -> None:
        """There is more to look up."""
        if not self._more:
            self._more = True
            self.set_timer(0.05, self._go_on)

    def _go_on(self) -> None:
        self._more = False
        self.update()

    _more = False

    # -- time ---------------------------------------------------------------------------------------------------------

    def now_ns(self) -> int | None:
        """See `Page`."""
        latest = self.scenes.latest()
        return None if latest is None else latest.live.time_ns

    def offset_ns(self) -> int:
        """See `Page`."""
        latest = self.scenes.latest()
        return 0 if latest is None else offset_ns(latest.live)

    def time_at(self, time_ns: int, by: int) -> int | None:
        """See `Page`."""
        found = self.scenes.step(time_ns, by)
        return None if found is None else found.live.time_ns

    # -- keys ---------------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """To where one came from."""
        self._back()

    def action_next(self, by: int) -> None:
        """Another target."""
        scene = self.seen()
        numbers = [] if scene is None else [one.target for one in scene.live.targets]
        if numbers:
            place = numbers.index(self.target) if self.target in numbers else -by
            self.target = numbers[(place + by) % len(numbers)]
            self.cursor = 0
        self.update()

    def action_sort(self, by: int) -> None:
        """Mappings in another order."""
        place = one_lines.SORTS.index(self.sort)
        self.sort = one_lines.SORTS[(place + by) % len(one_lines.SORTS)]
        self.update()


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    """The parts with `` · `` between them, in as many lines as that takes."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(fit(part, width).rstrip())
    return lines
