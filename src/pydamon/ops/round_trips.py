"""What was moved to another NUMA node and back again within a minute: ping-pong, which costs and gains nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from pydamon.ops.base import Ranges
from pydamon.spans import clipped, coarser, without

WINDOW_NS = 60_000_000_000
_MOST_MOVES = 128  # of one process and direction; of more, the latest
_MOST_SPANS = 1 << 12  # of one move: of more, those with the smallest gaps between them become one
_MOST_OWNERS = 1 << 10


class RoundTrips:
    """Counts ``bytes``: each that was moved back counts once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._moves: dict[Hashable, dict[tuple[int, int], deque[tuple[int, Ranges]]]] = {}

    def note(self, now_ns: int, owner: Hashable, spans: Ranges, source: int, dest: int) -> None:
        """Memory of ``owner`` (sorted, disjoint spans) was moved from one node to another now."""
        of_owner = self._moves.setdefault(owner, {})
        back = of_owner.get((dest, source), deque())
        while back and now_ns - back[0][0] > WINDOW_NS:
            back.popleft()
        left = spans
        for place, (at_ns, moved) in enumerate(back):
            hit = clipped(left, moved)
            if len(hit):
                self.bytes += int((hit[:, 1] - hit[:, 0]).sum())
                left = without(left, hit)
                back[place] = (at_ns, without(moved, hit))
        moves = of_owner.setdefault((source, dest), deque(maxlen=_MOST_MOVES))
        moves.append((now_ns, coarser(spans, _MOST_SPANS)))
        while len(self._moves) > _MOST_OWNERS:
            del self._moves[next(iter(self._moves))]
