"""Which pages of the panels several targets map: so that all targets together count memory that they share once.

A page that m targets map may be drawn for each of them; where it counts for 1 / m each time, the sum over the targets
counts it once. It is used if any of them uses it: so it is asked in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.panel import BOUNDS_S, I64, U64, Mask, Once, TargetPanel, Watched, bins_of, hashes
from pydamon.ops.base import PanelPages
from pydamon.spans import distinct

SECOND_NS = 1_000_000_000
_SHARE = 0.001  # of a CPU, for looking who maps the pages; what asking shared pages takes is the panel's
_FIRST_SHARE = 0.01  # while more than a tenth of the pages were not looked at, or targets came or went
STEP_NS = 2_000_000  # the longest that one step takes, about
_MOST = 4096  # pages that are asked in other targets than the one for which they were drawn; of more a part is

_NOTHING = np.empty(0, np.intp)


class SharedPages:
    """Looks in rounds who maps the pages of all panels, a few targets in each `step`.

    ``untold`` says that nobody can tell. Until the first round is over nothing is known.
    """

    def __init__(self, ops: PanelPages, most: int = _MOST) -> None:
        self.untold = False
        self.known = False
        self.others: dict[int, Watched] = {}  # pages that were drawn for others, and are asked in this target, too
        self._ops = ops
        self._most = most
        self._ended_ns = self._spent_ns = 0
        self._round: _Round | None = None
        self._done = _Round([], {})
        self._asked: list[_Asked] = []
        self._factor = np.empty(0, np.float64)

    def step(
        self, panels: Mapping[int, TargetPanel], targets: Sequence[int], now_ns: int, longest_ns: int = STEP_NS
    ) -> int:
        """Go on with the round, or begin another when it is due; how much CPU time that took.

        One that is not over after ``longest_ns`` goes on in the next step.
        """
        if self.untold or (self._round is None and now_ns < self._due(panels, targets)):
            return 0
        began_ns = self._ops.panel_cpu_ns()
        if self._round is None:
            self._round, self._spent_ns = _Round(targets, panels), 0
        ended = self._look(self._round, began_ns + longest_ns)
        spent_ns = self._ops.panel_cpu_ns() - began_ns
        self._spent_ns += spent_ns
        if ended and not self.untold:
            self._publish(self._round, now_ns)
        if ended:
            self._ended_ns, self._round = now_ns, None
        return spent_ns

    def _due(self, panels: Mapping[int, TargetPanel], targets: Sequence[int]) -> int:
        """When the next round is to begin."""
        pages = sum(map(len, panels.values()))
        changed = self._done.targets != set(targets) or 10 * abs(pages - len(self._done.count)) > pages
        return self._ended_ns + int(self._spent_ns / (_FIRST_SHARE if changed else _SHARE))

    def _look(self, round_: _Round, until_ns: int) -> bool:
        """Ask some targets what they map, until so much CPU time was spent; whether all were asked."""
        while round_.todo:
            target = round_.todo.pop()
            if self._ops.target_valid(target):
                where = self._ops.also_mapped(round_.owner, round_.address, target)
                if where is None:
                    self.untold = True
                    return True
                round_.note(target, where)
            if self._ops.panel_cpu_ns() >= until_ns:
                break
        return not round_.todo

    def _publish(self, done: _Round, now_ns: int) -> None:
        self._done, self.known = done, True
        shared = done.count > 1
        asked = int((done.count[shared] - 1).sum())
        # Of too many a part is asked, drawn by a hash so that it stays the same, and counts for the others.
        chance = min(self._most / asked, 1.0) if asked else 1.0
        dice = hashes(done.address ^ (done.owner.astype(np.uint64) << np.uint64(52)), 0)
        chosen = shared & (dice <= np.uint64(min(int(chance * 2**64), 2**64 - 1)))
        weight = 1 / done.count
        stands_for = weight[shared].sum() / max(weight[chosen].sum(), 1e-9)
        self._factor = np.where(shared, chosen * stands_for, 1.0)
        self._asked, wanted = [], {}
        for target, pages, where in done.found:
            mine = chosen[pages]
            if mine.any():
                self._asked.append(_Asked(target, pages[mine], where[mine]))
                wanted[target] = distinct(where[mine])
        for target in self.others.keys() - wanted.keys():
            del self.others[target]
        for target, addresses in wanted.items():
            self.others.setdefault(target, Watched()).only(addresses, now_ns)

    def since(self) -> tuple[I64, Mask]:
        """Since when no other target has accessed each page of the last round, and whether that is since an access.

        0 and False for pages that no other one maps.
        """
        since_ns, known = np.zeros(len(self._done.count), np.int64), np.zeros(len(self._done.count), np.bool_)
        for asked in self._asked:
            watched = self.others[asked.target]
            order = np.argsort(watched.address)
            place = order[np.searchsorted(watched.address[order], asked.where)]
            later = watched.since_ns[place] > since_ns[asked.pages]
            pages = asked.pages[later]
            since_ns[pages], known[pages] = watched.since_ns[place[later]], watched.known[place[later]]
        return since_ns, known

    def once(self, panel: TargetPanel, since: tuple[I64, Mask], now_ns: int) -> Once | None:
        """What the pages of a panel count for together with the other targets'; None as long as nothing is known."""
        if not self.known:
            return None
        mine, place = self._done.places(panel)
        weight = 1 / self._done.count[place]
        since_ns, known = panel.since_ns[mine], panel.known[mine]
        others_ns, others_known = (values[place] for values in since)
        later = others_ns > since_ns
        since_ns, known = np.where(later, others_ns, since_ns), np.where(later, others_known, known)
        told = np.where(panel.unknown[mine], 0.0, weight * self._factor[place])
        bins = bins_of(now_ns - since_ns)
        idle, unseen = (
            np.bincount(bins[which], told[which], len(BOUNDS_S)).astype(np.float64) for which in (known, ~known)
        )
        squares = float(np.square(told).sum())
        return Once(len(weight), float(weight.sum()), float(np.square(weight).sum()), idle, unseen, squares)


