"""Shipping by a clock that is turned by hand: minutes, batches, disks that are full, clocks that jump."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.service.shipping.ship_views import seen, target, view

from pydamon.dataset import files
from pydamon.dataset.schema import bucket
from pydamon.dataset.stores import Directory, open_store
from pydamon.service.shipping import region_files, regions
from pydamon.service.shipping.batches import Packer, Told, encode
from pydamon.service.shipping.journal import Record
from pydamon.service.shipping.process import Asking
from pydamon.service.shipping.sender import Sender
from pydamon.service.shipping.settings import Shipping
from pydamon.service.shipping.shipper import Shipper
from pydamon.service.shipping.spool import Spool
from pydamon.service.shipping.told import Status, families, lines, read_status

NOON = 1_795_780_800  # 2026-11-27 12:00 UTC


class Fleet:
    """A shipper and its store; `minutes` lets some pass. ``wall_s`` may be set."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.said: list[str] = []
        self.wall_s = float(NOON)
        self.steady_s = 1000.0
        self.cgroups = ["/a", "/b"]
        self.settings = Shipping(to=str(path / "fleet"), spool=str(path / "spool"), **({"host": "h"} | settings))
        self.begin()

    def begin(self) -> None:
        self.spool = Spool(self.settings.spool, self.settings.most_bytes, self.said.append)
        self.sender = Sender(
            self.spool,
            lambda: open_store(self.settings.to, make=True),
            wall_s=lambda: self.wall_s,
            say=self.said.append,
        )
        self.shipper = Shipper(
            self.settings,
            self.spool,
            self.sender,
            lambda: [seen("m", view(self.steady_s, *(target(n, cgroup=name) for n, name in enumerate(self.cgroups))))],
            look_at_regions=lambda seen, host, minute: region_files.encode([]),
            wall_s=lambda: self.wall_s,
            steady_s=lambda: self.steady_s,
            say=self.said.append,
        )

    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.wall_s += 60
            self.steady_s += 60
            self.shipper.minute()

    def send(self) -> None:
        while self.sender.step() is not None:
            pass

    def shipped(self) -> list[dict[str, Any]]:
        store = Directory(self.settings.to)
        tables = [pq.read_table(pa.BufferReader(store.get(each.name))) for each in store.list("minutes")]
        return pa.concat_tables(tables).sort_by([("minute", "ascending"), ("cgroup", "ascending")]).to_pylist()

    def told_minutes(self) -> list[int]:
        return sorted({(row["minute"] - NOON) // 60 for row in self.shipped()})


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path)
    yield found
    found.spool.close()


def test_minutes_become_one_file_a_batch_with_labels_and_the_minute_that_ended(fleet: Fleet) -> None:
    fleet.minutes(30)
    fleet.send()
    rows = fleet.shipped()
    names = [each.name for each in Directory(fleet.settings.to).list()]
    assert 1 <= len(names) <= 2  # a batch ends every 15 minutes, at a time of the host's own
    part = files.parse_name(names[0])
    assert part is not None
    assert (part.table, part.date, part.bucket) == ("minutes", "2026-11-27", bucket("h"))
    assert [(row["minute"], row["cgroup"]) for row in rows[:3]] == [(NOON, "/a"), (NOON, "/b"), (NOON + 60, "/a")]
    assert (rows[0]["host"], rows[0]["kernel"], rows[1]["seconds"]) == ("h", os.uname().release, 60)
    assert len(rows) == 2 * len(fleet.told_minutes())


def test_the_rest_is_sent_at_the_end_and_a_new_start_doubles_nothing(fleet: Fleet) -> None:
    fleet.minutes(3)
    fleet.shipper.start()
    fleet.shipper.stop()
    assert fleet.told_minutes() == [0, 1, 2]
    fleet.spool.close()
    fleet.begin()
    fleet.wall_s -= 60  # the same minute again
    fleet.minutes(2)
    fleet.shipper.start()
    fleet.shipper.stop()
    rows = fleet.shipped()
    assert len(rows) == len({(row["minute"], row["cgroup"]) for row in rows}) == 8


def test_the_thread_sends_what_is_closed(fleet: Fleet) -> None:
    fleet.shipper.start()
    fleet.minutes(16)
    wait_until(lambda: fleet.sender.sent.files > 0)
    fleet.shipper.stop()
    assert not [each for each in threading.enumerate() if each.name == "sender"]


def test_a_clock_that_is_set_back_repeats_no_minute_and_says_so_once(fleet: Fleet) -> None:
    fleet.minutes(5)
    fleet.wall_s -= 3 * 60
    fleet.minutes(5)
    fleet.spool.cut(Packer())
    fleet.send()
    assert fleet.told_minutes() == [0, 1, 2, 3, 4, 5, 6]
    assert fleet.shipper.status().repeated_minutes == 3
    assert fleet.said == ["the clock was set back: minutes that were told already are not told again"]


def test_a_minute_that_ends_a_little_early_by_the_clock_is_told_once(fleet: Fleet) -> None:
    """The clock was slowed down while the end of the minute was waited for."""
    assert fleet.shipper.wait_s() == 60
    fleet.wall_s += 59.8
    fleet.shipper.minute()
    assert fleet.shipper.wait_s() == pytest.approx(60.2)
    fleet.wall_s += 60.25
    fleet.steady_s += 60
    fleet.shipper.minute()
    assert fleet.shipper.wait_s() == pytest.approx(59.95)
    fleet.spool.cut(Packer())
    fleet.send()
    assert fleet.told_minutes() == [0, 1]
    assert fleet.said == []


def test_a_monitor_that_does_not_answer_is_left_out_and_said_once() -> None:
    said: list[str] = []
    asking = Asking(said.append)
    for _ in range(2):
        assert asking([{"name": "nobody-of-this-name", "pid": 1}]) == []
    (line,) = said
    assert line.startswith("nobody-of-this-name tells nothing and is not shipped: nobody-of-this-name: there is no")
    assert asking([]) == []


def test_a_password_in_a_url_is_not_told() -> None:
    assert Shipping(to="https://user:secret@host/x", spool="").where == "https://host/x"


def test_a_clock_that_was_ten_years_ahead_for_a_while_does_no_lasting_harm(fleet: Fleet) -> None:
    fleet.minutes(2)
    fleet.wall_s += 3652 * 86_400
    fleet.minutes(2)
    fleet.wall_s -= 3652 * 86_400
    fleet.minutes(2)
    fleet.spool.cut(Packer())
    fleet.send()
    far = 3652 * 1440
    assert fleet.told_minutes() == [0, 1, 4, 5, far + 2, far + 3]


def test_a_host_that_renames_itself_is_said_and_goes_to_its_new_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, host=None)
    name = ["old"]
    monkeypatch.setattr(Shipping, "host_name", lambda self: name[0])
    fleet.minutes(2)
    name[0] = "new"
    fleet.minutes(1)
    fleet.spool.cut(Packer())
    fleet.send()
    assert sorted({(row["host"], row["minute"]) for row in fleet.shipped()}) == [
        ("new", NOON + 120), ("old", NOON), ("old", NOON + 60),
    ]  # fmt: skip
    assert any("is called new from now on" in line for line in fleet.said)
    fleet.spool.close()


