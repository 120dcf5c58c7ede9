"""Pages of the kernel's ring buffer: one that a kernel has written, and those that nobody should write."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.linux.damon_trace import parse_format, parse_page

# One page of per_cpu/cpu1/trace_pipe_raw with damon_aggregated events of a kdamond with the id 91, and the event's
# format, as Linux 6.12.117 in the guest lab gave them.
PAGE = zlib.decompress(
    base64.b85decode(
        "c-ph+{d|;_fq_AVnE?#qxL8;ifiw>ghXNVV3<$sjV=P#6qA3(e3n-lg(?FmN#AnX1;no9F`(YZ2o}RCG?18Cm;68<{$EOyL9+=vKCR9C5c=W*3e)xo<M<)-T+n{PUWS&N`rx=eOnA#7wh}Q#CJHh`9iXMD!gQ;CG2Sv}CQapMDCTpy%2hm)bU>XR7357LGt${aO4<AUr9FHD`OX2^(_FRF`P`BlL`1g;L^ri#EZ-QA#N^c-NXO@$e-avY6QQSWYM!_f;1*2dTjDk@x3P!;w7zINU008SZZFm"
    )
)
FORMAT = """name: damon_aggregated
ID: 341
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long target_id;	offset:8;	size:8;	signed:0;
	field:unsigned int nr_regions;	offset:16;	size:4;	signed:0;
	field:unsigned long start;	offset:24;	size:8;	signed:0;
	field:unsigned long end;	offset:32;	size:8;	signed:0;
	field:unsigned int nr_accesses;	offset:40;	size:4;	signed:0;
	field:unsigned int age;	offset:44;	size:4;	signed:0;

print fmt: "target_id=%lu nr_regions=%u %lu-%lu: %u %u", REC->target_id, REC->nr_regions
"""


def test_a_page_that_a_kernel_has_written() -> None:
    page = parse_page(PAGE)
    layout = parse_format(FORMAT)
    places, rows = page.rows[layout.number]
    events = np.ascontiguousarray(rows[:, : layout.dtype.itemsize]).view(layout.dtype)[:, 0]
    assert layout.number == 341
    assert len(page.times) == len(events) == len(places) == 15
    assert page.lost == 0
    assert set(events["common_pid"].tolist()) == {91}
    assert (np.diff(page.times) >= 0).all()
    # The whole snapshot of 12 regions, and the first three of the next one, a generation older.
    assert set(events["nr_regions"].tolist()) == {12}
    assert events["age"].tolist() == [43] * 9 + [19, 14, 43] + [44] * 3
    assert (events["start"] < events["end"]).all()
    assert (events["nr_accesses"] <= 20).all()  # 5 ms samples, 100 ms aggregations


def _header(kind: int, delta: int) -> bytes:
    return struct.pack("<I", delta << 5 | kind)


def _event(number: int, size: int, delta: int) -> bytes:
    """An event of ``size`` bytes, a multiple of 4 up to 112."""
    return _header(size // 4, delta) + struct.pack("<HH", number, 0) + bytes(size - 4)


def _page(*events: bytes, time: int = 1000, flags: int = 0, behind: bytes = b"") -> bytes:
    data = b"".join(events)
    return struct.pack("<QQ", time, len(data) | flags) + data + behind


def test_times_are_sums_of_deltas_and_may_be_extended_or_given_anew() -> None:
    extend = _header(30, 5) + struct.pack("<I", 1)  # 5 + 1 << 27
    stamp = _header(31, 7) + struct.pack("<I", 2)
    page = parse_page(
        _page(_event(1, 8, 10), _event(1, 8, 1), extend, _event(2, 12, 0), stamp, _event(1, 8, 3), time=1000)
    )
    later = 1011 + 5 + (1 << 27)
    assert page.times.tolist() == [1010, 1011, later, 7 + (2 << 27) + 3]
    assert page.rows[1][0].tolist() == [0, 1, 3]
    assert page.rows[2][0].tolist() == [2]


def test_discarded_events_and_large_ones_take_their_time_but_no_place() -> None:
    discarded = _header(29, 4) + struct.pack("<I", 12) + bytes(8)
    large = _header(0, 2) + struct.pack("<I", 124) + struct.pack("<HH", 9, 0) + bytes(116)
    page = parse_page(_page(_event(1, 8, 1), discarded, large, _event(1, 8, 1), _header(29, 0)))
    assert page.times.tolist() == [1001, 1007, 1008]
    assert page.rows[9][0].tolist() == [1]
    assert page.rows[1][0].tolist() == [0, 2]


def test_lost_events_are_counted_where_the_page_says_so() -> None:
    missed, stored = 1 << 31, 1 << 30
    assert parse_page(_page(_event(1, 8, 1))).lost == 0
    assert parse_page(_page(_event(1, 8, 1), flags=missed)).lost == -1
    assert parse_page(_page(_event(1, 8, 1), flags=missed | stored, behind=struct.pack("<Q", 37))).lost == 37


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_page_is_more_than_refused(data: bytes, used: int) -> None:
    try:
        page = parse_page(struct.pack("<QQ", 0, used) + data)
    except ValueError:
        return
    assert sum(len(places) for places, _ in page.rows.values()) <= len(page.times)


@pytest.mark.parametrize("text", ["", "ID: 3\n", "field:int a; offset:0; size:4; signed:1;"])
def test_a_format_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="format"):
        parse_format(text)
