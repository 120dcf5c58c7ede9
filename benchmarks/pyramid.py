"""What the heat pyramid of a large record costs: building it beside one heatmap pass, and each tile of it.

Of a record of 500 regions a snapshot, as `benchmarks reports` makes them (36 M rows unless asked otherwise). Times are
of this process, the least of some runs: elapsed and CPU time, which a busy machine disturbs less; of tiles it is CPU
time. Tiles are drawn at random from all levels, those beyond the finest included, which are worked out from the record.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.reports import REGIONS, add_record_options, least, record_of
from pydamon.analysis.focus import survey
from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.analysis.pyramid import FINER, TILE, Axis, Pyramid, axis_of, divided_cells, exact, planned
from pydamon.records.reader import RecordReader

GRID = (600, 400)  # of the picture that `report heatmap -o` draws


def _axis(reader: RecordReader) -> Axis:
    focus = survey(list(reader.batches(columns=(), sample_rows=1 << 16)))
    assert focus is not None
    return axis_of(focus)


def heatmap_pass(reader: RecordReader) -> None:
    """All rows into the cells of one picture."""
    span = reader.time_range()
    assert span is not None
    axis = _axis(reader)
    times = np.linspace(*span, GRID[0] + 1).astype(np.int64)
    address = np.linspace(int(axis.start[0]), int(axis.end[-1]), GRID[1] + 1).astype(np.uint64)
    accumulator = HeatAccumulator(times, address)
    for batch in reader.batches(columns=()):
        accumulator.add(batch)
    accumulator.heatmap(0)


def build(reader: RecordReader) -> Pyramid:
    """The pyramid of a record of one target."""
    span = reader.time_range()
    assert span is not None
    pyramid = planned(_axis(reader), span, reader.rows, reader.rows // REGIONS)
    for batch in reader.batches(columns=()):
        pyramid.add(batch)
    pyramid.finish()
    return pyramid


def tile_times(reader: RecordReader, pyramid: Pyramid, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of tiles of the levels, and of tiles that are worked out from the record."""
    rng = np.random.default_rng(2)
    held, worked_out = [], []
    for _ in range(count):
        level, shrink = int(rng.integers(len(pyramid.levels))), int(rng.integers(2))
        column = int(rng.integers(max(len(pyramid.levels[level]) // TILE, 1)))
        began = time.process_time()
        pyramid.tile(level, shrink, column, 0)
        held.append((time.process_time() - began) * 1e3)
        finer, stretch = FINER + int(rng.integers(3)), int(rng.integers(3))
        width = pyramid.column_ns >> finer
        first = (
            pyramid.start_ns + int(rng.integers((pyramid.end_ns - pyramid.start_ns) // width // TILE)) * TILE * width
        )
        times = first + np.arange(TILE + 1, dtype=np.int64) * width
        began = time.process_time()
        cells = divided_cells(pyramid.axis, 0, stretch)
        exact(reader.batches(columns=(), between=(int(times[0]), int(times[-1]))), times, *cells)
        worked_out.append((time.process_time() - began) * 1e3)
    return held, worked_out


def _print_tiles(what: str, found: list[float]) -> None:
    middle, late = np.percentile(found, [50, 99])
    print(f"tiles {what:38} median {middle:6.2f} ms, 99 % {late:6.2f} ms, most {max(found):6.2f} ms  (aim 30)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks pyramid", description=__doc__.splitlines()[0])
    add_record_options(parser)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with record_of(options) as path, RecordReader(path) as reader:
        print(f"\n== heat pyramid of a record of {reader.rows / 1e6:.1f} M rows, {reader.file_bytes / 1e6:.0f} MB")
        passed = least(lambda: heatmap_pass(reader), options.repeat)
        built = least(lambda: build(reader), options.repeat)
        pyramid = build(reader)
        print(f"one heatmap pass                {passed[0]:6.2f} s {passed[1]:6.2f} s CPU")
        ratios = f"{built[0] / passed[0]:.2f} x elapsed, {built[1] / passed[1]:.2f} x CPU (aim 1.5)"
        print(f"building the pyramid            {built[0]:6.2f} s {built[1]:6.2f} s CPU  {ratios}")
        shape = f"{pyramid.columns:,} columns of {pyramid.column_ns / 1e9:.3g} s x {len(pyramid.axis)} cells"
        print(f"finest level: {shape}, {len(pyramid.levels)} levels, {sum(p.nbytes for p in pyramid.levels):,} bytes")
        reader.frame_times()
        held, worked_out = tile_times(reader, pyramid, 200)
        _print_tiles("of the levels", held)
        _print_tiles("finer ones, from the record", worked_out)


if __name__ == "__main__":
    main()
