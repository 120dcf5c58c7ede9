"""How much a scheme may do: effective bytes per window, what was charged, and where to go on (docs/algorithms.md 2.11).

Where the kernel differs: the effective quota is known before its first use (as in newer kernels; 6.12 begins with no
limit), and a time quota also ends the window when its time has really been spent. Unless it is to go as in the kernel,
`Speed` says how much fits into the time, and what a window has spent too much is missing in the next ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydamon.core.goals import GOAL_SCORE
from pydamon.core.regions import U64
from pydamon.core.speed import FIRST_THROUGHPUT, Speed
from pydamon.core.tuner import feed_loop
from pydamon.spec.schemes import Quotas
from pydamon.spec.units import U64_MAX

PAGE_SIZE = 4096
# A window pays for no more than so many before it: what took that long once says nothing of the future.
_MOST_DEBT = 60


def effective_bytes(
    quotas: Quotas,
    *,
    esz_bp: int,
    score: int | None,
    charged_bytes: int,
    charged_ns: int,
    min_region: int = PAGE_SIZE,
    speed: Speed | None = None,
) -> tuple[int | None, int]:
    """The quota of the next window in bytes (None: no limit) and the new state of the feedback loop.

    ``score`` (1/10,000) is that of the goal furthest reached, None without goals; ``charged_bytes`` took ``charged_ns``
    so far, which makes bytes of a time quota, unless ``speed`` knows better. That allows a smallest region of
    ``min_region`` bytes at least: with less nothing would be tried, so that nobody would notice when it gets faster.
    """
    if not quotas.limited:
        return None, esz_bp
    esz = U64_MAX
    if score is not None and quotas.goal_tuner == "temporal":
        esz = 0 if score >= GOAL_SCORE else esz
    elif score is not None:
        esz_bp = feed_loop(max(esz_bp, 10_000), score)
        esz = esz_bp // 10_000
    if quotas.time_ms:
        if speed is not None:
            by_time = speed.bytes_in(quotas.time_ms * 1_000_000)
        else:
            throughput = charged_bytes * 1_000_000 // charged_ns if charged_ns else FIRST_THROUGHPUT
            by_time = throughput * quotas.time_ms
        # By the kernel's way a reached goal of `temporal` leaves a smallest region, too.
        reached = esz == 0 and speed is not None
        esz = 0 if reached else max(min_region, min(esz, by_time))
    if quotas.sz_bytes:
        esz = min(esz, quotas.sz_bytes)
    return (None if esz >= U64_MAX else esz), esz_bp


@dataclass(slots=True)
class QuotaState:
    """The quota of one running scheme.

    ``esz`` is the effective quota of this window in bytes (None: no limit). ``resume`` is the target and the address
    after the last byte that was charged when the quota was used up: the next application goes on there. ``total_*``
    say how fast it goes, as in the kernel; ``speed`` is there where it is not to go as in the kernel.
    """

    speed: Speed | None = None

    esz: int | None = None
    charged_bytes: int = 0
    charged_ns: int = 0
    total_charged_bytes: int = 0
    total_charged_ns: int = 0
    qt_exceeds: int = 0
    min_score: int = 0
    resume: tuple[int, int] | None = None
    rests: bool = False
    _esz_bp: int = field(default=0, init=False)
    _window_ns: int | None = field(default=None, init=False)
    _changed: bool = field(default=False, init=False)

    def window_due(self, quotas: Quotas, now_ns: int) -> bool:
        """Whether a new window is to begin, or the effective quota of the present one has to be found anew."""
        return quotas.limited and (self._changed or self._over(quotas, now_ns))

    def _over(self, quotas: Quotas, now_ns: int) -> bool:
        return self._window_ns is None or now_ns - self._window_ns >= quotas.reset_interval_ms * 1_000_000

    def begin_window(self, quotas: Quotas, now_ns: int, score: int | None, min_region: int) -> None:
        """Begin a window at ``now_ns``; ``score`` as in `effective_bytes`.

        If the present window is not over (`change`), only its effective quota changes, and what was charged stays.
        """
        if self._over(quotas, now_ns):
            if self._window_ns is not None and self.full(quotas, min_region):
                self.qt_exceeds += 1
            self.charged_ns = self._debt_ns(quotas, now_ns)
            self._window_ns = self._begin_ns(quotas, now_ns)
            self.charged_bytes = 0
        elif score is not None and quotas.goal_tuner == "consist":
            score = GOAL_SCORE  # the feedback loop makes one step per window
        self._changed = False
        self.esz, self._esz_bp = effective_bytes(
            quotas,
            esz_bp=self._esz_bp,
            score=score,
            charged_bytes=self.total_charged_bytes,
            charged_ns=self.total_charged_ns,
            min_region=min_region,
            speed=self.speed,
        )

    def _begin_ns(self, quotas: Quotas, now_ns: int) -> int:
        """When the window that ``now_ns`` is in began.

        As in the kernel that is now. Else windows follow each other without gaps: passes that come a little faster than
        windows would find each second one not over yet, and half of what may be done would not be done.
        """
        if self.speed is None or self._window_ns is None:
            return now_ns
        return now_ns - (now_ns - self._window_ns) % (quotas.reset_interval_ms * 1_000_000)

    def _debt_ns(self, quotas: Quotas, now_ns: int) -> int:
        """What the windows up to ``now_ns`` have not paid for yet."""
        if self.speed is None or self._window_ns is None:
            return 0
        windows = (now_ns - self._window_ns) // (quotas.reset_interval_ms * 1_000_000)
        each_ns = quotas.time_ms * 1_000_000
        return min(max(self.charged_ns - windows * each_ns, 0), _MOST_DEBT * each_ns)

    def change(self, quotas: Quotas) -> None:
        """The user has set other quotas: they hold from the next application on.

        The window goes on, lest who changes a quota often enough has none.
        """
        self._changed = True
        if not quotas.limited:
            self.esz = None
            self.resume = None

    def remaining(self, quotas: Quotas) -> int | None:
        """Bytes that may still be tried in this window; None without limit."""
        if not quotas.limited:
            return None
        if quotas.time_ms and self.charged_ns >= quotas.time_ms * 1_000_000:
            return 0
        return None if self.esz is None else max(self.esz - self.charged_bytes, 0)

    def full(self, quotas: Quotas, min_region: int) -> bool:
        """Whether nothing more can be tried in this window: less than a smallest region is left."""
        remaining = self.remaining(quotas)
        return remaining is not None and remaining < min_region

    def charge(
        self, quotas: Quotas, tried: U64 | int, applied: U64 | int, spent_ns: int, *, looked_bytes: int | None = None
    ) -> None:
        """Count an application to regions (or one) of which ``tried`` bytes were tried and ``applied`` worked out.

        Those in vain cost less where the user says so; that is rounded down for each region. ``looked_bytes``: how much
        there was, of which the page filters let only ``tried`` pass (None: no filters, or they cost as much).
        """
        charged: U64 = np.atleast_1d(np.asarray(tried, np.uint64))
        if quotas.fail_charge_denom:
            num, denom = np.uint64(quotas.fail_charge_num), np.uint64(quotas.fail_charge_denom)
            failed = charged - np.minimum(np.asarray(applied, np.uint64), charged)
            # failed * num // denom without overflow: num <= denom < 2**32
            charged = charged - failed + failed // denom * num + failed % denom * num // denom
        charge = int(charged.sum(dtype=np.uint64))
        self.charged_bytes += charge
        self.charged_ns += spent_ns
        self.total_charged_bytes += charge
        self.total_charged_ns += spent_ns
        if self.speed is not None:
            self.speed.note(charge if looked_bytes is None else looked_bytes, spent_ns)
