"""How much memory has an attribute, in numbers that can be computed by hand, and the side table it is read from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.attributes import AttributeShare, attribute_shares
from pydamon.records.hits import hits_table, probed_regions

MIB = 1 << 20


def probed(number: int, hits: list[list[int]], target: int = 0):
    """3 MiB: one accessed in every sample, two idle."""
    regions = [(0, MIB, 20, 1), (MIB, 3 * MIB, 0, 9)]
    return replace(snapshot(number, regions, target=target), probe_hits=np.array(hits, np.uint32))


def test_bytes_count_with_the_share_of_their_samples() -> None:
    # First probe: all of the accessed MiB, then half of it; a quarter of the two idle ones, then none of them.
    table = hits_table([probed(0, [[20, 5], [0, 20]]), probed(1, [[10, 0], [0, 20]])])
    assert attribute_shares(probed_regions(table)) == [
        AttributeShare(0, 0, 2, MIB * 3 // 4, MIB, MIB // 4, 2 * MIB),
        AttributeShare(0, 1, 2, 0, MIB, 2 * MIB, 2 * MIB),
    ]


def test_targets_are_told_apart() -> None:
    table = hits_table([probed(0, [[20, 20]]), probed(0, [[0, 0]], target=1)])
    shares = attribute_shares(probed_regions(table))
    assert [(share.target, share.accessed_bytes, share.idle_bytes) for share in shares] == [
        (0, MIB, 2 * MIB),
        (1, 0, 0),
    ]


def test_the_table_gives_back_what_was_put_in() -> None:
    one = probed(0, [[20, 5], [0, 7]])
    (part,) = probed_regions(hits_table([one]))
    assert (part.time_ns, part.target, part.samples) == (one.end_ns, 0, 20)
    assert part.hits.tolist() == [[20, 5], [0, 7]]
    for name in ("start", "end", "nr_accesses", "age"):
        assert getattr(part, name).tolist() == getattr(one, name).tolist()


def changed(name: str, values: list[int]) -> pa.Table:
    table = hits_table([probed(0, [[20, 5], [0, 7]]), probed(1, [[1, 2], [3, 4]])])
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("probe", [0, 0, 1, 2, 0, 0, 1, 1]),  # not as many regions of each probe
        ("probe", [1, 1, 0, 0, 0, 0, 1, 1]),
        ("hits", [20, 21, 0, 7, 1, 2, 3, 4]),  # more hits than samples
        ("samples", [0, 0, 0, 0, 20, 20, 20, 20]),
    ],
)
def test_a_damaged_snapshot_is_left_out(name: str, values: list[int]) -> None:
    (part,) = probed_regions(changed(name, values))
    assert part.hits.tolist() == [[1, 2], [3, 4]]


def test_another_table_is_no_hits() -> None:
    assert list(probed_regions(pa.table({"time_ns": [1]}))) == []
    assert list(probed_regions(hits_table([probed(0, [[1, 1]])]).slice(0, 0))) == []
