"""How much memory has an attribute, in numbers that can be computed by hand, and the side table it is read from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from msgspec.structs import replace
from tests.unit.records.record_samples import AGGR_NS, snapshot

from pydamon.analysis.attributes import AttributeShare, attribute_shares
from pydamon.records.framing import BadMessage
from pydamon.records.hits import ProbedRegions, cut, hits_table, of_snapshot, probed_regions
from pydamon.records.side_tables import conform

MIB = 1 << 20


def probed(number: int, hits: list[list[int]], target: int = 0, samples: tuple[int, int] = (20, 20)) -> ProbedRegions:
    """3 MiB: one accessed in every sample, two idle; of probes called a, b, …"""
    regions = [(0, MIB, 20, 1), (MIB, 3 * MIB, 0, 9)]
    counted = {"probe_hits": np.array(hits, np.uint32), "probe_samples": np.array(samples, np.uint32)}
    return of_snapshot(snapshot(number, regions, target=target).replace(**counted), "abcd"[: len(hits)])


def shares(*parts: ProbedRegions) -> list[AttributeShare]:
    return attribute_shares(probed_regions(hits_table(parts)))


def test_bytes_count_with_the_share_of_their_samples() -> None:
    # First probe: all of the accessed MiB, then half of it; a quarter of the two idle ones, then none of them.
    assert shares(probed(0, [[20, 5], [0, 20]]), probed(1, [[10, 0], [0, 20]])) == [
        AttributeShare(0, "a", 2, MIB * 3 // 4, MIB, MIB // 4, 2 * MIB),
        AttributeShare(0, "b", 2, 0, MIB, 2 * MIB, 2 * MIB),
    ]


def test_only_what_was_asked_counts() -> None:
    # 5 of 10 samples of the accessed MiB; the idle ones have just joined, and no sample of them was asked.
    assert shares(probed(0, [[5, 0]], samples=(10, 0))) == [AttributeShare(0, "a", 1, MIB // 2, MIB, 0, 0)]


def test_targets_are_told_apart_and_attributes_go_by_their_names() -> None:
    other = replace(probed(1, [[20, 20]]), attributes=("z",))
    found = shares(probed(0, [[20, 20]]), probed(0, [[0, 0]], target=1), other)
    assert [(share.target, share.attribute, share.snapshots, share.idle_bytes) for share in found] == [
        (0, "a", 1, 2 * MIB),
        (0, "z", 1, 2 * MIB),
        (1, "a", 1, 0),
    ]


def test_the_table_gives_back_what_was_put_in() -> None:
    one = probed(0, [[20, 5], [0, 7]])
    (part,) = probed_regions(hits_table([one]))
    assert (part.time_ns, part.duration_ns, part.target, part.attributes) == (one.time_ns, AGGR_NS, 0, ("a", "b"))
    for name in ("start", "end", "nr_accesses", "age", "samples", "hits"):
        assert getattr(part, name).tolist() == getattr(one, name).tolist()


def test_addresses_are_cut_out_of_it() -> None:
    piece = cut(hits_table([probed(0, [[20, 5], [0, 7]])]), MIB // 2, 2 * MIB)
    (part,) = probed_regions(piece)
    assert (part.start.tolist(), part.end.tolist()) == ([MIB // 2, MIB], [MIB, 2 * MIB])
    assert part.hits.tolist() == [[20, 5], [0, 7]]
    assert cut(piece, 4 * MIB, 5 * MIB).num_rows == 0


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
        ("end", [0, 0, 0, 0, MIB, 3 * MIB, MIB, 3 * MIB]),
    ],
)
def test_a_damaged_snapshot_is_left_out(name: str, values: list[int]) -> None:
    (part,) = probed_regions(changed(name, values))
    assert part.hits.tolist() == [[1, 2], [3, 4]]


def test_another_table_is_no_hits() -> None:
    for other in (pa.table({"time_ns": [1]}), hits_table([probed(0, [[1, 1]])]).drop_columns("attribute")):
        with pytest.raises(BadMessage):
            conform("probe_hits", other)
    assert list(probed_regions(hits_table([probed(0, [[1, 1]])]).slice(0, 0))) == []
