"""A heat pyramid: one target's heat at several resolutions of time, a piece of any of which is at hand at once.

The addresses are an `Axis`: cells in pieces, more of them where accesses are, without the gaps between mappings. Time
is columns of equal, power-of-two lengths. It is made in one pass over batches of snapshots, as a heatmap is: sums are
kept of a strip of the finest columns, the one that snapshots reach into now, and become cells of all levels once it is
passed; so the memory that it takes is that of its cells, a byte each (`quantised`). What is finer than the finest level
is worked out from the snapshots themselves (`exact`): few enough lie in so short a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.focus import Focus, Segment, automatic, everything, grid, held, shares
from pydamon.analysis.heatmap import FEW_ANSWERS, TRACE, HeatAccumulator
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]

TILE = 256  # columns and cells
CELLS = 512  # of addresses, about
_MOST = 1 << 25  # cells of the finest level
_ROWS = 2000  # of regions in a column, or up to twice as many
FINER = 3  # what is worked out from snapshots has columns that are at most an 8th of the finest: 128,000 rows a tile
_LEAST = CELLS // 24  # cells of a piece
_STEPS = 254
_NOISE = 0.01  # of a step: what rounding leaves of nothing


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of addresses in cells of equal size (the last may be smaller): cells ``first`` to before ``behind``."""

    start: int
    end: int
    first: int
    behind: int


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The addresses of a picture: ``start`` and ``end`` (uint64) of each cell, ascending, and its pieces."""

    start: U64
    end: U64
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Number of cells."""
        return len(self.start)


def axis_of(focus: Focus, cells: int = CELLS) -> Axis:
    """All that was monitored in about so many cells; what was accessed is in pieces of its own, with finer cells."""
    return axis(focus, _divided(everything(focus), automatic(focus)), cells)


