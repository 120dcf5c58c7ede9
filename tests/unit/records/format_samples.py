"""Recordings of other tools, made up: text of ``perf script`` and ``trace-cmd report``, records of damo."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.records.record_samples import Region

from pydamon.records.formats.foreign import Hints
from pydamon.records.joined import open_record

AGGR_NS = 100_000_000
# One snapshot: target id, end in ns, regions.
Made = tuple[int, int, Sequence[Region]]

STYLES = {
    "perf": "kdamond.0  4452 [000] {time}: damon:damon_aggregated: ",
    "perf, time only": "{time}: damon:damon_aggregated: ",
    "ftrace": "       kdamond.0-58      [001] .....   {time}: damon_aggregated: ",
    "trace-cmd": "       kdamond.0-58    [001] {time}: damon_aggregated:     ",
    "name like an event": "damon_aggregated: target_id=4 58 [001] {time}: damon:damon_aggregated: ",
    "name with blanks": "my thread: 1.5 x 58 [001] {time}: damon:damon_aggregated: ",
}


def line(snapshot: Made, region: Region, *, style: str = "perf", age: bool = True, micros: int = 0) -> str:
    """One region as a line, its time so many microseconds after the snapshot's."""
    target, end_ns, regions = snapshot
    second, rest = divmod(end_ns + 1000 * micros, 10**9)
    time = f"{second:5d}.{rest:09d}" if rest % 1000 else f"{second:5d}.{rest // 1000:06d}"
    start, end, nr, old = region
    text = STYLES[style].format(time=time)
    return f"{text}target_id={target} nr_regions={len(regions)} {start}-{end}: {nr}" + (f" {old}\n" if age else "\n")


def trace_text(snapshots: Iterable[Made], *, style: str = "perf", age: bool = True, spread: bool = False) -> str:
    """All regions; ``spread``: each line a microsecond after the one before, as in a real trace."""
    return "".join(
        line(one, region, style=style, age=age, micros=number if spread else 0)
        for one in snapshots
        for number, region in enumerate(one[2])
    )


def some(count: int, *, target: int = 0, regions: int = 3, first_ns: int = 5_100_000_000, seed: int = 1) -> list[Made]:
    """So many snapshots, 100 ms apart, of regions that change."""
    rng = np.random.default_rng(seed)
    found: list[Made] = []
    for number in range(count):
        cuts = np.sort(rng.choice(np.arange(1, 1 << 20), 2 * regions, replace=False)) * 4096 + 0x7F00_0000_0000
        rows = [
            (int(cuts[2 * i]), int(cuts[2 * i + 1]), int(rng.integers(0, 21)), int(rng.integers(0, 1000)))
            for i in range(regions)
        ]
        found.append((target, first_ns + number * AGGR_NS, rows))
    return found


def damo_object(snapshots: Sequence[Made], **changes: Any) -> dict[str, Any]:
    """What damo writes for one target, with raw numbers."""
    return {
        "kdamond_idx": 0,
        "context_idx": 0,
        "intervals": {"sample_us": "5000", "aggr_us": "100000", "ops_update_us": "1000000"},
        "scheme_idx": None,
        "target_id": snapshots[0][0] if snapshots else 0,
        "scheme_filters": [],
        "snapshots": [
            {
                "start_time": str(end_ns - AGGR_NS),
                "end_time": str(end_ns),
                "regions": [
                    {
                        "start": str(start),
                        "end": str(end),
                        "nr_accesses": {"samples": nr, "percent": None},
                        "age": {"usec": None, "aggr_intervals": age},
                        "sz_filter_passed": "0",
                    }
                    for start, end, nr, age in regions
                ],
                "total_bytes": str(sum(region[1] - region[0] for region in regions)),
                "damos_stats": None,
            }
            for _, end_ns, regions in snapshots
        ],
    } | changes


def damo_record(*objects: dict[str, Any], indent: int | None = 4, packed: bool = True) -> bytes:
    """A whole record of damo."""
    text = json.dumps(list(objects), indent=indent).encode()
    return zlib.compress(text) if packed else text


def put(path: Path, content: str | bytes) -> Path:
    """The file, written."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


Read = list[tuple[int, int, int, list[Region]]]


def read(path: Path, **hints: Any) -> Read:
    """(target, start, end, regions) of each snapshot that is read from the file."""
    with open_record(str(path), hints=Hints(**hints)) as reader:
        return [_plain(one) for one in reader.snapshots()]


def _plain(one: Any) -> tuple[int, int, int, list[Region]]:
    columns = (one.start, one.end, one.nr_accesses, one.age)
    return one.target, one.start_ns, one.end_ns, list(zip(*(c.tolist() for c in columns), strict=True))


def read_with_warnings(path: Path, **hints: Any) -> tuple[Read, list[str]]:
    """As `read`, and what the reader says about it without the file's name."""
    with open_record(str(path), hints=Hints(**hints)) as reader:
        found = [_plain(one) for one in reader.snapshots()]
        return found, [text.partition(": ")[2] for text in reader.warnings()]


def expected(snapshots: Sequence[Made], *, age: bool = True) -> Read:
    """What must be read of consecutive snapshots of one target, the first as long as the second."""
    return [
        (0, end_ns - AGGR_NS, end_ns, [(s, e, nr, old if age else 0) for s, e, nr, old in regions])
        for _, end_ns, regions in snapshots
    ]
