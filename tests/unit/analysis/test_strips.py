"""Where the memory of mappings is hot, in a few cells."""

from __future__ import annotations

import numpy as np
from tests.unit.top.seen_one import MAPPINGS, snapshot

from pydamon.analysis.strips import UNKNOWN, strips
from pydamon.analysis.summary import Layout

SECOND = 1_000_000_000


def test_each_cell_has_its_part_of_the_memory_of_a_mapping() -> None:
    found = {name: strip.tolist() for (name, _), strip in strips(snapshot(0, SECOND), Layout(MAPPINGS), 12).items()}
    # Of 48 MiB of heap 16 are found accessed in each sample, 12 in a quarter of them, 20 were idle for 40 s; a cell is
    # 4 MiB. The library was used 4 s ago; the pool cannot be watched.
    assert found["[heap]"] == [4] * 4 + [2] * 3 + [0] * 5
    assert [strip for name, strip in found.items() if "evil" in name] == [[1] * 12]
    assert found["pool"] == [UNKNOWN] * 12
    assert len(found) == 3


def test_a_cell_over_several_regions_is_their_mean() -> None:
    (heap,) = (
        strip for (name, _), strip in strips(snapshot(0, SECOND), Layout(MAPPINGS), 2).items() if name == "[heap]"
    )
    # The first 24 of 48 MiB: 16 always, 8 in a quarter of the samples: 75 %. The others: 4 of 24 in a quarter.
    assert heap.tolist() == [4, 2]
    assert heap.dtype == np.int8
