"""The spool of what is to be shipped: nothing is lost or doubled, whatever happens to the process or the disk."""

import errno
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.service.shipping import journal
from pydamon.service.shipping.minutes import MOST, Minutes
from pydamon.service.shipping.spool import Packed, Spool

MINUTE = 1_795_737_600
LARGE = 1 << 30


def pack(records: Sequence[journal.Record]) -> Iterator[Packed]:
    """A file of all records, as text."""
    text = ",".join(f"{record.minute}={record.payload.decode()}" for record in records)
    yield Packed("minutes", "2026-11-27", 7, len(records), text.encode())


class Where:
    """A spool in a directory, opened again as after a crash; what it said."""

    def __init__(self, path: Path, most_bytes: int = LARGE) -> None:
        self.path = path
        self.said: list[str] = []
        self.most_bytes = most_bytes
        self.spool = Spool(str(path), most_bytes, self.said.append)

    def again(self) -> Spool:
        self.spool.close()
        self.spool = Spool(str(self.path), self.most_bytes, self.said.append)
        return self.spool

    def texts(self) -> list[str]:
        return [(self.spool.content(each) or b"?").decode() for each in self.spool.waiting()]


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Where]:
    found = Where(tmp_path / "spool")
    yield found
    found.spool.close()


def add(spool: Spool, *numbers: int) -> None:
    for number in numbers:
        spool.add(MINUTE + 60 * number, str(number).encode())


def expected(*numbers: int) -> str:
    return ",".join(f"{MINUTE + 60 * number}={number}" for number in numbers)


# -- journals ---------------------------------------------------------------------------------------------------------


def test_a_journal_is_read_as_written() -> None:
    data = journal.header() + journal.encode(60, b"one") + journal.encode(120, b"")
    assert journal.read(data) == journal.Contents(
        1, [journal.Record(60, b"one"), journal.Record(120, b"")], len(data), 0, 0
    )


def test_damage_anywhere_loses_the_record_that_it_is_in_and_no_other() -> None:
    pieces = [journal.header(), *(journal.encode(60 * at, bytes([at]) * 50) for at in range(1, 6))]
    data, ends = b"".join(pieces), [sum(map(len, pieces[: at + 1])) for at in range(6)]
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x40
        found = journal.read(bytes(broken))
        hit = next(number for number, end in enumerate(ends) if at < end)
        assert [record.minute for record in found.records] == [60 * number for number in range(1, 6) if number != hit]
        assert found.damaged + found.torn == len(pieces[hit])


def test_what_is_cut_off_is_torn_and_not_damaged() -> None:
    data = journal.header() + journal.encode(60, b"one")
    found = journal.read(data + journal.encode(120, b"two")[:-1])
    assert (found.end, found.damaged, found.torn) == (len(data), 0, len(journal.encode(120, b"two")) - 1)


def test_random_bytes_are_no_records() -> None:
    draw = random.Random(1)
    for _ in range(200):
        data = draw.randbytes(draw.randrange(200))
        assert journal.read(b"\xf3pdship\n" + data).records == []


# -- minutes ----------------------------------------------------------------------------------------------------------


def test_minutes_are_a_set_whatever_the_order() -> None:
    draw = random.Random(2)
    found, plain = Minutes(), set()
    for _ in range(2000):
        minute = draw.randrange(600) * 60
        found.add(minute)
        plain.add(minute)
    assert [minute for minute in range(0, 36_000, 60) if minute in found] == sorted(plain)
    again = Minutes(found.spans())
    assert again.spans() == found.spans()
    assert all(second[0] - first[1] > 60 for first, second in zip(again.spans(), again.spans()[1:], strict=False))


def test_the_spans_of_minutes_are_bounded_and_what_was_told_stays_told() -> None:
    found = Minutes()
    for number in range(3 * MOST):
        found.add(number * 120)
    assert len(found.spans()) == MOST
    assert all(number * 120 in found for number in range(3 * MOST))


# -- the spool --------------------------------------------------------------------------------------------------------


def test_minutes_wait_as_a_file_once_they_are_cut_and_go_when_they_were_sent(where: Where) -> None:
    spool = where.spool
    add(spool, 0, 1)
    assert spool.waiting() == []
    assert spool.cut(pack) == 1
    assert where.texts() == [expected(0, 1)]
    (waiting,) = spool.waiting()
    assert (waiting.rows, waiting.part.date, waiting.part.bucket) == (2, "2026-11-27", 7)
    spool.sent(waiting)
    assert spool.waiting() == []
    assert spool.cut(pack) == 0


def test_a_minute_is_told_once_also_after_it_was_sent_and_the_spool_opened_again(where: Where) -> None:
    add(where.spool, 5, 6)
    where.spool.cut(pack)
    for each in where.spool.waiting():
        where.spool.sent(each)
    add(where.again(), 7)
    assert where.again().knows(MINUTE + 7 * 60)
    add(where.spool, 5, 6, 7, 8)
    assert where.spool.counts.repeated_minutes == 3
    where.spool.cut(pack)
    assert where.texts() == [expected(7, 8)]


def test_a_clock_that_was_far_ahead_and_set_back_does_not_end_shipping(where: Where) -> None:
    add(where.spool, 1, 9_000_000, 2)
    where.again().cut(pack)
    assert where.texts() == [expected(1, 9_000_000, 2)]


