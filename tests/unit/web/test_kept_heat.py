"""What is kept beside a record: the same page at once, and nothing of another record, of a stranger, or damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.unit.cli.rich_record import rich

from pydamon.web import recording as recordings
from pydamon.web.kept import kept
from pydamon.web.recording import Recording


@pytest.fixture(name="record")
def record_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record whose pyramid is kept although it is small."""
    monkeypatch.setattr(recordings, "_WORTH_KEEPING", 1)
    return rich(tmp_path / "r.damon", seconds=20)


def read(path: Path) -> dict[str, object]:
    """What the page is told of it, and a tile."""
    with Recording(str(path)) as found:
        found.read_now()
        return {"told": found.target(0), "summary": found.summary(), "tile": found.tile(0, 0, 0, 0, 0).tobytes()}


def test_the_next_one_reads_what_was_kept(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(record)
    assert sorted(path.name for path in record.parent.iterdir()) == ["r.damon", "r.damon.heat"]
    assert (record.parent / "r.damon.heat").stat().st_mode & 0o777 == record.stat().st_mode & 0o777
    monkeypatch.setattr(recordings.Recording, "_add", lambda *_: pytest.fail("it is read again"))
    assert read(record) == first


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 8)


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _cut_heat(path: Path) -> None:
    heat = path.with_name(path.name + ".heat")
    heat.write_bytes(heat.read_bytes()[:-100])


def _damage_heat(path: Path) -> None:
    heat = path.with_name(path.name + ".heat")
    data = bytearray(heat.read_bytes())
    data[len(data) // 2] ^= 0xFF
    heat.write_bytes(data)


def _open_heat_to_all(path: Path) -> None:
    path.with_name(path.name + ".heat").chmod(0o666)


def _link_heat(path: Path) -> None:
    heat = path.with_name(path.name + ".heat")
    heat.rename(path.with_name("elsewhere"))
    heat.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [_grow, _touch, _cut_heat, _damage_heat, _open_heat_to_all, _link_heat])
def test_what_is_stale_damaged_or_not_ours_is_not_believed(record: Path, change: Callable[[Path], None]) -> None:
    before = read(record)
    assert kept(str(record)) is not None
    change(record)
    assert kept(str(record)) is None
    assert read(record)["tile"] == before["tile"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_strangers_is_not_believed(record: Path) -> None:
    read(record)
    heat = record.with_name(record.name + ".heat")
    os.chown(heat, 65534, 65534)
    assert kept(str(record)) is None
    os.chown(record, 65534, 65534)
    os.utime(record, ns=(record.stat().st_atime_ns, record.stat().st_mtime_ns))
    assert kept(str(record)) is not None  # it is the record's owner's


def test_one_that_would_be_huge_is_not_unpacked(record: Path) -> None:
    heat = record.with_name(record.name + ".heat")
    with heat.open("wb") as file:
        np.savez_compressed(file, head=np.zeros(1 << 29, np.uint8))
    heat.chmod(0o600)
    assert heat.stat().st_size < 1 << 20
    assert kept(str(record)) is None


def test_small_ones_and_exports_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rich(tmp_path / "r.damon", seconds=2)
    read(path)
    monkeypatch.setattr(recordings, "_WORTH_KEEPING", 1)
    with Recording(str(path), follow=False) as found:  # as export opens it
        found.read_now()
    assert [one.name for one in tmp_path.iterdir()] == ["r.damon"]
