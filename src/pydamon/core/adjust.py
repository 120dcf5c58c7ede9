"""Adaptive regions adjustment: age, merge, split, and following the target's ranges (docs/algorithms.md 2.3-2.5, 2.8).

Everything here is a pure function of regions; the formulas use integers throughout, as the kernel's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.boundaries import NO_BOUNDARIES
from pydamon.core.regions import U64, Regions
from pydamon.core.together import Together
from pydamon.ops.counts import Count

_TEN = np.uint64(10)


def size_limit(total_bytes: int, min_nr_regions: int, min_region: int) -> int:
    """The largest size that merging may produce, so that at least ``min_nr_regions`` regions remain (2.3).

    A multiple of ``min_region``.
    """
    limit = max(total_bytes // min_nr_regions, min_region)
    return limit + -limit % min_region


def update_age(regions: Regions, threshold: int, elapsed_ns: int = 0) -> None:
    """One aggregation, of ``elapsed_ns``, older, or 0 again if the access count changed by more than ``threshold``.

    As in newer kernels, going to or from no access at all counts as a change whatever the threshold is (2.4).
    """
    nr, last = regions.nr_accesses, regions.last_nr_accesses
    same = (np.abs(nr - last) <= threshold) & ((nr == 0) == (last == 0))
    ages = regions.ages
    ages += ((1,), (elapsed_ns,))
    ages *= same


def merge(regions: Regions, threshold: int, sz_limit: int, boundaries: U64 = NO_BOUNDARIES) -> Regions:
    """Merge each region into its left neighbour if they touch, count alike and stay within ``sz_limit`` (2.4).

    Never across one of the sorted ``boundaries``.
    """
    together = Together([regions])
    _merge(together, threshold, sz_limit, _touches(together, [boundaries]))
    return together.regions


def merge_back(regions: Regions, wanted: NDArray[np.bool_], sz_limit: int, boundaries: U64 = NO_BOUNDARIES) -> Regions:
    """Merge each region that is ``wanted`` into its left neighbour if all that is known of both is the same (2.11).

    Within ``sz_limit``, never across one of the sorted ``boundaries``.
    """
    together = Together([regions])
    touches = _touches(together, [boundaries]) & wanted[1:]
    for row in (*regions.ages, regions.last_nr_accesses, regions.unknown):
        touches &= row[1:] == row[:-1]
    if not touches.any():
        return regions
    _merge(together, 0, sz_limit, touches)
    return together.regions


def _merge(together: Together, threshold: int, sz_limit: int, touches: NDArray[np.bool_]) -> None:
    """As `merge`, the regions of all targets; ``touches`` says which (all but the last) may be merged with the next.

    The merged count and age are size-weighted means, against which the next region is compared: that makes merging
    sequential from left to right. `_runs` therefore is a loop in Python, but only over regions that do merge: a run can
    begin only where two *unmerged* neighbours qualify, and those places are found for all regions at once.
    """
    regions = together.regions
    if len(regions) < 2:
        return
    start, end, nr = regions.start, regions.end, regions.nr_accesses
    qualify = (np.abs(nr[1:] - nr[:-1]) <= threshold) & touches
    qualify &= end[1:] - start[:-1] <= np.uint64(min(sz_limit, 2**64 - 1))
    candidates: list[int] = qualify.nonzero()[0].tolist()
    if not candidates:
        return
    heads, behinds, counted, ages = np.array(_runs(regions, candidates, touches, threshold, sz_limit), np.int64)
    gone = np.zeros(len(regions), np.int8)  # sums up to 1 where a region is merged into one before it
    gone[heads + 1] = 1
    inside = behinds < len(regions)
    gone[behinds[inside]] = -1
    index = (gone.cumsum(dtype=np.int8) == 0).nonzero()[0]
    merged = regions.select(index, start[index], end[np.append(index[1:], len(regions)) - 1])
    at = index.searchsorted(heads)
    merged.set_merged(at, counted, ages)
    # The rest are means of the runs as wholes.
    merged.age_ns[at] = _mean_ns(regions, index, at)
    counts = regions.counts
    if len(counts.hits) or not regions.all_known:
        bounds = np.append(index, len(regions))[at[:, np.newaxis] + (0, 1)].ravel()
        if not regions.all_known:
            merged.unknown[at] = _mean_counts(regions, regions.unknown, bounds)
        if len(counts.hits):
            merged.counts.probed[at] = _mean_counts(regions, counts.probed, bounds)
            merged.counts.hits[:, at] = _mean_counts(regions, counts.hits, bounds)
    together.exchange(merged, index)


def _touches(together: Together, boundaries: Sequence[U64]) -> NDArray[np.bool_]:
    """Which regions (all but the last) may be merged with the next: they touch, are one target's, and no boundary is
    between them."""
    start = together.regions.start
    touches: NDArray[np.bool_] = start[1:] == together.regions.end[:-1]
    touches[together.borders - 1] = False
    first = 0
    for end, bounds in zip(together.ends.tolist(), boundaries, strict=False):
        if len(bounds):
            of_target = start[first + 1 : end]
            at = np.searchsorted(bounds, of_target)
            touches[first : max(end - 1, first)] &= bounds.take(at, mode="clip") != of_target
        first = end
    return touches


def _runs(
    regions: Regions, candidates: list[int], touches: NDArray[np.bool_], threshold: int, sz_limit: int
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Runs of regions to be merged: the first of each, the first behind it, and the run's count and age.

    ``candidates`` are the regions that qualify with the next one, ``touches`` says which touch it.
    """
    heads: list[int] = []
    behinds: list[int] = []
    merged_counts: list[int] = []
    merged_ages: list[int] = []
    starts, ends, beside = regions.start.tolist(), regions.end.tolist(), [*touches.tolist(), False]
    counts, ages = regions.nr_accesses.tolist(), regions.age.tolist()
    behind = 0  # everything left of it has been dealt with
    for head in candidates:
        if head < behind:
            continue
        right, count, age = ends[head], counts[head], ages[head]
        size, limit = right - starts[head], starts[head] + sz_limit
        i = head + 1
        end, more_counted = ends[i], counts[i]
        while True:  # region i is to be merged
            more, more_aged = end - right, ages[i]
            whole = size + more
            if more_counted != count:
                count = (count * size + more_counted * more) // whole
            if more_aged != age:
                age = (age * size + more_aged * more) // whole
            size, right = whole, end
            i += 1
            if not beside[i - 1]:
                break
            end, more_counted = ends[i], counts[i]
            if end > limit or more_counted - count > threshold or count - more_counted > threshold:
                break
        behind = i
        heads.append(head)
        behinds.append(behind)
        merged_counts.append(count)
        merged_ages.append(age)
    return heads, behinds, merged_counts, merged_ages