def test_a_half_written_minute_is_dropped_and_the_journal_goes_on(where: Where) -> None:
    add(where.spool, 1, 2)
    (name,) = os.listdir(where.path)
    with open(where.path / name, "ab") as file:
        file.write(journal.encode(MINUTE, b"half")[:-2])
    add(where.again(), 3)
    where.spool.cut(pack)
    assert where.texts() == [expected(1, 2, 3)]
    assert where.said == []


def test_damage_in_the_middle_loses_one_minute_and_is_said(where: Where) -> None:
    add(where.spool, 1, 2, 3)
    (name,) = os.listdir(where.path)
    data = (where.path / name).read_bytes()
    at = data.index(journal.encode(MINUTE + 120, b"2"))
    (where.path / name).write_bytes(data[:at] + bytes(5) + data[at + 5 :])
    add(where.again(), 4)
    where.spool.cut(pack)
    assert where.texts() == [expected(1, 3), expected(4)]
    assert where.spool.counts.damaged_bytes == len(journal.encode(0, b"2"))
    assert "is damaged" in where.said[0]


def test_a_journal_of_a_newer_version_is_left_alone_and_said(where: Where) -> None:
    newer = journal.encode(journal.HEADER, b"\x81\xa7version\x02") + journal.encode(MINUTE, b"x")
    (where.path / "journal-000000000003.log").write_bytes(newer)
    add(where.again(), 1)
    where.spool.cut(pack)
    assert where.texts() == [expected(1)]
    assert (where.path / "journal-000000000003.log").read_bytes() == newer
    assert "newer pydamon" in where.said[0]
    assert where.spool.counts.newer_files == 1


def test_a_damaged_list_of_minutes_tells_none_again_from_before_it_was_written(where: Where) -> None:
    add(where.spool, 1)
    where.spool.cut(pack)
    seen = where.path / "seen.json"
    seen.write_bytes(b"{")
    os.utime(seen, (MINUTE + 300, MINUTE + 300))
    add(where.again(), 0, 5, 6)
    assert where.spool.counts.repeated_minutes == 2
    assert "seen.json in the spool is damaged" in where.said[0]


def test_a_damaged_file_is_dropped_and_said(where: Where) -> None:
    add(where.spool, 1)
    where.spool.cut(pack)
    (waiting,) = where.spool.waiting()
    (where.path / waiting.file).write_bytes(b"other")
    assert where.spool.content(waiting) is None
    assert where.spool.waiting() == []
    assert where.spool.counts.dropped_rows == 1
    assert "its 1 rows are lost" in where.said[0]


def test_the_oldest_is_dropped_beyond_the_bound_and_said_and_what_is_written_to_stays(tmp_path: Path) -> None:
    where = Where(tmp_path / "spool", most_bytes=2000)
    for number in range(5):
        where.spool.add(MINUTE + 60 * number, str(number).encode() * 500)
        where.spool.cut(pack)
    where.spool.add(MINUTE + 6000, b"x" * 500)
    where.spool.bound()
    assert where.spool.size_bytes() <= 2000
    assert [text[-1] for text in where.texts()] == ["3", "4"]
    assert where.spool.counts.dropped_rows == 3
    assert where.said == ["the spool is full: the oldest 3 rows were dropped"]
    add(where.again(), 0)  # what was dropped is not told again
    assert where.spool.counts.repeated_minutes == 1
    where.spool.close()


def test_a_full_disk_is_an_error_and_later_minutes_are_whole(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    add(where.spool, 1)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 8:
            return write(fd, bytes(data)[:8])  # some of it fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for act in (lambda: add(where.spool, 2), lambda: where.spool.cut(pack)):
        with pytest.raises(OSError, match="No space"):
            act()
    with pytest.raises(OSError, match="No space"):
        add(where.spool, 2)  # into a new journal
    monkeypatch.undo()
    add(where.spool, 2)
    assert where.spool.cut(pack) == 2
    assert where.texts() == [expected(1), expected(2)]
    assert not [name for name in os.listdir(where.path) if name.startswith(("tmp-", "journal"))]


@pytest.mark.parametrize("when", ["before", "after"])
def test_files_that_were_made_before_a_crash_are_not_made_again(
    where: Where, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Two files of one journal; it is cut short at the second, or just before the journal goes."""

    def two(records: Sequence[journal.Record]) -> Iterator[Packed]:
        yield Packed("minutes", "2026-11-26", 1, 1, b"a")
        if when == "before" and not again:
            raise OSError("crash")
        yield Packed("minutes", "2026-11-27", 1, 1, b"b")

    again = False
    add(where.spool, 1)
    if when == "after":
        monkeypatch.setattr(Spool, "_remember", lambda _: (_ for _ in ()).throw(OSError("crash")))
    with pytest.raises(OSError, match="crash"):
        where.spool.cut(two)
    monkeypatch.undo()
    assert where.spool.waiting() == []  # half of a journal is not sent
    again = True
    where.again().cut(two)
    assert where.texts() == ["a", "b"]


def test_two_services_do_not_share_a_spool(where: Where) -> None:
    with pytest.raises(RequestError, match=r"spool: .* is in use by another service"):
        Spool(str(where.path), LARGE)


def test_a_spool_that_others_may_write_to_or_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(RequestError, match="is not ours alone"):
        Spool(str(tmp_path / "open"), LARGE)
    (tmp_path / "ours").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    with pytest.raises(MachineError, match="spool: "):
        Spool(str(tmp_path / "link"), LARGE)
