"""Which addresses a picture should show: the accessed ones, without the gaps between them.

A process's mappings lie terabytes apart. A picture of all of them in proportion is black; so the picture gets a few
segments, and what is between them is left out (and the share of the accesses that this loses is stated, exactly, by the
heatmap itself). The choice looks at a sample of the snapshots and works on pieces of memory that are small where
accesses are dense and large where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

PAGE = 4096
_LAST = 2**64 - 1

# Pieces: so many of equal shares of the accesses, and so many of the largest gaps kept apart.
_SHARES = 512
_GAPS = 256
# Time is looked at in so many slices.
_SLICES = 24
# A piece can be seen in a picture if its hottest slice has this part of the heat of the hottest of all.
_RELATIVE_HEAT = 0.04
# A piece that is accessed in this part of the slices is accessed for good, not by chance.
_OFTEN = 0.25
_MAX_SEGMENTS = 6
# Gaps up to this part of what is shown are shown too.
_SMALL_GAP = 0.15
_MARGIN = 0.04


@dataclass(frozen=True, slots=True)
class Segment:
    """An address range to show, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, eq=False)
class Focus:
    """What a sample of one target's snapshots says about where its accesses are.

    ``edges`` (uint64 [pieces + 1]); per piece ``accesses`` (bytes x accesses per sample x ns), ``peak`` (the heat of
    its hottest time slice), ``often`` (the share of its time slices with any access) and ``monitored`` (whether it
    ever was).
    """

    edges: NDArray[np.uint64]
    accesses: NDArray[np.float64]
    peak: NDArray[np.float64]
    often: NDArray[np.float64]
    monitored: NDArray[np.bool_]


def survey(batches: Sequence[RegionBatch]) -> Focus | None:
    """Survey the snapshots of one target; None if there are no regions."""
    if not any(len(batch.start) for batch in batches):
        return None
    first_ns = min(int(batch.start_ns.min()) for batch in batches)
    last_ns = max(int(batch.end_ns.max()) for batch in batches)
    edges = _pieces(batches)
    slices = distinct(np.linspace(first_ns, max(last_ns, first_ns + 1), _SLICES + 1).astype(np.int64))
    accumulator = HeatAccumulator(slices, edges)
    for batch in batches:
        accumulator.add(batch)
    heat = accumulator.heatmap(0).heat
    slices_monitored = np.count_nonzero(~np.isnan(heat), axis=0)
    heat = np.nan_to_num(heat)
    accesses = (heat * np.diff(slices)[:, np.newaxis]).sum(axis=0) * np.diff(edges).astype(np.float64)
    often = np.count_nonzero(heat, axis=0) / np.maximum(slices_monitored, 1)
    return Focus(edges, accesses, heat.max(axis=0), often, slices_monitored > 0)


def _pieces(batches: Sequence[RegionBatch]) -> NDArray[np.uint64]:
    """Edges of pieces: equal shares of the accesses, the bounds of the gaps between them and of what was monitored."""
    starts, ends, weights = [], [], []
    for batch in batches:
        hot = batch.nr_accesses > 0
        duration = (batch.end_ns - batch.start_ns) / batch.max_nr_accesses
        starts.append(batch.start[hot])
        ends.append(batch.end[hot])
        weights.append(np.repeat(duration, batch.counts)[hot] * batch.nr_accesses[hot])
    start, end, weight = np.concatenate(starts), np.concatenate(ends), np.concatenate(weights)
    found = [_unmonitored_bounds(batches)]
    if len(start):
        places, where = np.unique(np.concatenate([start, end]), return_inverse=True)
        density = np.cumsum(np.bincount(where, np.concatenate([weight, -weight])))[:-1]
        sizes = np.diff(places).astype(np.float64)
        covered = density > density.max() * 1e-9
        amount = np.concatenate([[0], np.cumsum(np.where(covered, density, 0) * sizes)])
        shares = np.searchsorted(amount, np.linspace(0, amount[-1], _SHARES + 1)).clip(0, len(places) - 1)
        found.append(places[shares])
        # Within a wide piece the share may end anywhere: also cut there.
        inner = np.interp(np.linspace(0, amount[-1], _SHARES + 1), amount, (places - places[0]).astype(np.float64))
        inner = inner.clip(0, np.nextafter(2.0**64, 0)).astype(np.uint64) // PAGE * PAGE
        found.append(places[0] + np.minimum(inner, places[-1] - places[0]))
        gaps = np.flatnonzero(~covered)
        gaps = gaps[np.argsort(sizes[gaps])[-_GAPS:]]
        found += [places[gaps], places[gaps + 1], places[[0, -1]]]
    return distinct(np.concatenate(found))


