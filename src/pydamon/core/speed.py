"""How fast a scheme goes: what each application costs however little it is about, and what its bytes cost.

The kernel divides all bytes by all time (docs/algorithms.md 2.11). From outside, an application costs milliseconds
before the first byte (the mappings are read, the filters asked): where the first regions are small, all bytes by all
time says that nothing larger can be tried, and so nothing larger ever is. A straight line through the latest
applications, time over bytes, tells the two apart.
"""

from __future__ import annotations

from collections import deque

# Bytes per ms that a new scheme is believed to manage, as in the kernel.
FIRST_THROUGHPUT = 4 << 20
_LATEST = 32


class Speed:
    """Bytes that were tried, and the ns that took, of the latest applications."""

    def __init__(self) -> None:
        self._latest: deque[tuple[int, int]] = deque(maxlen=_LATEST)

    def note(self, tried_bytes: int, spent_ns: int) -> None:
        """An application to so many bytes took so long."""
        self._latest.append((tried_bytes, spent_ns))

    @property
    def fixed_ns(self) -> int:
        """What an application costs at the least; 0 as long as none is known."""
        return min((spent for _, spent in self._latest), default=0)

    def bytes_in(self, time_ns: int) -> int:
        """How many bytes can be tried in ``time_ns``.

        Half of the time is for them in any case: where an application alone costs more than there is, a few windows
        have to pay for it (`QuotaState`), and it is to be worth it.
        """
        room_ns = max(time_ns - self.fixed_ns, time_ns // 2)
        return int(room_ns / self._ns_per_byte())

    def steps(self, time_ns: int, most: int) -> int:
        """In how many applications, up to ``most``, that is to be done, so that they take a quarter of the time."""
        return most if self.fixed_ns == 0 else max(1, min(most, time_ns // (4 * self.fixed_ns)))

    def _ns_per_byte(self) -> float:
        """The slope of the line, not below what a new scheme is believed to manage, nor above all time by all bytes."""
        least = 1_000_000 / FIRST_THROUGHPUT
        n = len(self._latest)
        total, spent = sum(size for size, _ in self._latest), sum(ns for _, ns in self._latest)
        if not total:
            return least
        spread = sum((size - total / n) ** 2 for size, _ in self._latest)
        together = sum((size - total / n) * (ns - spent / n) for size, ns in self._latest)
        slope = together / spread if spread else 0.0
        return max(least, min(slope, spent / total))
