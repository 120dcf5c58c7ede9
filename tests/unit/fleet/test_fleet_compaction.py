"""Compaction changes no answer, whenever it is killed, and roll-ups answer as minutes do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.dataset import files
from pydamon.errors import PydamonError, RequestError
from pydamon.fleet import compact as compaction
from pydamon.fleet import manifest as manifests
from pydamon.fleet.compact import Compacted, compact
from pydamon.fleet.engine import Means
from pydamon.fleet.inventory import Partition
from pydamon.fleet.query import Query
from pydamon.fleet.where import Where


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path) -> Path:
    helpers.fleet_at(tmp_path / "f", hosts=2, minutes=90)
    return tmp_path / "f"


def files_of(root: Path, table: str = "minutes") -> list[str]:
    return sorted(path.name for path in (root / table).rglob("*.parquet"))


def test_answers_are_equal_before_and_after_and_from_roll_ups(root: Path) -> None:
    before = helpers.answer(root)
    done = compact(str(root), jobs=1)
    assert (done.rows, done.partitions) == (2 * 5 * 90, done.files_after)
    assert done.files_before == 3 * done.files_after
    assert helpers.answer(root) == before
    rolled = helpers.asked(root, raw=False)
    assert rolled.table.to_pylist() == before
    assert rolled.from_roll_ups == done.partitions
    assert rolled.bytes_scanned < helpers.asked(root).bytes_scanned


def test_nothing_is_left_of_what_was_put_together(root: Path) -> None:
    compact(str(root), jobs=1)
    assert all(manifests.is_compacted(name) for name in (*files_of(root), *files_of(root, "hours")))
    assert not list(root.rglob(".new-*"))
    again = compact(str(root), jobs=1)
    assert (again.partitions, again.rows) == (0, 0)


def test_another_tool_reads_each_row_once_when_it_is_done(root: Path) -> None:
    before = helpers.reread(root)["resident"]
    compact(str(root), jobs=1)
    after = helpers.reread(root)
    assert sorted(after["resident"].tolist()) == sorted(before.tolist())
    keys = list(zip(after["host"], after["cgroup"], after["minute"], strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("step", ["before the manifest", "before deleting", "while deleting"])
def test_killed_anywhere_each_row_counts_once(root: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = helpers.answer(root)

    class Killed(BaseException):
        pass

    deleted = 0
    unlink = Path.unlink

    def die(*_: object, **__: object) -> None:
        raise Killed

    def unlink_some(path: Path, missing_ok: bool = False) -> None:
        nonlocal deleted
        if path.suffix == ".parquet":
            deleted += 1
            if deleted > (1 if step == "while deleting" else 0):
                raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        if step == "before the manifest":
            patched.setattr(manifests, "write", die)
        else:
            patched.setattr(Path, "unlink", unlink_some)
        with pytest.raises(Killed):
            compact(str(root), jobs=1)
    assert helpers.answer(root) == before
    assert helpers.answer(root, raw=False) == before
    compact(str(root), jobs=1)
    assert helpers.answer(root) == helpers.answer(root, raw=False) == before
    assert all(manifests.is_compacted(name) for name in files_of(root))


def test_what_comes_late_is_in_the_answer_at_once_and_in_the_next_compaction(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(minutes=10))
    compact(str(tmp_path), jobs=1)
    helpers.ship(tmp_path, helpers.rows(minutes=5, first=helpers.FIRST + 600))
    before = helpers.answer(tmp_path)
    assert before[0]["rows"] == 15
    assert helpers.answer(tmp_path, raw=False) == before
    compact(str(tmp_path), jobs=1)
    assert helpers.answer(tmp_path) == helpers.answer(tmp_path, raw=False) == before
    assert len(files_of(tmp_path)) == len(files_of(tmp_path, "hours")) == 1


def test_what_is_put_a_second_time_after_compaction_counts_no_more(tmp_path: Path) -> None:
    path = helpers.ship(tmp_path, helpers.rows())
    data = path.read_bytes()
    compact(str(tmp_path), jobs=1)
    assert not path.exists()
    before = helpers.answer(tmp_path)
    path.write_bytes(data)
    found = helpers.asked(tmp_path, raw=False)
    assert (found.table.to_pylist(), found.from_roll_ups) == (before, 1)
    compact(str(tmp_path), jobs=1)
    assert not path.exists()


def test_rows_that_are_there_twice_count_once_by_the_longest_watched(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(minutes=10, seconds=30, resident=7 << 30))
    helpers.ship(tmp_path, helpers.rows(minutes=4))
    found = helpers.asked(tmp_path)
    assert found.left_out.rows == {"duplicate": 4}
    assert found.exact("resident_bs") == [4 * 60 * (1 << 30) + 6 * 30 * (7 << 30)]
    done = compact(str(tmp_path), jobs=1)
    assert done.left_out.rows == {"duplicate": 4}
    again = helpers.asked(tmp_path, raw=False)
    assert again.table.to_pylist() == found.table.to_pylist()
    assert again.left_out.rows == {"duplicate": 4}  # it is still said


def test_large_files_are_ended_and_begun_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LARGEST_BYTES", 10_000)
    monkeypatch.setattr(compaction, "_ROWS", 200)
    before = helpers.answer(root)
    done = compact(str(root), jobs=1)
    assert done.files_after > done.partitions
    assert helpers.answer(root) == helpers.answer(root, raw=False) == before


def test_two_compactions_do_not_meet(root: Path) -> None:
    with compaction._alone(root), pytest.raises(RequestError, match="is being compacted by another process"):
        compact(str(root), jobs=1)


def test_a_file_of_an_earlier_compaction_that_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(minutes=10))
    compact(str(tmp_path), jobs=1)
    (old,) = (tmp_path / "minutes").rglob("*.parquet")
    data = bytearray(old.read_bytes())
    data[50:200] = bytes(150)
    old.write_bytes(data)
    late = helpers.ship(tmp_path, helpers.rows(minutes=5, first=helpers.FIRST + 600))
    done = compact(str(tmp_path), jobs=1)
    assert (done.partitions, done.left_out.nr_files) == (0, 1)
    assert old.exists()
    assert late.exists()


def test_keeping_for_some_days_leaves_roll_ups_and_then_nothing(tmp_path: Path) -> None:
    old = int(time.time()) // 86400 * 86400 - 40 * 86400
    day = files.day(old)
    again = helpers.ship(tmp_path, helpers.rows(first=old), day=day)
    data = again.read_bytes()
    compact(str(tmp_path), jobs=1)
    before = helpers.answer(tmp_path, raw=False)
    helpers.ship(tmp_path, helpers.rows(first=old + 39 * 86400), day=files.day(old + 39 * 86400))
    new = Where(start=old + 39 * 86400)
    assert compact(str(tmp_path), jobs=1, keep_days=30).deleted_dates == 1
    again.parent.mkdir(parents=True, exist_ok=True)
    again.write_bytes(data)  # it comes again, too late
    assert (
        helpers.answer(tmp_path, raw=False, query=Query(("service",), helpers.ALL.measures, Where(end=new.start)))
        == before
    )
    assert helpers.sums(tmp_path) == 10
    compact(str(tmp_path), jobs=1, keep_days=30, keep_hours_days=30)
    assert not list(tmp_path.glob(f"*/date={day}"))
    assert helpers.sums(tmp_path) == 10


def test_minutes_that_came_late_are_in_roll_ups_before_they_are_deleted(tmp_path: Path) -> None:
    """Of a host that was cut off for longer than minutes are kept: nobody has compacted them yet."""
    old = int(time.time()) // 86400 * 86400 - 40 * 86400
    day = files.day(old)
    helpers.ship(tmp_path, helpers.rows("host-a", first=old), day=day)
    before = helpers.answer(tmp_path, raw=False)
    assert compact(str(tmp_path), jobs=1, keep_days=30).deleted_dates == 1
    assert not files_of(tmp_path)
    assert helpers.answer(tmp_path, raw=False) == before
    helpers.ship(tmp_path, helpers.rows("host-b", first=old), day=day)
    done = compact(str(tmp_path), jobs=1, keep_days=30, keep_hours_days=30)  # nothing is rolled up that goes at once
    assert (done.partitions, done.deleted_dates) == (0, 1)
    assert not list(tmp_path.glob(f"*/date={day}"))


def test_minutes_answer_where_only_roll_ups_were_deleted(tmp_path: Path) -> None:
    old = int(time.time()) // 86400 * 86400 - 40 * 86400
    helpers.ship(tmp_path, helpers.rows(first=old), day=files.day(old))
    before = helpers.answer(tmp_path)
    compact(str(tmp_path), jobs=1, keep_hours_days=30)
    assert not files_of(tmp_path, "hours")
    found = helpers.asked(tmp_path, raw=False)
    assert (found.table.to_pylist(), found.from_roll_ups) == (before, 0)


@pytest.mark.parametrize("text", ['{"version":2}', "{", '{"minutes":["../x"]}'], ids=["newer", "broken", "hostile"])
def test_nothing_is_deleted_where_the_manifest_cannot_be_believed(tmp_path: Path, text: str) -> None:
    """Else all that an earlier compaction wrote would pass for what a killed one has left."""
    helpers.ship(tmp_path, helpers.rows())
    compact(str(tmp_path), jobs=1)
    (path,) = tmp_path.glob("compacted/*/*.json")
    right = path.read_text()
    before = helpers.answer(tmp_path)
    path.write_text(text)
    late = helpers.ship(tmp_path, helpers.rows(minutes=5, first=helpers.FIRST + 600))
    there = files_of(tmp_path), files_of(tmp_path, "hours")
    done = compact(str(tmp_path), jobs=1)
    assert (done.partitions, done.left_out.nr_files) == (0, 1)
    assert (files_of(tmp_path), files_of(tmp_path, "hours")) == there
    late.unlink()
    path.write_text(right)
    assert helpers.answer(tmp_path) == helpers.answer(tmp_path, raw=False) == before


def test_what_was_read_is_counted_as_it_lies_on_disk(root: Path) -> None:
    """Of files that hosts have put there all is read, to check it."""
    lies = sum(path.stat().st_size for path in (root / "minutes").rglob("*.parquet"))
    assert helpers.asked(root, query=Query(("service",), ("rows",))).bytes_scanned == lies


def test_manifests_that_cannot_be_believed_are_said(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows())
    compact(str(tmp_path), jobs=1)
    (path,) = tmp_path.glob("compacted/*/*.json")
    path.write_text('{"version":1,"minutes":["../../../etc/passwd"]}')
    helpers.ship(tmp_path, helpers.rows(host="host-b"))
    found = helpers.asked(tmp_path)
    assert "names files that compaction does not write" in found.left_out.files[0][1]
    assert found.exact("rows") == [10]


@pytest.mark.parametrize("place", ["minutes", "hours", "compacted"])
def test_links_are_not_followed(tmp_path: Path, place: str) -> None:
    root, other = tmp_path / "f", tmp_path / "other"
    other.mkdir()
    helpers.ship(root, helpers.rows())
    if place == "minutes":
        (root / "minutes" / f"date={files.day(helpers.FIRST + 86400)}").symlink_to(
            root / "minutes" / f"date={helpers.DAY}"
        )
        assert helpers.sums(root) == 10
        return
    (root / place).symlink_to(other)
    with pytest.raises(PydamonError, match="is a link"):
        compact(str(root), jobs=1)
    assert list(os.scandir(other)) == []


def test_what_a_linked_bucket_holds_is_not_deleted(tmp_path: Path) -> None:
    """The manifest would call it stray."""
    root, other = tmp_path / "f", tmp_path / "other"
    helpers.ship(root, helpers.rows())
    compact(str(root), jobs=1)
    (folder,) = (root / "minutes" / f"date={helpers.DAY}").iterdir()
    folder.rename(other)
    (other / f"c-{'0' * 32}.parquet").write_bytes(b"mine")
    folder.symlink_to(other)
    compact(str(root), jobs=1)
    assert (other / f"c-{'0' * 32}.parquet").exists()


def test_what_a_killed_compaction_had_not_finished_is_cleared_away(root: Path) -> None:
    (bucket, *_) = (root / "minutes" / f"date={helpers.DAY}").iterdir()
    compact(str(root), jobs=1)
    left = [bucket, root / "hours" / f"date={helpers.DAY}" / bucket.name, root / "compacted" / f"date={helpers.DAY}"]
    for folder in left:
        (folder / ".new-1-0123456789abcdef").write_bytes(b"PAR1")
    compact(str(root), jobs=1)
    assert not list(root.rglob(".new-*"))
    assert helpers.answer(root, raw=False)


def test_nothing_is_left_of_what_was_spilled_by_processes_that_were_killed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()

    def killed(_root: Path, _part: Partition, means: Means) -> Compacted:
        assert means.spill is not None
        (Path(means.spill) / "pydamon-fleet-of-a-worker").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(compaction, "_partition", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(str(root), jobs=1, means=Means(spill=str(spill)))
    assert list(spill.iterdir()) == []