def _unmonitored_bounds(batches: Sequence[RegionBatch]) -> NDArray[np.uint64]:
    """The ends of everything monitored, and the bounds of the largest ranges that never were."""
    start = np.concatenate([batch.start for batch in batches])
    end = np.concatenate([batch.end for batch in batches])
    order = np.argsort(start)
    start, reach = start[order], np.maximum.accumulate(end[order])
    gaps = np.flatnonzero(start[1:] > reach[:-1])
    gaps = gaps[np.argsort(start[gaps + 1] - reach[gaps])[-_GAPS:]]
    return np.concatenate([start[:1], reach[gaps], start[gaps + 1], reach[-1:]])


def automatic(focus: Focus) -> list[Segment]:
    """The ranges that were accessed, with a margin; far-apart ones as segments of their own.

    Empty if nothing was accessed. Left out are pieces that at no time are hot enough to be seen beside the hottest
    (one stray sample in a terabyte, say), unless they are accessed all the time and hold most of the accesses.
    """
    hot = focus.accesses > 0
    if not hot.any():
        return []
    chosen = hot & (focus.peak >= _RELATIVE_HEAT * focus.peak.max())
    lasting = hot & (focus.often >= _OFTEN)
    if lasting.any():
        typical = _weighted_median(focus.peak[lasting], focus.accesses[lasting])
        chosen |= lasting & (focus.peak >= _RELATIVE_HEAT * typical)
    return _with_margins(_few(_runs(focus.edges, chosen), focus), focus)


def hottest(focus: Focus) -> list[Segment]:
    """The segment of `automatic` with the most accesses, cut to the shortest range with 90 % of what it has."""
    segments = automatic(focus)
    if not segments:
        return []
    best = max(segments, key=lambda s: _accesses(focus, s))
    first, last = np.searchsorted(focus.edges, [best.start, best.end])
    amount = np.concatenate([[0], np.cumsum(focus.accesses[first:last])])
    ends = np.searchsorted(amount, amount + 0.9 * amount[-1] * (1 - 1e-12))
    possible = np.flatnonzero(ends < len(amount))
    edges = focus.edges[first : last + 1]
    sizes = edges[ends[possible]] - edges[possible]
    at = possible[int(np.argmin(sizes))]
    return [Segment(int(edges[at]), int(edges[ends[at]]))]


def everything(focus: Focus) -> list[Segment]:
    """All that was monitored, accessed or not; never monitored gaps are left out where they are large."""
    return _few(_runs(focus.edges, focus.monitored), focus)


def _accesses(focus: Focus, segment: Segment) -> float:
    first, last = np.searchsorted(focus.edges, [segment.start, segment.end])
    return float(focus.accesses[first:last].sum())


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    amount = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(amount, amount[-1] / 2)])


