"""How much memory several targets use together, with 95 % intervals: from their page panels, moment for moment.

Each target is a stratum of a stratified sample. Where the looks tell what targets share, a page counts for 1 / the
number of targets that map it, so that shared memory counts once; else it counts for each of them. The interval is
Wilson's for the number of independent draws from all memory that have the variance of the stratified share (with half a
page more on either side, so that a stratum of which no page was used has an error, too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import MOST_UNDETERMINED, Estimate, Z, answered, bound_of, in_time, wilson
from pydamon.core.panel import PAGE_SIZE, Look

F64 = NDArray[np.float64]

SECOND_NS = 1_000_000_000
_FEW = 30  # pages asked; targets with fewer are one stratum, for their pages were drawn with one chance
_MOST_MOMENTS = 2000  # of more every second, third … counts


class Together:
    """What the panels of several targets say of all of them; ``looks`` by target, at least one.

    ``once``: memory that they share counts once. Looks at the same time are of the same moment; who has none at a
    moment is not there. Moments at which nobody knew yet what they share are left out, unless there are no others.
    ``first_ns`` is when the first look was, where those from the beginning are not among them.
    """

    def __init__(self, looks: Mapping[int, Sequence[Look]], *, first_ns: int | None = None) -> None:
        flat = sorted((look for mine in looks.values() for look in mine), key=lambda look: look.time_ns)
        times = {look.time_ns for look in flat}
        plain = {look.time_ns for look in flat if look.once is None and look.pages}
        self.once = bool(times - plain)
        kept = sorted(times - plain or times)
        kept = kept[:: len(kept) // _MOST_MOMENTS + 1]
        self.first_ns = flat[0].time_ns if first_ns is None else first_ns
        self.time_ns = np.array(kept, np.int64)
        place = {time_ns: at for at, time_ns in enumerate(kept)}
        flat = [look for look in flat if look.time_ns in place]
        counts = np.zeros((2, len(kept)), np.int64)
        for look in flat:
            counts[:, place[look.time_ns]] += look.unknown, look.pages
        self._asked_pages = counts
        self._moment, self._resident, self._count, told = _strata(flat, place, self.once)
        asked, weighed, weights, squares, self._squares = told[:, :5].T
        self._idle, self._unseen = np.split(np.cumsum(told[:, 5:].reshape(len(told), 2, -1), axis=2), 2, axis=1)
        rest = np.maximum(self._count - asked, 0) / np.maximum(self._count - 1, 1)  # of a finite population
        self._rest = np.where(asked > 0, rest, 1.0)
        mean = np.where(weighed > 0, weights / np.maximum(weighed, 1), 1.0)
        spread = np.maximum(squares / np.maximum(weighed, 1) - mean**2, 0) / np.maximum(weighed, 1)
        self._size = self._resident * mean
        self._variance = self._resident**2 * spread * self._rest
        self.sizes = self._per_moment(self._size)

    def _per_moment(self, values: F64) -> F64:
        return np.bincount(self._moment, values, len(self.time_ns)).astype(np.float64)

    def resident(self) -> Estimate:
        """How much is resident, in the mean over the moments; without an error where nothing is known of sharing."""
        error = Z * np.sqrt(self._per_moment(self._variance))
        return _mean(self.sizes, self.sizes - error, self.sizes + error)

    def plain_bytes(self) -> int:
        """The sum of what is resident of each, in the mean over the moments."""
        return round(float(self._per_moment(self._resident).mean()))

    def used(self, window_s: float) -> Estimate | None:
        """Bytes that were accessed within the window before each moment: the mean over the moments.

        None where that is not known of all but a small part: as long as less than the window was recorded.
        """
        bound = bound_of(window_s)
        within = self._idle[:, 0, bound - 1]
        undetermined = self._unseen[:, 0, bound - 1]
        told = self._idle[:, 0, -1] + self._unseen[:, 0, -1] - undetermined
        settled = self.time_ns - self.first_ns >= (window_s - 1.5) * SECOND_NS
        settled &= in_time(self.time_ns, window_s)
        return self._estimate(within, told, undetermined, settled)

    def touched(self) -> Estimate | None:
        """Bytes of what was resident that were accessed at all since the panels know them: see `analysis.panel`."""
        within = self._idle[:, 0, -1]
        told = self._answered(np.ones(len(self.time_ns), np.bool_))
        last = np.arange(len(self.time_ns)) == np.flatnonzero(told)[-1]
        return self._estimate(within, within + self._unseen[:, 0, -1], np.zeros(len(within)), last)

    def _answered(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of these moments, those that had an answer about nearly as much as the best of them."""
        found = which.copy()
        found[which] = answered(*self._asked_pages[:, which])
        return found

    def _estimate(self, within: F64, told: F64, undetermined: F64, which: NDArray[np.bool_]) -> Estimate | None:
        answered = told + undetermined
        unknown = np.where(answered > 0, undetermined / np.where(answered > 0, answered, 1), 1.0)
        which = self._answered(which & (self._per_moment(self._size * unknown) <= MOST_UNDETERMINED * self.sizes))
        if not which.any():
            return None
        size = np.where(told > 0, self._size, 0.0)
        whole = np.maximum(self._per_moment(size), 1.0)
        draws = told**2 / np.where(self._squares > 0, self._squares, 1.0)
        share = within / np.where(told > 0, told, 1.0)
        smooth = (share * draws + 0.5) / (draws + 1)
        at = self._per_moment(size * share) / whole
        smoothed = self._per_moment(size * smooth) / whole
        variance = self._per_moment(size**2 * smooth * (1 - smooth) / (draws + 1) * self._rest) / whole**2
        size_error = Z * at * np.sqrt(self._per_moment(self._variance))
        found = []
        for moment in np.flatnonzero(which).tolist():
            middle = float(at[moment])
            low = high = middle
            if variance[moment] > 0:
                low, high = wilson(middle, float(smoothed[moment] * (1 - smoothed[moment]) / variance[moment]))
            total = float(self.sizes[moment])
            below, above = (float(np.hypot(side * total, size_error[moment])) for side in (middle - low, high - middle))
            found.append((middle * total, middle * total - below, middle * total + above))
        return _mean(*np.array(found).T)


