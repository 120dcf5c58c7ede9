"""A directory that looks like a device of zram in /sys/block."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.linux.zram import Zram, devices


@pytest.fixture
def block(tmp_path: Path) -> Path:
    for device in ("zram0", "zram1"):
        path = tmp_path / device
        path.mkdir()
        texts = {"backing_dev": "/dev/loop0", "writeback": "", "idle": "", "writeback_limit_enable": "0"}
        texts |= {"writeback_limit": "7", "bd_stat": "  3  4  9"}
        for name, text in texts.items():
            (path / name).write_text(text)
    (tmp_path / "sda").mkdir()
    return tmp_path


def test_devices(block: Path) -> None:
    assert devices(block) == ["zram0", "zram1"]
    with pytest.raises(RequestError, match="is not there; devices of zram: zram0, zram1"):
        Zram("zram7", block)
    for name in ("sda", "zram0/../sda", "", "zram00000"):
        with pytest.raises(RequestError, match="is no device of zram"):
            Zram(name, block)


def test_what_is_written(block: Path) -> None:
    zram, path = Zram("zram0", block), block / "zram0"
    zram.require_writeback()
    assert zram.mark_idle(60)
    assert (path / "idle").read_text() == "60"
    before = zram.limit()
    assert before == ("0", "7")
    zram.limit_writeback(1 << 20)
    assert zram.limit() == ("1", "256")  # pages of 4 KiB
    zram.restore_limit(before)
    assert zram.limit() == before
    assert zram.write_back("idle")
    assert (path / "writeback").read_text() == "idle"
    assert zram.written_bytes() == 9 * 4096


def test_what_keeps_it_from_writing_back(block: Path) -> None:
    (block / "zram0" / "backing_dev").write_text("none")
    with pytest.raises(MachineError, match="has no backing device"):
        Zram("zram0", block).require_writeback()
    (block / "zram1" / "backing_dev").unlink()
    with pytest.raises(MachineError, match="CONFIG_ZRAM_WRITEBACK"):
        Zram("zram1", block).require_writeback()
    (block / "zram0" / "bd_stat").write_text("1")
    with pytest.raises(MachineError, match="not as the kernel documents"):
        Zram("zram0", block).written_bytes()


@pytest.mark.parametrize(("number", "age_s"), [(errno.EINVAL, 60), (errno.EACCES, 60), (errno.EINVAL, None)])
def test_a_kernel_without_ages_is_told_apart(
    block: Path, monkeypatch: pytest.MonkeyPatch, number: int, age_s: int | None
) -> None:
    zram = Zram("zram0", block)

    def write(fd: int, text: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pydamon.linux.zram.os.write", write)
    if (number, age_s) == (errno.EINVAL, 60):
        assert not zram.mark_idle(age_s)
    else:
        with pytest.raises(MachineError):
            zram.mark_idle(age_s)
    if number == errno.EACCES:
        monkeypatch.undo()


def test_a_limit_that_is_used_up_is_no_error(block: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, text: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    zram = Zram("zram0", block)
    monkeypatch.setattr("pydamon.linux.zram.os.write", write)
    assert not zram.write_back("idle")
