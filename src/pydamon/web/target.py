"""One target of a recording as the page shows it: its heat pyramid, its curves, and the words for its addresses."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.curves import COLD_S, Curves
from pydamon.analysis.distribution import unaccessed_s
from pydamon.analysis.focus import survey
from pydamon.analysis.names import MappingNames, short_list
from pydamon.analysis.panel import used_within
from pydamon.analysis.pyramid import CELLS, Axis, Pyramid, axis_of, planned
from pydamon.analysis.summary import holdings
from pydamon.analysis.window import clip
from pydamon.core.panel import BOUNDS_S, Look
from pydamon.core.snapshot import Snapshot
from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping
from pydamon.plain import printable
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

_MOST_MAPPINGS = 4000
_MOST_POINTS = 1000
_PANEL_S = 10.0  # the window of the panel's curve


class Drawn:
    """What is kept of a target: it grows as snapshots come. Who reads it meanwhile holds its ``lock``."""

    def __init__(self, target: int, pyramid: Pyramid, curves: Curves) -> None:
        self.target = target
        self.lock = threading.Lock()
        self.pyramid = pyramid
        self.curves = curves

    def add(self, batch: RegionBatch) -> None:
        """Take in the next snapshots of the target; those that were taken in before are left out."""
        batch = batch.select(batch.end_ns > self.pyramid.end_ns)
        if len(batch):
            with self.lock:
                self.pyramid.add(batch)
                self.curves.add(batch)

    def finish(self) -> None:
        """Bring all of the picture up to date."""
        with self.lock:
            self.pyramid.finish()


def begun(target: int, sample: Sequence[RegionBatch], span: tuple[int, int], rows: int, targets: int) -> Drawn:
    """An empty one; the addresses are chosen by a sample of its snapshots (at least one region)."""
    focus = survey(sample)
    assert focus is not None
    snapshots = rows // max(sum(len(batch.start) for batch in sample) // max(sum(map(len, sample)), 1), 1)
    cells = CELLS if targets <= 4 else CELLS // 2
    pyramid = planned(axis_of(focus, cells), span, rows, max(snapshots, 2048), targets)
    return Drawn(target, pyramid, Curves(span[0], span[1] - span[0]))


def outside(axis: Axis, last: RegionBatch) -> float:
    """The share (0..1) of the memory of a snapshot that lies where the axis has no cells."""
    covered = np.concatenate([np.zeros(1), np.cumsum((axis.end - axis.start).astype(np.float64))])

    def below(address: NDArray[np.uint64]) -> NDArray[np.float64]:
        place = np.searchsorted(axis.start, address, "right") - 1
        inside = np.minimum(address, axis.end[place]) - axis.start[place]
        found: NDArray[np.float64] = np.where(place < 0, 0.0, covered[place] + inside.astype(np.float64))
        return found

    memory = last.memory.astype(np.float64)
    share = 1 - (below(last.end) - below(last.start)) / (last.end - last.start).astype(np.float64)
    return float((memory * share).sum() / max(memory.sum(), 1.0))


def told(drawn: Drawn, mappings: Sequence[Mapping]) -> dict[str, Any]:
    """What the page needs to draw the target: addresses as text, for a number of JavaScript does not hold them."""
    names = MappingNames(mappings)
    with drawn.lock:
        return _told(drawn, mappings, names)


def _told(drawn: Drawn, mappings: Sequence[Mapping], names: MappingNames) -> dict[str, Any]:
    pyramid = drawn.pyramid
    axis = pyramid.axis
    return {
        "target": drawn.target,
        "column_ns": pyramid.column_ns,
        "columns": pyramid.columns,
        "levels": len(pyramid.levels),
        "rows": pyramid.rows,
        "end_ns": pyramid.end_ns - pyramid.start_ns,
        "cells": len(axis),
        "pieces": [
            {
                "start": hex(piece.start),
                "end": hex(piece.end),
                "width": int(axis.end[piece.first] - axis.start[piece.first]),
                "first": piece.first,
                "behind": piece.behind,
                "name": printable(short_list(names.of(piece.start, piece.end))),
            }
            for piece in axis.pieces
        ],
        "mappings": _merged(mappings),
        "curves": _curves(drawn.curves),
    }


def _merged(mappings: Sequence[Mapping]) -> list[list[str]]:
    """(start, end, name) of neighbours of one name, of at most so many; the largest."""
    rows = sorted({(m.start, m.end, mapping_name(m)) for m in mappings})
    found: list[tuple[int, int, str]] = []
    for start, end, name in rows:
        if found and found[-1][2] == name and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), name)
        else:
            found.append((start, end, name))
    kept = sorted(found, key=lambda row: row[0] - row[1])[:_MOST_MAPPINGS]
    return [[hex(start), hex(end), printable(name)] for start, end, name in sorted(kept)]


def _curves(curves: Curves) -> dict[str, Any]:
    sizes = curves.sizes()
    middle = (sizes.time_ns[:-1] + sizes.time_ns[1:]) / 2 - curves.start_ns
    return {
        "time_s": (middle / 1e9).round(6).tolist(),
        "used": plain(sizes.used),
        "least": plain(sizes.used_least),
        "most": plain(sizes.used_most),
        "memory": plain(sizes.memory),
        "unknown": plain(sizes.unknown),
        "cold_s": list(COLD_S),
        "cold": [plain(row) for row in sizes.cold],
    }


def plain(values: NDArray[np.float64]) -> list[int | None]:
    """Bytes as whole numbers, what is not known as null."""
    return [None if math.isnan(value) else round(value) for value in values.tolist()]


def footprint(rows: Sequence[dict[str, Any]], start_ns: int) -> dict[str, Any]:
    """The size of the process over time, from rows of that side table; thinned to what can be drawn."""
    some = rows[:: len(rows) // _MOST_POINTS + 1]
    return {
        "time_s": [round((row["time_ns"] - start_ns) / 1e9, 6) for row in some],
        "resident": [row["resident_bytes"] for row in some],
        "swap": [row["swap_bytes"] for row in some],
    }


def panel(looks: Sequence[Look], start_ns: int) -> dict[str, Any] | None:
    """What the page panel says: used within 10 s over time, and idle for how long at the last look; with errors."""
    if not looks:
        return None
    some = looks[:: len(looks) // _MOST_POINTS + 1]
    found = [(look, used_within([look], _PANEL_S)) for look in some]
    idle = []
    for bound_s in BOUNDS_S[1:]:
        used = used_within(looks[-1:], bound_s)
        if used is not None:
            rest = used.of_rest(looks[-1].resident_bytes)
            idle.append([bound_s, rest.bytes, rest.half_width_bytes])
    return {
        "window_s": _PANEL_S,
        "time_s": [round((look.time_ns - start_ns) / 1e9, 6) for look, _ in found],
        "used": [one and one.bytes for _, one in found],
        "error": [one and one.half_width_bytes for _, one in found],
        "idle": idle,
    }


def regions(snapshot: Snapshot, start_ns: int) -> dict[str, Any]:
    """The regions of one snapshot: [start, end, heat 0..1, not accessed for s (-1: accessed), bytes of memory]."""
    batch = RegionBatch.of([snapshot])
    heat = batch.nr_accesses / np.repeat(batch.max_nr_accesses, batch.counts)
    columns = (batch.start, batch.end, heat.round(4), unaccessed_s(batch).round(3), batch.memory)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "start_ns": snapshot.start_ns - start_ns,
        "end_ns": snapshot.end_ns - start_ns,
        "regions": [[hex(start), hex(end), *rest] for start, end, *rest in rows],
    }


def held_by_mapping(
    snapshots: Sequence[Snapshot], mappings: Sequence[Mapping], low: int, high: int
) -> list[dict[str, Any]]:
    """What the mappings hold in [low, high), the largest first: the mean over these snapshots, in bytes."""
    sums: dict[tuple[str, str], NDArray[np.float64]] = {}
    for snapshot in snapshots:
        batch = clip(RegionBatch.of([snapshot]), low, high)
        if not len(batch):
            continue
        for one in holdings(batch.snapshot(0), mappings):
            amounts = np.array([one.hot, one.warm, one.cold, one.unknown], np.float64)
            sums[one.name, one.kind] = sums.get((one.name, one.kind), np.zeros(4)) + amounts
    order = sorted(sums, key=lambda key: -float(sums[key].sum()))
    rows = []
    for name, kind in order:
        hot, warm, cold, unknown = (round(size) for size in (sums[name, kind] / len(snapshots)).tolist())
        rows.append({"name": printable(name), "kind": kind, "hot": hot, "warm": warm, "cold": cold, "unknown": unknown})
    return rows


def moments(span: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """So many times of equal length, or fewer."""
    edges = distinct(np.linspace(span[0], max(span[1], span[0] + 1), count + 1).astype(np.int64))
    return list(pairwise(edges.tolist()))
