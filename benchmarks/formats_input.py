"""Makes the large inputs of ``benchmarks.formats``: a recording as ``perf script`` prints it, as our record and damo's.

    python -m benchmarks.formats_input SNAPSHOTS FILE.perf FILE.damon FILE.json.z     ("-" leaves one out)

6,000 snapshots of 500 regions are 3.0 million rows, about 394 MB of text; 72,000 are an hour, 36 million rows. Regions
move, heat and age from snapshot to snapshot, from a fixed seed.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from pydamon.core.snapshot import Snapshot

REGIONS = 500
BASE = 0x7F3B00000000
PAGES = 1 << 18
PAGE = 4096
AGGR_NS = 100_000_000


def snapshots(count: int, regions: int = REGIONS, seed: int = 1) -> Iterator[Snapshot]:
    """So many snapshots of one target, 100 ms each, sampled every 5 ms."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, PAGES), regions - 1, replace=False))
    accesses, age = rng.integers(0, 21, regions), rng.integers(0, 100, regions)
    few = max(regions // 20, 1)
    for number in range(count):
        moved = cuts.copy()
        moved[rng.integers(0, regions - 1, few)] += rng.integers(-3, 4, few)
        moved = np.unique(np.clip(moved, 1, PAGES - 1))
        while len(moved) < regions - 1:
            moved = np.unique(np.append(moved, rng.integers(1, PAGES, regions - 1 - len(moved))))
        cuts = moved
        bounds = np.concatenate([[0], cuts, [PAGES]]).astype(np.uint64) * np.uint64(PAGE) + np.uint64(BASE)
        changed = rng.integers(0, regions, 2 * few)
        accesses[changed] = rng.integers(0, 21, 2 * few)
        age += 1
        age[changed] = 0
        start_ns = 82_000_000_000_000 + number * AGGR_NS
        yield Snapshot(
            0,
            start_ns,
            start_ns + AGGR_NS,
            5_000,
            100_000,
            bounds[:-1],
            bounds[1:],
            accesses.astype(np.uint32),
            age.astype(np.uint32),
        )


def perf_script(snapshot: Snapshot, *, target_id: int = 18446623435582458880, age: bool = True) -> str:
    """What ``perf script`` prints of one snapshot."""
    second, nanosecond = divmod(snapshot.end_ns, 10**9)
    head = f"kdamond.0  4452 [000] {second:5d}.{nanosecond // 1000:06d}: damon:damon_aggregated: target_id={target_id}"
    head += f" nr_regions={len(snapshot.start)} "
    columns = (snapshot.start, snapshot.end, snapshot.nr_accesses, snapshot.age)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    if not age:
        return "".join([f"{head}{start}-{end}: {nr}\n" for start, end, nr, _ in rows])
    return "".join([f"{head}{start}-{end}: {nr} {age}\n" for start, end, nr, age in rows])


def damo_json(snapshot: Snapshot) -> str:
    """One snapshot in the layout of damo's records, as it writes them: one value a line."""
    columns = (snapshot.start, snapshot.end, snapshot.nr_accesses, snapshot.age)
    inner = ",\n".join(
        [
            f"""                    {{
                        "start": "{start}",
                        "end": "{end}",
                        "nr_accesses": {{
                            "samples": {nr},
                            "percent": null
                        }},
                        "age": {{
                            "usec": null,
                            "aggr_intervals": {age}
                        }},
                        "sz_filter_passed": "0"
                    }}"""
            for start, end, nr, age in zip(*(column.tolist() for column in columns), strict=True)
        ]
    )
    total = int((snapshot.end - snapshot.start).sum())
    return f"""            {{
                "start_time": "{snapshot.start_ns}",
                "end_time": "{snapshot.end_ns}",
                "regions": [
{inner}
                ],
                "total_bytes": "{total}",
                "damos_stats": null
            }}"""


DAMO_HEAD = """[
    {
        "kdamond_idx": 0,
        "context_idx": 0,
        "intervals": {
            "sample_us": "5000",
            "aggr_us": "100000",
            "ops_update_us": "1000000"
        },
        "scheme_idx": null,
        "target_id": 18446623435582458880,
        "scheme_filters": [],
        "snapshots": [
"""
DAMO_TAIL = """
        ]
    }
]"""


class _Damo:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packer = zlib.compressobj(1)
        self._separator = DAMO_HEAD

    def add(self, snapshot: Snapshot) -> None:
        self._file.write(self._packer.compress((self._separator + damo_json(snapshot)).encode()))
        self._separator = ",\n"

    def end(self) -> None:
        self._file.write(self._packer.compress(DAMO_TAIL.encode()) + self._packer.flush())


def make(count: int, text: str = "-", record: str = "-", damo: str = "-", *, regions: int = REGIONS) -> None:
    """Write the recording to those of the files that are not ``-``."""
    from contextlib import ExitStack

    from pydamon.records.schema import build_metadata
    from pydamon.records.writer import RecordWriter

    with ExitStack() as stack:
        lines = stack.enter_context(open(text, "w", buffering=1 << 20)) if text != "-" else None
        packed = _Damo(stack.enter_context(open(damo, "wb"))) if damo != "-" else None
        metadata = build_metadata(targets=[{"target": 0, "pid": 4711, "command": "made_up"}], ops="vaddr")
        writer = stack.enter_context(RecordWriter(record, metadata=metadata)) if record != "-" else None
        for snapshot in snapshots(count, regions):
            if lines is not None:
                lines.write(perf_script(snapshot))
            if writer is not None:
                writer.add_snapshot(snapshot)
            if packed is not None:
                packed.add(snapshot)
        if packed is not None:
            packed.end()


if __name__ == "__main__":
    make(int(sys.argv[1]), *sys.argv[2:5])