def _mean_ns(regions: Regions, index: NDArray[np.intp], at: NDArray[np.intp]) -> NDArray[np.int64]:
    """The size-weighted means of ``age_ns`` in those of the runs that begin at ``index`` whose places are ``at``."""
    sizes = regions.size.astype(np.float64)  # as floats: bytes x ns do not fit in 64 bits
    spans = np.add.reduceat(sizes, index)[at]
    weighted = np.add.reduceat(sizes * regions.age_ns, index)[at]
    return np.rint(weighted / spans).astype(np.int64)


def _mean_counts(regions: Regions, counted: Count, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The size-weighted means of what was ``counted`` in the runs bounds[0]:bounds[1], bounds[2]:bounds[3], …

    (Rounded down once; the means of nr_accesses and age are at each of the regions that are merged.)
    """
    pages = (regions.size >> np.uint64(12)).astype(np.int64)

    def of_runs(values: NDArray[np.int64]) -> NDArray[np.int64]:
        summed = np.zeros((*values.shape[:-1], values.shape[-1] + 1), np.int64)
        np.cumsum(values, axis=-1, out=summed[..., 1:])
        result: NDArray[np.int64] = summed[..., bounds[1::2]] - summed[..., bounds[::2]]
        return result

    return of_runs(counted * pages) // np.maximum(of_runs(pages), 1)


def blind_bounds(regions: Regions, window: int) -> U64:
    """Where regions that were seen and such of which nothing is known lie side by side: bounds not to merge across."""
    if regions.all_known:
        return NO_BOUNDARIES
    blind = regions.blind(window)
    if not blind.any():
        return NO_BOUNDARIES
    bounds: U64 = regions.start[1:][blind[1:] != blind[:-1]]
    return bounds


def merge_all(
    targets: list[Regions],
    *,
    max_seen: int,
    sz_limit: int,
    max_nr_regions: int,
    window: int,
    boundaries: Sequence[U64] = (),
    elapsed_ns: int = 0,
) -> list[Regions]:
    """Age and merge all targets; while more than ``max_nr_regions`` remain, again with larger `thresholds` (2.4).

    ``max_seen`` is the largest access count observed in this aggregation, ``window`` the largest possible one.
    ``boundaries`` has an array for each target, across which is not merged unless that leaves too many regions.
    ``elapsed_ns`` is how long the aggregation lasted by the clock.
    """
    if not targets:
        return targets
    together, first = Together(targets), max_seen // 10
    update_age(together.regions, first, elapsed_ns)
    for threshold in thresholds(first, window):
        _merge(together, threshold, sz_limit, _touches(together, boundaries))
        if len(together.regions) <= max_nr_regions:
            return together.parted()
    if boundaries:
        _merge(together, threshold, sz_limit, _touches(together, ()))
    return together.parted()


def thresholds(first: int, window: int) -> Iterator[int]:
    """With which thresholds to merge while regions are too many: doubled below half of ``window``, which is the last.

    ``first`` alone if that is so large already.
    """
    threshold = first
    yield threshold
    while threshold < window:
        threshold = max(1, 2 * threshold) if threshold < window // 2 else window
        yield threshold


def split(regions: Regions, pieces: int, min_region: int, rng: np.random.Generator) -> Regions:
    """Split every region that is large enough into up to ``pieces`` (2 or 3) at random places (2.5).

    The cut is at 10 %, 20 %, … or 90 % of the size, aligned down; a third piece is cut off the left one. The pieces
    inherit all counters.
    """
    together = Together([regions])
    _split(together, pieces, min_region, rng)
    return together.regions


def _split(together: Together, pieces: int, min_region: int, rng: np.random.Generator) -> None:
    """As `split`, the regions of all targets."""
    regions = together.regions
    n = len(regions)
    if n == 0:
        return
    start, size, unit = regions.start, regions.size, np.uint64(min_region)
    cuts: list[tuple[U64, NDArray[np.bool_]]] = []
    for remaining in range(pieces - 1, 0, -1):
        cut = _drawn_cuts(size, unit, rng)
        present = (size > unit + unit) & (cut < size) & (cut > 0)
        cuts.append((start + cut, present))
        if remaining > 1:
            size = np.where(present, cut, size)
    # Left to right the pieces of a region are: up to the last cut, ..., up to the first cut, up to its end.
    nr_pieces = sum((present for _, present in cuts), start=np.ones(n, np.intp))
    if nr_pieces.max() == 1:
        return
    index = np.repeat(np.arange(n), nr_pieces)
    new_start, new_end = start[index], regions.end[index]
    last = nr_pieces.cumsum() - 1
    for place, present in cuts:
        at, bound = last[present], place[present]
        new_start[at] = new_end[at - 1] = bound
        last -= present
    together.exchange(regions.select(index, new_start, new_end), index)


def _drawn_cuts(size: U64, unit: np.uint64, rng: np.random.Generator) -> U64:
    """10 %, 20 %, … or 90 % of each size, aligned down."""
    tenths = rng.integers(1, 10, len(size)).astype(np.uint64)
    # size * tenths / 10 without overflow for sizes up to 2**64.
    whole, rest = np.divmod(size, _TEN)
    cut = whole * tenths + rest * tenths // _TEN
    drawn: U64 = cut - cut % unit
    return drawn


def split_all(
    targets: list[Regions],
    *,
    last_nr_regions: int,
    max_nr_regions: int,
    min_region: int,
    rng: np.random.Generator,
) -> list[Regions]:
    """Split all targets' regions, of which there are at most half of the maximum (2.5).

    In three if the last round of splitting began with as many (``last_nr_regions``) and there is room.
    """
    n = sum(map(len, targets))
    if n == 0:
        return targets
    together = Together(targets)
    _split(together, 3 if n == last_nr_regions and n < max_nr_regions // 3 else 2, min_region, rng)
    return together.parted()


def split_every(
    targets: list[Regions], step: int, offset: int, *, min_region: int, rng: np.random.Generator
) -> list[Regions]:
    """Split in two every ``step``-th region of all targets in their order, beginning with number ``offset`` (2.5).

    One that is smaller than two smallest regions, or whose place of the cut comes out at its start, stays whole.
    """
    together, unit = Together(targets), np.uint64(min_region)
    regions = together.regions
    at = np.arange(offset, len(regions), step)
    size = regions.size[at]
    cut = _drawn_cuts(size, unit, rng)
    fits = (size >= unit + unit) & (cut > 0)
    at, cut = at[fits], cut[fits]
    if not len(at):
        return targets
    place = regions.start[at] + cut
    index = np.insert(np.arange(len(regions)), at + 1, at)
    cut_regions = regions.select(index, np.insert(regions.start, at + 1, place), np.insert(regions.end, at, place))
    together.exchange(cut_regions, index)
    return together.parted()


def split_larger_than(regions: Regions, sz_limit: int, min_region: int) -> Regions:
    """Cut regions of twice ``sz_limit`` and more evenly: about the minimum number of regions holds. (Ours; see 2.3.)

    One that is only somewhat larger is left to the random splitting: cutting it in two would double the number of
    regions where all are about as large as the limit.
    """
    limit = np.uint64(max(sz_limit - sz_limit % min_region, min_region))
    pieces = np.maximum((regions.size // limit).astype(np.int64), 1)
    if not len(regions) or pieces.max() <= 1:
        return regions
    piece = regions.size // pieces.astype(np.uint64)
    return _in_pieces(regions, pieces, piece - piece % np.uint64(min_region))


def cut_at_limit(regions: Regions, sz_limit: int) -> Regions:
    """Cut off pieces of exactly ``sz_limit`` from each larger region; what remains is the last (2.3)."""
    limit = np.uint64(sz_limit)
    if not len(regions) or regions.size.max() <= limit:
        return regions
    whole, rest = np.divmod(regions.size, limit)
    return _in_pieces(regions, (whole + (rest > 0)).astype(np.int64), limit)


def _in_pieces(regions: Regions, pieces: NDArray[np.int64], size: U64 | np.uint64) -> Regions:
    """Each region in so many pieces of that size, the last with what remains."""
    index = np.repeat(np.arange(len(regions)), pieces)
    last = np.cumsum(pieces) - 1
    rank = (np.arange(len(index)) - (last + 1 - pieces)[index]).astype(np.uint64)
    step = np.broadcast_to(size, len(regions))[index]
    start = regions.start[index] + rank * step
    end = start + step
    end[last] = regions.end
    return regions.select(index, start, end)


def initial_regions(ranges: U64, piece_bytes: int, min_region: int) -> Regions:
    """Evenly cut each of ``ranges`` (n, 2) into pieces of about ``piece_bytes``; the last takes the remainder (2.8)."""
    piece_bytes = max(piece_bytes, min_region)
    starts: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    ends: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    for left, right in ranges.tolist():
        pieces = max((right - left) // piece_bytes, 1)
        size = (right - left) // pieces
        size = max(size - size % min_region, min_region)
        start = np.uint64(left) + np.arange(pieces, dtype=np.uint64) * np.uint64(size)
        starts.append(start)
        ends.append(np.append(start[1:], np.uint64(right)))
    return Regions(np.concatenate(starts), np.concatenate(ends))


def _cover(regions: Regions, ranges: U64, min_region: int) -> bool:
    """Whether the regions cover exactly these ranges, of which no two touch."""
    if not len(regions) or not len(ranges):
        return False
    holes = np.flatnonzero(regions.start[1:] != regions.end[:-1])
    if len(holes) + 1 != len(ranges):
        return False
    unit = np.uint64(min_region)
    start, end = regions.start[np.append(0, holes + 1)], regions.end[np.append(holes, -1)]
    same_start = (start == ranges[:, 0] - ranges[:, 0] % unit).all()
    return bool(same_start and (end == ranges[:, 1] + (unit - ranges[:, 1] % unit) % unit).all())


def set_ranges(regions: Regions, ranges: U64, min_region: int) -> Regions:
    """Follow the target: afterwards the regions cover exactly ``ranges`` (n, 2), sorted and disjoint (2.8).

    Regions outside are dropped, the first and last inside a range are stretched or cut to its bounds and keep their
    counters, holes get new regions. A region that reaches into two ranges is kept in both (the kernel keeps it in one).
    Regions that cover them already are given back as they are.
    """
    if _cover(regions, ranges, min_region):
        return regions
    index: list[NDArray[np.intp]] = [np.empty(0, np.intp)]
    starts: list[U64] = [np.empty(0, np.uint64)]
    ends: list[U64] = [np.empty(0, np.uint64)]
    for left, right in ranges.tolist():
        left -= left % min_region
        right += -right % min_region
        low = int(np.searchsorted(regions.end, np.uint64(left), "right"))
        high = int(np.searchsorted(regions.start, np.uint64(right), "left"))
        if low >= high:
            index.append(np.array([-1], np.intp))
            starts.append(np.array([left], np.uint64))
            ends.append(np.array([right], np.uint64))
            continue
        kept = np.arange(low, high, dtype=np.intp)
        start, end = regions.start[low:high].copy(), regions.end[low:high].copy()
        start[0], end[-1] = left, right
        hole = np.flatnonzero(end[:-1] < start[1:])
        index.append(np.insert(kept, hole + 1, -1))
        starts.append(np.insert(start, hole + 1, end[hole]))
        ends.append(np.insert(end, hole + 1, start[hole + 1]))
    return regions.select(np.concatenate(index), np.concatenate(starts), np.concatenate(ends))
