"""Which recordings stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.service.declared.file import Keep
from pydamon.service.declared.retention import Retention, beyond, recording_name

DAY_NS = 86_400 * 10**9
FILES = [("a", 100, 5 * DAY_NS), ("b", 100, 3 * DAY_NS), ("c", 100, DAY_NS), ("d", 100, 0)]


@pytest.mark.parametrize(
    ("keep", "removed"),
    [
        (Keep(), []),
        (Keep(files=3), ["a"]),
        (Keep(size_bytes=250), ["a", "b"]),
        (Keep(age_ns=2 * DAY_NS), ["a", "b"]),
        (Keep(files=3, age_ns=2 * DAY_NS), ["a", "b"]),
        (Keep(size_bytes=1, age_ns=0), ["a", "b", "c"]),  # never the one that is being written
    ],
)
def test_the_oldest_go_beyond_any_of_the_bounds(keep: Keep, removed: list[str]) -> None:
    assert beyond(keep, FILES) == removed


@given(st.lists(st.tuples(st.text(), st.integers(0, 1000), st.integers(0, 1000))), st.integers(2, 5), st.integers(0))
def test_what_stays_is_within_the_bounds_or_the_last(files: list[tuple[str, int, int]], most: int, size: int) -> None:
    left = files[len(beyond(Keep(files=most, size_bytes=size), files)) :]
    assert bool(left) == bool(files)
    assert len(left) <= most
    assert sum(each[1] for each in left) <= size or len(left) == 1


def part(folder: Path, day: int, age_s: int = 0) -> str:
    path = folder / f"202601{day:02}T000000Z.0001.damon"
    path.write_bytes(b"x" * 10)
    os.utime(path, (10**9 - age_s, 10**9 - age_s))
    return path.name


def test_only_what_is_called_like_a_recording_of_a_service_is_removed(tmp_path: Path) -> None:
    others = ["web.damon", "20260101T000000Z.damon", ".20260101T000000Z.0001.damon", "20260101T000000Z.0001.damon.gz"]
    for name in others:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "20250101T000000Z.0001.damon").symlink_to(tmp_path / "web.damon")
    old, new = part(tmp_path, 1, age_s=100), part(tmp_path, 2)
    assert Retention(str(tmp_path)).apply(Keep(size_bytes=1), 10**15, 10**18) == [old]
    assert {path.name for path in tmp_path.iterdir()} == {*others, "20250101T000000Z.0001.damon", new}


def test_the_name_of_a_recording_and_its_parts() -> None:
    assert recording_name(1_767_225_600 * 10**9) == "20260101T000000Z.damon"


def test_setting_the_time_removes_nothing(tmp_path: Path) -> None:
    retention, keep = Retention(str(tmp_path)), Keep(age_ns=DAY_NS)
    part(tmp_path, 1, age_s=3600)
    part(tmp_path, 2)
    now_ns, wall_ns = 10**15, 10**18
    assert retention.apply(keep, now_ns, wall_ns) == []
    assert retention.apply(keep, now_ns + 60 * 10**9, wall_ns + 300 * DAY_NS) == []  # forward
    newest = part(tmp_path, 3, age_s=-400 * 86400)
    assert retention.apply(keep, now_ns + 120 * 10**9, wall_ns - 300 * DAY_NS) == []  # and back
    assert newest == "20260103T000000Z.0001.damon"
    # A day by the clock that does not jump: the first was an hour old then.
    assert retention.apply(keep, now_ns + DAY_NS - 3000 * 10**9, wall_ns) == ["20260101T000000Z.0001.damon"]


def test_a_directory_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Retention(str(tmp_path / "none")).apply(Keep(), 0, 0)