def _mean(middle: F64, low: F64, high: F64) -> Estimate:
    """The mean over moments. They are of the same pages: that there are many does not make the interval narrower."""
    return Estimate(round(float(middle.mean())), max(int(low.mean()), 0), int(np.ceil(high.mean())))


def _strata(looks: Sequence[Look], place: Mapping[int, int], once: bool) -> tuple[NDArray[np.intp], F64, F64, F64]:
    """Of each stratum: its moment, its resident bytes and pages, and the sums of its looks (see `_sums`)."""
    numbers: dict[tuple[int, int], int] = {}
    index = []
    rows = []
    for look in looks:
        few = look.pages < min(_FEW, look.resident_bytes // PAGE_SIZE)
        index.append(numbers.setdefault((place[look.time_ns], -1 if few else look.target), len(numbers)))
        rows.append(_sums(look, once))
    moment = np.array([at for at, _ in numbers], np.intp)
    resident = np.bincount(index, [look.resident_bytes for look in looks], len(numbers)).astype(np.float64)
    sums = np.zeros((len(numbers), len(rows[0])))
    np.add.at(sums, index, np.stack(rows))
    return moment, resident, resident / PAGE_SIZE, sums


def _sums(look: Look, once: bool) -> F64:
    """asked, weighed, weights, squares, squares of what is told; then the bins of idle and of unseen weights."""
    pages, shared = look.pages, look.once
    if not once or shared is None or not shared.weighed:
        return np.concatenate([np.array([pages, 0, 0, 0, pages], np.float64), look.idle, look.unseen])
    head = np.array([pages, shared.weighed, shared.weights, shared.squares, shared.told])
    return np.concatenate([head, shared.idle, shared.unseen])