class _Round:
    """The pages of all panels as they were when it began, and who of ``targets`` maps them.

    ``owner`` and ``address`` are parallel, in the order of both; ``count`` is how many targets map each page.
    """

    def __init__(self, targets: Sequence[int], panels: Mapping[int, TargetPanel]) -> None:
        order = sorted(panels)
        addresses = [np.sort(panels[target].address) for target in order]
        self.todo = list(targets)
        self.targets = set(targets)
        self.address: U64 = np.concatenate([np.empty(0, np.uint64), *addresses])
        self.owner = np.repeat(np.array(order, np.intp), [len(one) for one in addresses])
        self.count = np.ones(len(self.address), np.int64)
        self.found: list[tuple[int, NDArray[np.intp], U64]] = []
        behind = np.cumsum([len(one) for one in addresses], dtype=np.intp).tolist()
        self._parts = {target: (end - len(one), one) for target, end, one in zip(order, behind, addresses, strict=True)}

    def note(self, target: int, where: U64) -> None:
        """A target maps the round's pages at these addresses (parallel); 0 stands for those that it does not map."""
        pages = np.flatnonzero((where != 0) & (self.owner != target))
        if len(pages):
            self.count[pages] += 1
            self.found.append((target, pages, where[pages]))

    def places(self, panel: TargetPanel) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which pages of a panel belonged to the round, and where they stand in it."""
        first, addresses = self._parts.get(panel.target, (0, panel.address[:0]))
        if not len(addresses):
            return _NOTHING, _NOTHING
        at = np.minimum(np.searchsorted(addresses, panel.address), len(addresses) - 1)
        mine = np.flatnonzero(addresses[at] == panel.address)
        return mine, first + at[mine]


class _Asked:
    """Pages of a round that are asked in ``target`` as well, at the addresses ``where``."""

    __slots__ = ("pages", "target", "where")

    def __init__(self, target: int, pages: NDArray[np.intp], where: U64) -> None:
        self.target = target
        self.pages = pages
        self.where = where
