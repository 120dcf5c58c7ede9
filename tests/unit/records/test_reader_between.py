"""Reading only some of the time: the messages without snapshots of it are not even decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.records.record_samples import AGGR_NS, START_NS, as_tuple, snapshot, write

from pydamon.records.joined import open_record
from pydamon.records.reader import RecordReader


@pytest.fixture(name="record", scope="module")
def record_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty snapshots of two targets by turns, each in a message of its own."""
    found = [snapshot(at, [(0, 4096, at % 20, at)], target=at % 2) for at in range(40)]
    return write(tmp_path_factory.mktemp("record") / "r.damon", found, pids=(1, 2), flush_each=True)


@settings(max_examples=40)
@given(low=st.integers(-AGGR_NS, 42 * AGGR_NS), lasting=st.integers(1, 50 * AGGR_NS))
def test_what_reaches_into_the_time_is_read_and_nothing_else(record: Path, low: int, lasting: int) -> None:
    between = START_NS + low, START_NS + low + lasting
    with RecordReader(record) as reader:
        every = [one for batch in reader.batches() for one in batch.snapshots()]
        found = [one for batch in reader.batches(between=between) for one in batch.snapshots()]
    wanted = [one for one in every if one.end_ns > between[0] and one.start_ns < between[1]]
    assert [as_tuple(one) for one in found] == [as_tuple(one) for one in wanted]


def test_messages_of_other_times_are_not_read(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordReader(record) as reader:
        reader.frame_times()
        read: list[Any] = []
        plain = reader._decoder.decode

        def counted(*arguments: Any) -> Any:
            read.extend(arguments[1])
            return plain(*arguments)

        monkeypatch.setattr(reader._decoder, "decode", counted)
        at = START_NS + 20 * AGGR_NS
        (batch,) = reader.batches(between=(at, at + AGGR_NS))
        assert (len(batch), len(read)) == (1, 3)


def test_damaged_messages_are_of_no_time(record: Path, tmp_path: Path) -> None:
    data = bytearray(record.read_bytes())
    with RecordReader(record) as reader:
        frame = reader._batches[10]
    data[frame.offset + 40 : frame.offset + 60] = bytes(20)
    (tmp_path / "bad.damon").write_bytes(data)
    with RecordReader(tmp_path / "bad.damon") as reader:
        bad = [row for row in reader.frame_times().tolist() if row == [0, -1]]
        assert len(bad) + 40 - len(reader.frame_times()) == 1
        at = START_NS + 10 * AGGR_NS
        assert not list(reader.batches(between=(at, at + AGGR_NS)))


def test_parts_are_read_alike(tmp_path: Path) -> None:
    for number in range(3):
        some = [snapshot(number * 10 + at, [(0, 4096, 1, 0)]) for at in range(10)]
        write(tmp_path / f"p.{number}.damon", some)
    with open_record(str(tmp_path / "p.*.damon")) as reader:
        assert reader.frame_times().shape == (3, 2)
        low = START_NS + 8 * AGGR_NS
        ends = [end for batch in reader.batches(between=(low, low + 4 * AGGR_NS)) for end in batch.end_ns.tolist()]
    assert ends == [START_NS + number * AGGR_NS for number in range(9, 13)]