def test_minutes_of_a_full_disk_are_held_and_written_when_there_is_room(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.minutes(1)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        fleet.minutes(3)
    fleet.minutes(1)
    fleet.spool.cut(Packer())
    fleet.send()
    assert fleet.told_minutes() == [0, 1, 2, 3, 4]
    assert [line for line in fleet.said if "spool can" in line] == [
        "the spool cannot be written (No space left on device); minutes are held in memory",
        "the spool can be written again",
    ]


def test_what_is_held_in_memory_is_bounded_and_what_goes_is_counted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydamon.service.shipping.shipper._MOST_HELD", 3000)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        fleet.minutes(10)
    assert 0 < fleet.shipper.status().dropped_minutes < 10
    fleet.minutes(1)
    assert fleet.spool.counts.minutes + fleet.shipper.status().dropped_minutes == 11


def test_a_store_that_is_away_for_a_day_costs_the_oldest_beyond_the_bound(tmp_path: Path) -> None:
    """A day of batches, each of a minute."""
    batches = 24 * 4
    fleet = Fleet(tmp_path, most_bytes=150_000, every_s=60)
    (tmp_path / "fleet").write_text("in the way")
    for _ in range(batches):
        fleet.minutes(1)
        fleet.sender.step()
    status = fleet.shipper.status()
    assert status.spool_bytes <= 150_000
    assert status.dropped_rows > 0
    assert status.failures > 0
    (tmp_path / "fleet").unlink()
    fleet.spool.cut(Packer())
    fleet.send()
    told = fleet.told_minutes()
    assert told == list(range(told[0], batches))  # the newest, without a gap
    assert told[0] * 2 == status.dropped_rows
    assert sum("the spool is full" in line for line in fleet.said) >= 1
    fleet.spool.close()


# -- batches ----------------------------------------------------------------------------------------------------------


def record(minute: int, **columns: Any) -> Record:
    given = {"cgroup": ["/x"], "seconds": [60], "resident": [5], **columns}
    return Record(minute, encode(Told(host="h", columns=given)))


def test_a_batch_is_a_file_for_each_day_and_rows_that_cannot_be_true_are_left_out() -> None:
    said: list[str] = []
    packer = Packer(said.append)
    midnight = NOON + 12 * 3600
    records = [record(midnight - 60), record(midnight), record(midnight + 60, resident=[-1]), Record(midnight, b"\xc1")]
    found = list(packer(records))
    assert [(each.date, each.rows) for each in found] == [("2026-11-27", 1), ("2026-11-28", 1)]
    assert packer.left_out == 2
    assert len(said) == 2
    assert list(Packer()(records)) == found


def test_columns_of_a_wrong_length_or_type_lose_their_minute_only() -> None:
    packer = Packer()
    wrong = [record(60, resident=["x"]), record(120, resident=[1, 2]), record(180, resident=[1 << 63])]
    (found,) = packer([*wrong, record(240)])
    assert (found.rows, packer.left_out) == (1, 3)


# -- regions ----------------------------------------------------------------------------------------------------------


def test_one_of_n_hosts_ships_regions_each_day_and_each_has_its_turn() -> None:
    settings = Shipping(to="", spool="", regions=10)
    hosts = [f"host{number}" for number in range(1000)]
    days = [{host for host in hosts if settings.ships_regions(host, day * 86_400 + 100)} for day in range(10)]
    assert set.union(*days) == set(hosts)
    assert sum(map(len, days)) == len(hosts)
    assert all(50 < len(day) < 150 for day in days)  # 100 ± 5 standard deviations of a binomial
    assert not Shipping(to="", spool="").ships_regions("host1", 0)


def moment(number: int) -> dict[str, Any]:
    head = {"target": number, "start_ns": 0, "end_ns": 10**9, "sample_us": 5000, "aggr_us": 100_000}
    columns = {"start": [0, 8192], "end": [4096, 12288], "nr_accesses": [1, 0], "age": [2, 3]}
    return {"head": head, "columns": columns, "mappings": [], "looks": []}


def test_regions_are_shipped_with_the_columns_of_exported_records_and_who_they_are_of() -> None:
    told = [{"time_ns": 10**9, "targets": [moment(1), moment(2)], "schemes": []}]
    table = regions.rows(told, "h", "m", {1: "/x"}, NOON)
    assert table is not None
    packed = encode(Told(host="h", columns={"cgroup": [], "seconds": []}, regions=region_files.encode([table, table])))
    (found,) = Packer()([Record(NOON, packed)])
    assert (found.table, found.rows) == ("regions", 8)
    rows = pq.read_table(pa.BufferReader(found.data)).to_pylist()
    assert [(row["target"], row["cgroup"], row["start"], row["resident"]) for row in rows[::4]] == [
        (1, "/x", 0, None), (2, "m", 0, None),
    ]  # fmt: skip
    assert rows[0]["minute"] == NOON


def test_regions_that_cannot_be_are_none() -> None:
    broken = moment(1)
    broken["columns"]["end"] = [4096]
    assert regions.rows([{"time_ns": 1, "targets": [broken], "schemes": []}], "h", "m", {}, NOON) is None
    assert regions.rows([], "h", "m", {}, NOON) is None
    assert region_files.encode([]) is None


def test_regions_that_go_wrong_cost_no_minute(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, regions=1)

    def wrong(seen: object, host: str, minute: int) -> bytes:
        raise KeyError("x")

    fleet.shipper._look_at_regions = wrong
    fleet.minutes(1)
    fleet.shipper._look_at_regions = lambda seen, host, minute: b"no stream of Arrow"
    fleet.minutes(1)
    fleet.shipper._look_at_regions = lambda seen, host, minute: bytes(65 << 20)
    fleet.minutes(1)
    fleet.shipper._cut()
    fleet.send()
    assert fleet.told_minutes() == [0, 1, 2]
    assert "KeyError" in fleet.said[0]
    assert "too many" in fleet.said[1]
    assert fleet.said[2].startswith("regions in the spool are left out: ")
    fleet.spool.close()


def test_a_minute_that_is_too_large_is_dropped_and_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydamon.service.shipping.shipper.MOST_RECORD", 100)
    fleet.minutes(1)
    assert fleet.shipper.status().dropped_minutes == 1
    assert "too large and is dropped; lower ship.cgroups" in fleet.said[0]


# -- how it goes ------------------------------------------------------------------------------------------------------


def test_others_read_how_it_goes_and_it_is_told_as_lines_and_metrics(fleet: Fleet) -> None:
    assert read_status(fleet.settings.spool) is None
    fleet.minutes(16)
    fleet.send()
    fleet.minutes(1)
    told = read_status(fleet.settings.spool)
    assert told is not None
    assert told.shipped_rows == fleet.shipper.status().shipped_rows > 0
    (line,) = lines(msgspec.to_builtins(told), now_s=fleet.wall_s)
    assert line.startswith(f"ships to {fleet.settings.to} as h: {told.shipped_rows} rows in 1 files")
    samples = {sample.name: sample.value for family in families("web", told) for sample in family.samples}
    assert samples["pydamon_ship_rows_total"] == told.shipped_rows
    assert samples["pydamon_ship_last_success_timestamp_seconds"] == told.last_success_unix_s


def test_what_went_wrong_is_in_the_lines(fleet: Fleet) -> None:
    told = msgspec.to_builtins(fleet.shipper.status())
    more = {"last_error": "away\x1b", "failures": 3, "dropped_rows": 7, "repeated_minutes": 2}
    text = "\n".join(lines(told | more))
    assert "it fails, 3 times by now: away\\x1b" in text
    assert "7 rows dropped; 2 minutes not told again" in text
    assert lines(None) == []
    assert lines({"to": "x"}) == ["ships to x: nothing was told yet"]


def test_a_status_that_is_damaged_or_no_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_bytes(b"{")
    assert read_status(str(tmp_path)) is None
    (tmp_path / "status.json").unlink()
    os.mkfifo(tmp_path / "status.json")
    assert read_status(str(tmp_path)) is None


def test_every_number_of_the_status_is_a_metric_but_what_only_sums_up() -> None:
    from pydamon.service.shipping.told import _METRICS

    assert set(Status.__struct_fields__) - set(_METRICS) == {"pid", "to", "host", "rows", "last_error"}
