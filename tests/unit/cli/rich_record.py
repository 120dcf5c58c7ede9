"""A record with all side tables, whose reports can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.records.record_samples import AGGR_NS, START_NS, mapping, metadata, snapshot

from pydamon.records.hits import ProbedRegions, hits_table, of_snapshot
from pydamon.records.writer import RecordWriter

MIB = 1 << 20
HEAP = 0x55D0C0A00000
SECOND = 10**9


def rich(path: Path, *, seconds: int = 3, base: int = HEAP, pid: int = 1234, ticks: int = 777) -> Path:
    """``seconds`` of 10 snapshots each: a MiB always hot, one hot in every second snapshot, two idle since the start.

    Side tables once a second: footprint (8 MiB resident), cost (5 % of a CPU), a scheme that pages out 1 MiB.
    Two probes: the first has all samples of the hot MiB and half of the next, the second all of the other two regions.
    """
    about = metadata(pid)
    about["targets"][0]["start_ticks"] = ticks
    about["machine"]["swap_bytes"] = 1 << 30
    with RecordWriter(path, metadata=about) as writer:
        maps = [mapping(base, base + 2 * MIB, "[heap]"), mapping(base + 2 * MIB, base + 4 * MIB, "/usr/lib/libx.so.1")]
        writer.add_mappings(START_NS, 0, maps)
        probed: list[ProbedRegions] = []
        for number in range(10 * seconds):
            odd = number % 2
            regions = [
                (base, base + MIB, 20, number),
                (base + MIB, base + 2 * MIB, 10 * odd, 0),
                (base + 2 * MIB, base + 4 * MIB, 0, number),
            ]
            one = snapshot(number, regions)
            writer.add_snapshot(one)
            hits, samples = np.array([[20, 10, 0], [0, 20, 20]], np.uint32), np.full(3, 20, np.uint32)
            probed.append(of_snapshot(one.replace(probe_hits=hits, probe_samples=samples), ("first", "second")))
            if number % 10 == 9:
                _side_tables(writer, START_NS + (number + 1) * AGGR_NS, number // 10 + 1, base)
                writer.add_table("probe_hits", hits_table(probed), time_ns=one.end_ns)
                probed.clear()
    return path


def _side_tables(writer: RecordWriter, now_ns: int, second: int, base: int) -> None:
    sizes = {"virtual_bytes": 64 * MIB, "resident_bytes": 8 * MIB, "swap_bytes": second * 4096}
    writer.add_rows("footprint", [{"time_ns": now_ns, "target": 0, **sizes}], time_ns=now_ns)
    cost: dict[str, Any] = {"time_ns": now_ns, "cpu_ns": second * SECOND // 20}
    cost |= {"checks": 2000 * second, "check_ns": second * SECOND // 50}
    cost |= {"clears": 200 * second, "clear_ns": second * SECOND // 100, "disturb_ns": second * SECOND // 200}
    writer.add_rows("cost", [cost], time_ns=now_ns)
    counted = {"mbm_total_bytes": second * 3 * MIB, "mbm_local_bytes": 0, "llc_occupancy_bytes": 2 * MIB}
    writer.add_rows("resctrl", [{"time_ns": now_ns, "target": 0, "group": "g", "domain": 0, **counted}], time_ns=now_ns)
    row = {"time_ns": now_ns, "scheme": 0, "name": "reclaim", "action": "pageout", "active": second > 1}
    row |= {"nr_tried": 2 * second, "sz_tried": 2 * second * MIB, "nr_applied": second, "sz_applied": second * MIB}
    row |= {"sz_ops_filter_passed": 2 * second * MIB, "qt_exceeds": 0, "nr_snapshots": second, "effective_bytes": MIB}
    writer.add_rows("schemes", [row], time_ns=now_ns)
    tried = {"time_ns": now_ns, "scheme": 0, "target": 0, "start": base + 2 * MIB, "end": base + (2 + second) * MIB}
    tried |= {"nr_accesses": 0, "age": 10 * second - 1, "sz_applied": MIB, "sz_filter_passed": second * MIB}
    writer.add_rows("tried_regions", [tried], time_ns=now_ns)
