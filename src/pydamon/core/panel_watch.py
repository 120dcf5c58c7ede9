"""Looks at the page panel of all targets once a second, between samples or in the middle of one.

What it takes is bounded: a look that takes more than its share of a CPU is made less often, and that is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from pydamon.core.panel import I64, LEAST, PAGE_SIZE, U64, Look, Mask, TargetPanel, Watched, at_least, shares
from pydamon.core.panel_shared import STEP_NS, SharedPages
from pydamon.ops.base import PanelPages
from pydamon.ops.pace import Clock
from pydamon.spans import places_of_distinct

SECOND_NS = 1_000_000_000
_SHARE = 0.003  # of a CPU
_WEIGHT = 0.25  # of the last look in what a look takes
_DRAW_NS = 20_000  # per resident page: pages are drawn anew after that long at least; it takes about 20 ns a page
# The first steps of looking who shares pages may take that long, so that a short recording gets all round.
_LONG_NS, _LONG_STEPS = 150_000_000, 4
_KEPT = 4096  # looks that nobody has taken yet; of more the oldest are dropped


class PanelWatch:
    """The panels of those targets of ``ops`` that ``targets`` names, of ``size`` pages together.

    A look is due at ``due_ns``. ``notices`` are lines for the user, to be taken out. ``least`` pages of each target
    (if it has them) are watched beyond ``size`` where need be; None: as far as ``size`` goes. ``cpu_share`` bounds what
    looking takes, of one CPU. ``idle_of_regions`` is that of `TargetPanel` for each target; None: nobody knows
    regions.
    """

    def __init__(
        self,
        ops: PanelPages,
        clock: Clock,
        targets: Callable[[], Sequence[int]],
        *,
        size: int,
        seed: int,
        least: int | None = None,
        cpu_share: float = _SHARE,
        idle_of_regions: Callable[[int, U64], I64] | None = None,
    ) -> None:
        self.due_ns = self._looked_ns = 0
        self.notices: list[str] = []
        self._ops = ops
        self._clock = clock
        self._targets = targets
        self._size = size
        self._seed = seed
        self._least = least
        self._cpu_share = cpu_share
        self._idle_of_regions = idle_of_regions
        self._panels: dict[int, TargetPanel] = {}
        self._resident: dict[int, int] = {}  # bytes of each target that has a panel
        self._drawn: dict[int, _Drawn] = {}
        self._looks: deque[Look] = deque(maxlen=_KEPT)
        self._shared = SharedPages(ops)
        self._together: dict[int, _Together] = {}
        self._long_steps = _LONG_STEPS
        self._spent_ns: float | None = None
        self._said_untold = self._said_rare = self._said_few = False

    def begin(self) -> None:
        """Draw the pages and begin to watch them."""
        now_ns = self._clock.now_ns()
        self._follow(now_ns)
        self._share(now_ns)
        self._ask(now_ns)
        self.due_ns, self._looked_ns = now_ns + SECOND_NS, now_ns

    def look(self) -> None:
        """Ask all pages what has happened since the last time, and begin anew."""
        now_ns, cpu_ns = self._clock.now_ns(), self._ops.panel_cpu_ns()
        self._follow(now_ns)
        cpu_ns += self._share(now_ns)
        self._ask(now_ns)
        since = self._shared.since()
        for target, panel in self._panels.items():
            look = panel.look(self._resident[target], now_ns)
            look.once = self._shared.once(panel, since, now_ns)
            self._looks.append(look)
        self._looked_ns = now_ns
        self._schedule(now_ns, self._ops.panel_cpu_ns() - cpu_ns)

    def end(self) -> None:
        """The monitoring ends: what was accessed since the last look belongs to it, too."""
        if self._clock.now_ns() > self._looked_ns and any(map(self._ops.target_valid, self._targets())):
            self.look()

    def _ask(self, now_ns: int) -> None:
        """Ask the pages of all panels, and those of others that a target shares."""
        others = self._shared.others
        for target in self._panels.keys() | others.keys():
            parts = [part for part in (self._panels.get(target), others.get(target)) if part is not None and len(part)]
            if not parts:
                continue
            together = self._together.get(target)
            if together is None or not together.is_of(parts):
                together = self._together[target] = _Together(parts)
            together.observe(*self._ops.look_at_panel(target, together.address), now_ns)

    def _share(self, now_ns: int) -> int:
        """See whether targets share pages, if there are several; how much CPU time that took."""
        targets = [target for target in self._targets() if self._ops.target_valid(target)]
        if len(targets) < 2 and not self._shared.known:
            return 0
        longest_ns = STEP_NS
        if not self._shared.known and self._long_steps:
            longest_ns, self._long_steps = _LONG_NS, self._long_steps - 1
        return self._shared.step(self._panels, targets, now_ns, longest_ns)

    def take_looks(self) -> list[Look]:
        """What was found since the last call: one for each target and look."""
        found = []
        while self._looks:
            found.append(self._looks.popleft())
        return found

    def _schedule(self, now_ns: int, spent_ns: int) -> None:
        before = spent_ns if self._spent_ns is None else self._spent_ns
        self._spent_ns = before + _WEIGHT * (spent_ns - before)
        interval_ns = max(SECOND_NS, int(self._spent_ns / self._cpu_share))
        self.due_ns = now_ns + interval_ns
        if interval_ns > 1.5 * SECOND_NS and not self._said_rare:
            self._said_rare = True
            self.notices.append(
                f"the page panel is asked every {interval_ns / SECOND_NS:.1f} s, not every second: more often it would "
                f"take more than {self._cpu_share:.1%} of a CPU"
            )

    def _follow(self, now_ns: int) -> None:
        """Bring the panels up to date with who lives, and with what of it is in memory."""
        found = {}
        for target in self._targets():
            if self._ops.target_valid(target):
                resident = self._ops.resident(target)
                if resident is not None:
                    found[target] = resident
                elif not self._said_untold:
                    self._said_untold = True
                    self.notices.append(f"there is no page panel of target {target}: what is resident is not known")
        pages = {target: _bytes(runs) // PAGE_SIZE for target, (runs, _) in found.items()}
        wanted = shares(pages, self._size) if self._least is None else at_least(pages, self._size, self._least)
        self._say_few(pages, wanted)
        for target in self._panels.keys() - wanted.keys():
            del self._panels[target], self._resident[target], self._drawn[target]
            self._together.pop(target, None)
        for target, count in wanted.items():
            self._resident[target] = pages[target] * PAGE_SIZE
            self._draw(target, *found[target], count, now_ns)

    def _say_few(self, pages: dict[int, int], wanted: dict[int, float]) -> None:
        few = sum(count < min(LEAST, pages[target]) for target, count in wanted.items())
        if self._least is None and len(wanted) > 1 and 2 * few > len(wanted) and not self._said_few:
            self._said_few = True
            self.notices.append(
                f"the page panel has fewer than {LEAST} pages of {few} of {len(wanted)} targets: what it says of "
                "one of them is rough, of all together it is not"
            )

    def _draw(self, target: int, runs: U64, seen: U64, count: float, now_ns: int) -> None:
        drawn = self._drawn.get(target)
        if drawn is None:
            told = None if self._idle_of_regions is None else partial(self._idle_of_regions, target)
            self._panels[target] = TargetPanel(target, self._seed + target, idle_of_regions=told)
        elif now_ns < drawn.due_ns or (drawn.count == count and drawn.is_of(runs)):
            return
        # What was looked at then and was not resident has been faulted in since.
        faulted = None if drawn is None else without(drawn.seen, drawn.runs)
        self._panels[target].follow(runs, count, now_ns, faulted)
        due_ns = now_ns + _bytes(runs) // PAGE_SIZE * _DRAW_NS
        self._drawn[target] = _Drawn(runs, seen, count, due_ns)


class _Drawn:
    """From what a panel was drawn last, how many pages, and from when on it may be drawn again."""

    __slots__ = ("count", "due_ns", "runs", "seen")

    def __init__(self, runs: U64, seen: U64, count: float, due_ns: int) -> None:
        self.runs = runs
        self.seen = seen
        self.count = count
        self.due_ns = due_ns

    def is_of(self, runs: U64) -> bool:
        """Whether these are the same."""
        return self.runs is runs or np.array_equal(self.runs, runs)


class _Together:
    """Pages of one target that are watched for several reasons, and asked once."""

    __slots__ = ("_given", "_parts", "_places", "address")

    def __init__(self, parts: list[Watched]) -> None:
        self._parts = parts
        self._given = [part.address for part in parts]
        self.address, _, inverse = places_of_distinct(np.concatenate(self._given))
        ends = np.cumsum([len(part) for part in parts])
        self._places = np.split(inverse, ends[:-1])

    def is_of(self, parts: list[Watched]) -> bool:
        """Whether these parts watch what they did."""
        return [id(part.address) for part in parts] == [id(address) for address in self._given]

    def observe(self, accessed: Mask, unknown: Mask, now_ns: int) -> None:
        """Tell each part what was found of its pages."""
        for part, places in zip(self._parts, self._places, strict=True):
            part.observe(accessed[places], unknown[places], now_ns)


def without(spans: U64, holes: U64) -> U64:
    """``spans`` without the ``holes``, which lie within them; both have shape (n, 2) and are sorted and disjoint."""
    start = np.sort(np.concatenate([spans[:, 0], holes[:, 1]]))
    end = np.sort(np.concatenate([spans[:, 1], holes[:, 0]]))
    return np.stack([start, end], axis=1)[start < end]


def _bytes(spans: U64) -> int:
    return int((spans[:, 1] - spans[:, 0]).sum(dtype=np.uint64))
