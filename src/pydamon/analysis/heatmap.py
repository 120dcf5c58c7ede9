"""Heat over time and address: how often, on average, the memory of a cell was found accessed.

A region of a snapshot stands for a rectangle: its addresses times the snapshot's interval, with the access rate
``nr_accesses / max_nr_accesses``. The heat of a cell is the average rate over the part of the cell that such
rectangles cover, weighted by area (bytes x nanoseconds): exact, whatever the sizes of regions and cells.
Where not all samples of a region had an answer, its rectangle weighs as much less; what nobody answered is unknown.

How it is computed: a snapshot is a staircase over the addresses. The integral of a step of height h at address s over
the cells is h x (end of the cell - s) in the cell of s, and h x (size of the cell) in each later cell. So steps are
collected per cell, and one cumulative sum at the end makes integrals of them: the cost does not depend on how many
cells a region spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pydamon.core.columns import PER_REGION
from pydamon.records.batch import RegionBatch

# A cell less of which was monitored than this share counts as not monitored: rounding leaves traces of that size.
TRACE = 1e-9
# A cell fewer of whose samples were answered than this share is unknown: a single one would make it look cold or hot.
FEW_ANSWERS = 0.1
_ALL_ANSWERED = next(column.unknown for column in PER_REGION if column.name == "unknown")
# A snapshot that spans more rows than this is added as steps in time.
_MANY_ROWS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """The heat of one target.

    ``time_ns`` (int64 [rows + 1]) and ``address`` (uint64 [columns + 1]) are the edges of the cells; ``heat`` (float64
    [rows, columns]) is 0..1, NaN where nothing was monitored or (nearly) nothing is known. ``shown`` (bool [columns])
    is False for the columns between the ranges that the picture is about. ``outside`` is the share (0..1) of the
    accesses, in bytes x nr_accesses over the whole record, that no shown column covers; ``accessed`` says whether
    there were any.
    """

    target: int
    time_ns: NDArray[np.int64]
    address: NDArray[np.uint64]
    heat: NDArray[np.float64]
    shown: NDArray[np.bool_]
    outside: float
    accessed: bool

    def segments(self) -> list[slice]:
        """The runs of shown columns, in address order."""
        steps = np.flatnonzero(np.diff(np.concatenate([[False], self.shown, [False]]).astype(np.int8)))
        return [slice(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]

    def held(self) -> list[float]:
        """What each segment holds: bytes x heat, as a mean over the rows; what was not monitored holds nothing."""
        sizes = np.diff(self.address).astype(np.float64)
        amount = np.nan_to_num(self.heat).mean(axis=0) * sizes
        return [float(amount[segment].sum()) for segment in self.segments()]

    def sizes(self) -> list[int]:
        """The bytes of the addresses of each segment."""
        return [int(self.address[segment.stop] - self.address[segment.start]) for segment in self.segments()]

    @property
    def hottest(self) -> float:
        """The heat (0..1) of the hottest cell that is shown; 0 if none was monitored."""
        return float(np.nanmax(self.heat[:, self.shown], initial=0))

    def _repr_html_(self) -> str:
        """How a notebook shows it: time to the right, addresses upwards, what is not shown left out."""
        from pydamon.markup import heat_colours, html_picture
        from pydamon.spec.units import format_duration_ns

        cells = self.heat[:, self.shown].T[::-1]
        top = float(np.nanmax(cells, initial=0)) or 1.0
        edges = [int(self.address[at]) for part in self.segments() for at in (part.start, part.stop)]
        ranges = ", ".join(f"{low:#x}-{high:#x}" for low, high in zip(edges[::2], edges[1::2], strict=True))
        lasting = format_duration_ns(int(self.time_ns[-1] - self.time_ns[0]))
        caption = f"target {self.target}: {ranges} over {lasting}; 0 to {100 * top:.3g} % of samples found access"
        return html_picture(caption, heat_colours(cells, top), 320)


class HeatAccumulator:
    """Collects batches of one target into the cells between given edges; its size is that of the picture.

    ``time_ns`` (int64) and ``address`` (uint64) are increasing. Columns of equal sizes side by side are faster.
    """

    def __init__(self, time_ns: NDArray[np.int64], address: NDArray[np.uint64]) -> None:
        if len(time_ns) < 2 or len(address) < 2:
            raise ValueError("a heatmap needs at least one row and one column")
        self._time_ns = time_ns
        self._address = address
        self._sizes = np.diff(address).astype(np.float64)
        self._cells = _Cells(address)
        shape = (len(time_ns) - 1, len(address))
        self._heat = _Steps(shape)
        self._monitored = _Steps(shape)
        self._unanswered = _Steps(shape)  # of what was monitored
        # The same three, per ns, as steps in time, too.
        self._long: tuple[_Steps, _Steps, _Steps] | None = None
        self._total = 0.0

    def add(self, batch: RegionBatch) -> None:
        """Take in the snapshots of a batch (all of them: select the target before)."""
        per_access = (batch.end_ns - batch.start_ns) / batch.max_nr_accesses
        weight = np.repeat(per_access, batch.counts)
        weight *= batch.nr_accesses
        # Not np.dot(): waking BLAS's threads for this costs far more than they save.
        weight *= batch.end - batch.start
        if (unanswered := _unanswered(batch)) is not None:
            weight *= 1 - unanswered
        self._total += float(weight.sum())
        # A snapshot spans few rows, nearly always one: take the first row of each, then the second where there is one …
        edges = self._time_ns
        row = np.maximum(np.searchsorted(edges, batch.start_ns, "right") - 1, 0)
        last_row = np.minimum(np.searchsorted(edges, batch.end_ns, "left") - 1, len(edges) - 2)
        if (last_row - row >= _MANY_ROWS).any():
            batch, row, last_row = self._add_long(batch, row, last_row)
        while (here := row <= last_row).any():
            batch, row, last_row = batch.select(here), row[here], last_row[here]
            overlap = np.minimum(batch.end_ns, edges[row + 1]) - np.maximum(batch.start_ns, edges[row])
            self._add(batch, row, overlap.astype(np.float64), self._heat, self._monitored, self._unanswered)
            row = row + 1

    def _add_long(
        self, batch: RegionBatch, row: NDArray[np.intp], last_row: NDArray[np.intp]
    ) -> tuple[RegionBatch, NDArray[np.intp], NDArray[np.intp]]:
        """Add the snapshots that span many rows, in time that does not depend on how many; the others are returned."""
        if self._long is None:
            shape = (len(self._time_ns), len(self._address))
            self._long = _Steps(shape), _Steps(shape), _Steps(shape)
        long = last_row - row >= _MANY_ROWS
        mine, first, last = batch.select(long), row[long], last_row[long]
        for at in (first, last):  # parts of rows
            overlap = np.minimum(mine.end_ns, self._time_ns[at + 1]) - np.maximum(mine.start_ns, self._time_ns[at])
            self._add(mine, at, overlap.astype(np.float64), self._heat, self._monitored, self._unanswered)
        one = np.ones(len(mine))
        self._add(mine, first + 1, one, *self._long)
        self._add(mine, last, -one, *self._long)
        return batch.select(~long), row[~long], last_row[~long]

    def _add(
        self,
        batch: RegionBatch,
        row: NDArray[np.intp],
        overlap_ns: NDArray[np.float64],
        heat: _Steps,
        covered: _Steps,
        unanswered: _Steps,
    ) -> None:
        """Add each snapshot to one row, with the time that it overlaps that row."""
        counts = batch.counts
        # Where regions touch, the step at their common edge is the difference of the two weights.
        begins = np.ones(len(batch.start), dtype=np.bool_)
        np.not_equal(batch.start[1:], batch.end[:-1], out=begins[1:])
        begins[batch.offsets[:-1]] = True
        firsts = np.flatnonzero(begins)
        lasts = np.append(firsts[1:], len(begins)) - 1
        weight = np.repeat(overlap_ns / batch.max_nr_accesses, counts)
        weight *= batch.nr_accesses
        if (share := _unanswered(batch)) is not None:
            weight *= 1 - share
            some = np.flatnonzero(share)
            missing, rows = (np.repeat(overlap_ns, counts) * share)[some], np.repeat(row, counts)[some]
            unanswered.add(rows, self._cells.locate(batch.start[some]), missing)
            unanswered.add(rows, self._cells.locate(batch.end[some]), -missing)
        steps = weight.copy()
        steps[1:] -= weight[:-1]
        steps[firsts] = weight[firsts]
        snapshot_of_run = np.searchsorted(batch.offsets, firsts, "right") - 1
        row_of_run = row[snapshot_of_run]
        starts, ends = self._cells.locate(batch.start[firsts]), self._cells.locate(batch.end[lasts])
        monitored = overlap_ns[snapshot_of_run]
        covered.add(row_of_run, starts, monitored)
        covered.add(row_of_run, ends, -monitored)
        heat.add(row_of_run, ends, -weight[lasts])
        if np.count_nonzero(steps) * 2 > len(steps):
            heat.add(np.repeat(row, counts), self._cells.locate(batch.start), steps)
        else:
            some = np.flatnonzero(steps)
            heat.add(np.repeat(row, counts)[some], self._cells.locate(batch.start[some]), steps[some])

    def amounts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Per cell, in bytes x ns: what was found accessed, what was monitored, and what of that had no answer."""
        heat, monitored, unanswered = (
            steps.integrals(self._sizes) for steps in (self._heat, self._monitored, self._unanswered)
        )
        if self._long is not None:
            lasting = np.diff(self._time_ns).astype(np.float64)[:, np.newaxis]
            for found, steps in zip((heat, monitored, unanswered), self._long, strict=True):
                found += np.maximum(np.cumsum(steps.integrals(self._sizes, signed=True), axis=0)[:-1], 0) * lasting
        return heat, monitored, unanswered

    def heatmap(self, target: int, shown: NDArray[np.bool_] | None = None) -> Heatmap:
        """The picture so far; all columns are shown unless said otherwise."""
        heat, monitored, unanswered = self.amounts()
        if shown is None:
            shown = np.ones(len(self._sizes), dtype=np.bool_)
        outside = 1 - heat[:, shown].sum() / self._total if self._total else 0.0
        some = monitored > TRACE * np.diff(self._time_ns)[:, np.newaxis] * self._sizes
        answered = monitored - unanswered
        some &= answered > (FEW_ANSWERS - TRACE) * monitored
        cells = np.full(heat.shape, np.nan)
        np.divide(heat, answered, out=cells, where=some)
        return Heatmap(
            target,
            self._time_ns,
            self._address,
            # More digits would be noise, and make a never accessed cell look accessed.
            np.round(np.clip(cells, 0, 1), 9),
            shown,
            float(np.round(np.clip(outside, 0, 1), 9)),
            self._total > 0,
        )