def axis(focus: Focus, segments: Sequence[Segment], cells: int = CELLS) -> Axis:
    """These ranges, sorted and disjoint, in about so many cells, by what each holds."""
    counts = shares(segments, held(focus, segments), cells, min(_LEAST, cells // len(segments)))
    edges, shown = grid(segments, counts, exact=True)
    start, end = edges[:-1][shown], edges[1:][shown]
    firsts = np.searchsorted(start, np.array([segment.start for segment in segments], np.uint64))
    bounds = [*firsts.tolist(), len(start)]
    pieces = zip(segments, bounds[:-1], bounds[1:], strict=True)
    return Axis(start, end, tuple(Piece(one.start, one.end, first, behind) for one, first, behind in pieces))


def _divided(whole: Sequence[Segment], parts: Sequence[Segment]) -> list[Segment]:
    """What either covers, with the bounds of ``parts`` as bounds."""
    bounds = sorted({at for one in (*whole, *parts) for at in (one.start, one.end)})
    return [
        Segment(low, high)
        for low, high in pairwise(bounds)
        if any(one.start <= low and high <= one.end for one in (*whole, *parts))
    ]


def quantised(heat: NDArray[np.floating]) -> U8:
    """Heat (0..1) as bytes: 0 for NaN, 1 for none, else by its square root, so that little is told from none."""
    steps = np.sqrt(heat)
    steps *= _STEPS
    steps -= _NOISE
    np.ceil(steps, out=steps)
    steps += 1
    np.fmax(steps, 0, out=steps)  # of NaN and 0 it is 0
    found: U8 = np.minimum(steps, _STEPS + 1, out=steps).astype(np.uint8)
    return found


def heat_in(cells: U8) -> F64:
    """The heat (0..1) that bytes stand for; NaN for 0."""
    return _HEATS[cells]


_HEATS = np.append(np.nan, (np.arange(_STEPS + 1) / _STEPS) ** 2)


class Pyramid:
    """The heat of a target from ``start_ns`` on, in columns of ``column_ns`` (a power of two) and the cells of an axis.

    ``levels[k]`` (uint8 [columns >> k, cells], `quantised`) has columns of ``column_ns << k``; the last has `TILE`.
    They are up to date after `finish`. ``rows`` is how many regions were taken in, ``end_ns`` where the last snapshot
    ends. When time goes beyond the last column, two columns become one.
    """

    def __init__(self, axis: Axis, start_ns: int, column_ns: int, levels: list[U8]) -> None:
        self.axis = axis
        self.start_ns = self.end_ns = start_ns
        self.column_ns = column_ns
        self.rows = 0
        self.levels = levels
        self._sizes = (axis.end - axis.start).astype(np.float64)
        self._edges, self._shown = with_gaps(axis.start, axis.end)
        # In bytes: heat, monitored, unanswered. Of as many columns as are one in the last level, or more.
        self._width = max(self.columns // TILE, TILE)
        self._sums = np.zeros((3, self._width, len(axis)))
        self._strip = 0

    @property
    def columns(self) -> int:
        """Number of columns of the finest level."""
        return len(self.levels[0])

    @property
    def span_ns(self) -> int:
        """How long all columns last together."""
        return self.columns * self.column_ns

    def add(self, batch: RegionBatch) -> None:
        """Take in the next snapshots (all of them: select the target before). `finish` makes them visible."""
        batch = batch.select(batch.end_ns > self.start_ns)
        if not len(batch):
            return
        self.end_ns = max(self.end_ns, int(batch.end_ns.max()))
        self.rows += len(batch.start)
        while self.end_ns - self.start_ns > self.span_ns:
            self._fold()
        strip_ns = self._width * self.column_ns
        # Snapshots come in the order of time: nothing is added to a strip that was passed.
        for strip in range(self._strip, -(-(self.end_ns - self.start_ns) // strip_ns)):
            low_ns = self.start_ns + strip * strip_ns
            reaches = (batch.end_ns > low_ns) & (batch.start_ns < low_ns + strip_ns)
            if reaches.any():
                self._go_to(strip)
                self._add(batch.select(reaches))

    def _add(self, batch: RegionBatch) -> None:
        """Add what these snapshots have in the strip."""
        before = self._strip * self._width
        low, high = int(batch.start_ns.min()) - self.start_ns, int(batch.end_ns.max()) - self.start_ns
        first = max(low // self.column_ns, before) - before
        behind = min(-(-high // self.column_ns), before + self._width) - before
        place = np.arange(before + first, before + behind + 1, dtype=np.int64)
        accumulator = HeatAccumulator(self.start_ns + place * self.column_ns, self._edges)
        accumulator.add(batch)
        for sums, amount in zip(self._sums, accumulator.amounts(), strict=True):
            if amount.any():
                sums[first:behind] += amount[:, self._shown] / self.column_ns

    def _go_to(self, strip: int) -> None:
        if strip != self._strip:
            self.finish()
            self._strip = strip
            self._sums[:] = 0

    def _fold(self) -> None:
        """Two columns become one: each level is what the next coarser one was; the strip is taken from its cells."""
        self.finish()
        self.column_ns *= 2
        coarsest = self.levels[-1]
        halves = [*self.levels[1:], _joined(coarsest[0::2], coarsest[1::2])]
        for level, half in zip(self.levels, halves, strict=True):
            level[:] = np.pad(half, ((0, len(level) - len(half)), (0, 0)))
        self._strip //= 2
        heat = heat_in(self.levels[0][self._strip * self._width :][: self._width])
        self._sums[:] = np.nan_to_num(heat) * self._sizes, ~np.isnan(heat) * self._sizes, np.zeros(heat.shape)

    def finish(self) -> None:
        """Bring the levels up to date."""
        sums, first = self._sums, self._strip * self._width
        for level in self.levels:
            level[first : first + sums.shape[1]] = _cells(sums, self._sizes)
            if sums.shape[1] > 1:
                sums = (sums[:, 0::2] + sums[:, 1::2]) / 2
                first //= 2

    def tile(self, level: int, shrink: int, column: int, row: int) -> U8:
        """Tile (column, row) of a level, in which ``1 << shrink`` cells are one: uint8 [TILE, TILE], 0 beyond the ends.

        Raises ValueError where there is no such tile.
        """
        if not (0 <= level < len(self.levels) and 0 <= shrink <= 16 and column >= 0 and row >= 0):
            raise ValueError("there is no such tile")
        plane = self.levels[level]
        part = plane[column * TILE : (column + 1) * TILE, (row * TILE) << shrink : ((row + 1) * TILE) << shrink]
        if not part.size:
            raise ValueError("there is no such tile")
        return padded(_shrunk(part, 1 << shrink))


def with_gaps(start: U64, end: U64) -> tuple[U64, NDArray[np.bool_]]:
    """(edges, which cells are none between two others) of ascending, disjoint cells."""
    touches = np.append(start[1:] == end[:-1], False)
    kept = np.stack([np.ones(len(start), np.bool_), ~touches], axis=1).ravel()
    edges = np.stack([start, end], axis=1).ravel()[kept]
    shown = np.stack([np.ones(len(start), np.bool_), np.zeros(len(start), np.bool_)], axis=1).ravel()[kept]
    return edges, shown[:-1]


def padded(part: U8) -> U8:
    """A tile of at most TILE x TILE, with zeros beyond its ends."""
    whole = np.zeros((TILE, TILE), np.uint8)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def _cells(sums: F64, sizes: F64) -> U8:
    """The cells of sums (heat, monitored, unanswered; bytes) of cells of these sizes."""
    heat, monitored, unanswered = sums
    answered = monitored - unanswered
    some = answered > np.maximum(TRACE * sizes, (FEW_ANSWERS - TRACE) * monitored)
    cells = np.full(heat.shape, np.nan)
    return quantised(np.divide(heat, answered, out=cells, where=some))


def _joined(one: U8, other: U8) -> U8:
    """Cells of two columns as one: the mean of what is known."""
    return _mean(np.stack([heat_in(one), heat_in(other)], axis=-1))


def _shrunk(cells: U8, times: int) -> U8:
    """So many neighbours along the second axis become one: the mean of what is known of them."""
    if times == 1:
        return cells
    missing = -cells.shape[1] % times
    return _mean(heat_in(np.pad(cells, ((0, 0), (0, missing)))).reshape(len(cells), -1, times))


def _mean(heat: F64) -> U8:
    known = ~np.isnan(heat)
    count = known.sum(axis=-1)
    total = np.nan_to_num(heat).sum(axis=-1)
    return quantised(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _halved(columns: int) -> list[int]:
    found = [columns]
    while found[-1] > TILE:
        found.append(found[-1] // 2)
    return found


def planned(axis: Axis, span_ns: tuple[int, int], rows: int, snapshots: int, pyramids: int = 1) -> Pyramid:
    """An empty pyramid for a target of about so many regions and snapshots, one of so many that are held."""
    most = max(_MOST // max(len(axis), 1) // max(pyramids, 1), TILE)
    wanted = min(max(rows // _ROWS, min(snapshots * 2, 4096), TILE), most)
    columns = 1 << (wanted.bit_length() - 1)
    lasting = max(span_ns[1] - span_ns[0], 1)
    column_ns = 1 << max((-(-lasting // columns) - 1).bit_length(), 0)
    levels = [np.zeros((count, len(axis)), np.uint8) for count in _halved(columns)]
    return Pyramid(axis, span_ns[0], column_ns, levels)


def exact(batches: Iterable[RegionBatch], time_ns: NDArray[np.int64], start: U64, end: U64) -> U8:
    """The heat of one target's snapshots in cells of time and of ascending, disjoint addresses: [times, cells]."""
    edges, shown = with_gaps(start, end)
    accumulator = HeatAccumulator(time_ns, edges)
    for batch in batches:
        accumulator.add(batch)
    return quantised(accumulator.heatmap(0).heat[:, shown])


def divided_cells(axis: Axis, row: int, stretch: int) -> tuple[U64, U64]:
    """(start, end) of the cells of row ``row`` of tiles, where each cell is divided into ``1 << stretch`` equal parts.

    Raises ValueError where there is no such row, or a cell is too small for that.
    """
    times = 1 << stretch
    cells = slice(row * TILE // times, (row + 1) * TILE // times)
    low, size = axis.start[cells], axis.end[cells] - axis.start[cells]
    if not len(low) or int(size.min()) < times:
        raise ValueError("there is no such tile")
    part = np.arange(times + 1, dtype=np.uint64)
    edges = low[:, np.newaxis] + size[:, np.newaxis] // np.uint64(times) * part
    edges[:, -1] = axis.end[cells]
    return edges[:, :-1].ravel(), edges[:, 1:].ravel()