def _runs(edges: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> list[Segment]:
    """The maximal ranges of chosen pieces."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [
        Segment(int(edges[a]), int(edges[b])) for a, b in zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True)
    ]


def _few(ranges: list[Segment], focus: Focus) -> list[Segment]:
    """Ranges joined over small gaps, at most `_MAX_SEGMENTS`; beyond that the ones with the fewest accesses go."""
    total = sum(r.size for r in ranges)
    joined: list[Segment] = []
    for segment in ranges:
        if joined and segment.start - joined[-1].end <= _SMALL_GAP * total:
            joined[-1] = Segment(joined[-1].start, segment.end)
        else:
            joined.append(segment)
    kept = sorted(joined, key=lambda s: _accesses(focus, s), reverse=True)[:_MAX_SEGMENTS]
    return sorted(kept, key=lambda s: s.start)


def _with_margins(segments: list[Segment], focus: Focus) -> list[Segment]:
    """Segments widened a little, where memory next to them was monitored, so that it shows where the heat ends."""
    monitored = _runs(focus.edges, focus.monitored)
    widened: list[Segment] = []
    for segment in segments:
        margin = max(int(segment.size * _MARGIN) // PAGE, 1) * PAGE
        around = next((m for m in monitored if m.start <= segment.start and segment.end <= m.end), segment)
        start = max(segment.start - margin, min(around.start, segment.start))
        end = min(segment.end + margin, max(around.end, segment.end))
        if widened:
            start = max(start, widened[-1].end)
        widened.append(Segment(start, end))
    return widened


def grid(
    segments: Sequence[Segment], cells: Sequence[int], *, exact: bool = False
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(edges, which cells are in a segment): each segment in at most so many equal cells, one cell for each gap.

    Cells of segments that consist of pages consist of pages, which may move a segment's end up a little, unless
    ``exact``: then its last cell is smaller instead.
    """
    edges = [segments[0].start]
    shown: list[bool] = []
    for index, (segment, wanted) in enumerate(zip(segments, cells, strict=True)):
        if segment.start > edges[-1]:
            edges.append(segment.start)
            shown.append(False)
        unit = _unit(segment)
        width = -(-segment.size // (max(wanted, 1) * unit)) * unit
        count = -(-segment.size // width)
        end = segment.start + count * width
        limit = segments[index + 1].start if index + 1 < len(segments) else _LAST
        if exact or end > limit:
            end = segment.end
        edges += [segment.start + step * width for step in range(1, count)]
        edges.append(end)
        shown += [True] * count
    return np.array(edges, dtype=np.uint64), np.array(shown, dtype=np.bool_)


def _unit(segment: Segment) -> int:
    """A page, if the segment consists of pages; else a byte."""
    return PAGE if segment.start % PAGE == 0 and segment.size % PAGE == 0 else 1


def held(focus: Focus, segments: Sequence[Segment]) -> list[float]:
    """What each segment holds: its bytes times their heat, over the time that was surveyed."""
    return [_accesses(focus, segment) for segment in segments]


def heights(held: Sequence[float], sizes: Sequence[int], total: float, least: float) -> list[float]:
    """The height that each segment of a picture gets of ``total``, in any unit: the rule for all pictures.

    ``least`` each (an equal share, where there is not so much), so that each stays readable; what is left is divided
    by what they hold (bytes x heat), or, if nothing was accessed, by their sizes in bytes.
    """
    least = min(least, total / len(sizes))
    weights = list(held) if sum(held) > 0 else [float(size) for size in sizes]
    spare = total - least * len(sizes)
    return [least + spare * weight / sum(weights) for weight in weights]


def shares(
    segments: Sequence[Segment], held: Sequence[float], total: int, least: int, *, cells_per_line: int = 1
) -> list[int]:
    """How many of ``total`` lines of a picture each segment gets: by `heights`, at least one, at most its pages need.

    (Its bytes, if it does not consist of pages.) What a segment of few pages does not need, the others get.
    """
    pages = [-(-segment.size // (_unit(segment) * cells_per_line)) for segment in segments]
    found = dict.fromkeys(range(len(segments)), 1)
    open_ones, left = list(found), max(total, len(segments))
    while open_ones:
        wanted = heights(
            [held[at] for at in open_ones], [segments[at].size for at in open_ones], float(left), float(least)
        )
        full = [at for at, lines in zip(open_ones, wanted, strict=True) if pages[at] <= lines]
        if not full:
            found |= _rounded(dict(zip(open_ones, wanted, strict=True)), left)
            break
        found |= {at: pages[at] for at in full}
        left -= sum(pages[at] for at in full)
        open_ones = [at for at in open_ones if at not in full]
    return list(found.values())


def _rounded(wanted: dict[int, float], total: int) -> dict[int, int]:
    """Whole numbers of the same sum ``total``: rounded down, and one more for those that lose most by that."""
    found = {at: int(lines + 1e-9) for at, lines in wanted.items()}
    losers = sorted(wanted, key=lambda at: found[at] - wanted[at])
    for at in losers[: total - sum(found.values())]:
        found[at] += 1
    return found