def _unanswered(batch: RegionBatch) -> NDArray[np.float64] | None:
    """The share (0..1) of each region's samples without an answer; None if all had one."""
    unknown = batch.column("unknown")
    if unknown is None or not unknown.any():
        return None
    share: NDArray[np.float64] = np.minimum(unknown / np.repeat(batch.max_nr_accesses, batch.counts), 1)
    share[unknown == _ALL_ANSWERED] = 0
    return share


class _Cells:
    """Finds the cell of an address among increasing edges."""

    # Up to so many runs of cells of equal size, arithmetic is faster than searching.
    _MOST_RUNS = 8

    def __init__(self, edges: NDArray[np.uint64]) -> None:
        self._edges = edges
        sizes = np.diff(edges)
        self._sizes = np.append(sizes, 1).astype(np.float64)
        firsts = np.concatenate([[0], np.flatnonzero(sizes[1:] != sizes[:-1]) + 1, [len(sizes)]])
        self._runs = [(float(edges[a] - edges[0]), float(sizes[a]), float(b - a)) for a, b in pairwise(firsts.tolist())]

    def locate(self, places: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(cell, share of the cell from the place to its end); places beyond the last edge are in one more cell."""
        places = places.clip(self._edges[0], self._edges[-1])
        if len(self._runs) > self._MOST_RUNS:
            cell = np.searchsorted(self._edges, places, "right") - 1
            return cell, 1 - (places - self._edges[cell]) / self._sizes[cell]
        distance = (places - self._edges[0]).astype(np.float64)
        at = np.zeros(len(places))
        for start, size, cells in self._runs:
            part = distance - start
            part /= size
            at += part.clip(0, cells, out=part)
        # Rounding may put a place at an edge at the very end of the cell before it, which amounts to the same.
        cell = at.astype(np.intp)
        at -= cell
        return cell, np.subtract(1, at, out=at)


class _Steps:
    """Steps per row and cell: ``inner`` is what they amount to in their own cell (in cells), ``level`` later."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._inner = np.zeros(shape)
        self._level = np.zeros(shape)

    def add(
        self,
        row: NDArray[np.intp],
        place: tuple[NDArray[np.intp], NDArray[np.float64]],
        height: NDArray[np.float64],
    ) -> None:
        """Add steps, each of its height, in its row, at its place (a result of `_Cells.locate`)."""
        if not len(height):
            return
        cell, rest = place
        low, high = int(row.min()), int(row.max()) + 1
        shape = (high - low, self._inner.shape[1])
        at = (row - low) * shape[1]
        at += cell
        size = shape[0] * shape[1]
        self._inner[low:high] += np.bincount(at, height * rest, size).reshape(shape)
        self._level[low:high] += np.bincount(at, height, size).reshape(shape)

    def integrals(self, sizes: NDArray[np.float64], *, signed: bool = False) -> NDArray[np.float64]:
        """Per row and cell: the integral over the addresses of the cell; negative only if ``signed``."""
        found = self._inner[:, :-1].copy()
        found[:, 1:] += np.cumsum(self._level, axis=1)[:, :-2]
        found *= sizes
        return found if signed else np.maximum(found, 0)


def even_edges(start: int, end: int, cells: int, unit: int = 1) -> list[int]:
    """At most ``cells + 1`` increasing edges from start to end, inner ones at multiples of ``unit`` from the start."""
    cells = max(min(cells, (end - start) // unit), 1)
    return [start + (end - start) * cell // cells // unit * unit for cell in range(cells)] + [end]
