"""What a memory cgroup tells and can be asked; on directories that look like some."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.helpers.fake_cgroup import fake_cgroup

from pydamon.errors import MachineError
from pydamon.linux.memcg_control import NO_LIMIT, Cgroup, Usage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fake_cgroup(tmp_path, "a/web", current_bytes=12345)


def opened(tmp_path: Path, path: Path) -> Cgroup:
    return Cgroup(str(path), (tmp_path,))


def test_usage(tmp_path: Path, path: Path) -> None:
    assert opened(tmp_path, path).usage() == Usage(
        current_bytes=12345,
        swap_bytes=0,
        swap_max_bytes=NO_LIMIT,
        min_bytes=0,
    )


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "-"])
def test_nonsense_is_not_known(tmp_path: Path, path: Path, text: str) -> None:
    for name in ("memory.current", "memory.min", "memory.swap.max"):
        (path / name).write_text(text)
    usage = opened(tmp_path, path).usage()
    assert (usage.current_bytes, usage.min_bytes, usage.swap_max_bytes) == (None, None, None)


def test_what_is_written(tmp_path: Path, path: Path) -> None:
    cgroup = opened(tmp_path, path)
    assert cgroup.reclaim(8192)
    assert (path / "memory.reclaim").read_text() == "8192\n"
    assert cgroup.reclaim(8192, 0)
    assert (path / "memory.reclaim").read_text() == "8192 swappiness=0\n"
    cgroup.set_low("4096")
    assert cgroup.low() == "4096"


@pytest.mark.parametrize(
    ("number", "swappiness", "message"),
    [
        (errno.EINVAL, 0, "takes no swappiness on this kernel"),
        (errno.EACCES, None, "cannot be used: Permission denied; it needs root, or a cgroup that was delegated"),
        (errno.ENOENT, None, "it needs the memory controller of cgroup v2 in this cgroup"),
    ],
)
def test_a_refusal_says_why(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, number: int, swappiness: int | None, message: str
) -> None:
    cgroup = opened(tmp_path, path)

    def write(fd: int, text: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pydamon.linux.memcg_control.os.write", write)
    with pytest.raises(MachineError, match=message):
        cgroup.reclaim(4096, swappiness)


def test_less_than_asked_for_is_no_error(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, text: bytes) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    cgroup = opened(tmp_path, path)
    monkeypatch.setattr("pydamon.linux.memcg_control.os.write", write)
    assert not cgroup.reclaim(4096)


def test_a_cgroup_that_was_removed_and_made_anew_is_another(tmp_path: Path, path: Path) -> None:
    cgroup = opened(tmp_path, path)
    assert not cgroup.gone()
    path.rename(tmp_path / "moved")
    assert cgroup.gone()
    fake_cgroup(tmp_path, "a/web")
    assert cgroup.gone()
    cgroup.close()


def test_links_are_not_followed(tmp_path: Path, path: Path) -> None:
    (path / "memory.low").unlink()
    (path / "memory.low").symlink_to(tmp_path / "elsewhere")
    cgroup = opened(tmp_path, path)
    with pytest.raises(MachineError):
        cgroup.set_low("1")
    with pytest.raises(MachineError):
        cgroup.require("memory.low")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_above_decides_whether_low_means_anything(tmp_path: Path, path: Path) -> None:
    above = path.parent
    assert opened(tmp_path, path).unprotected_above() is None  # that one has no memory.low at all: it is the root
    (above / "memory.low").write_text("0\n")
    assert opened(tmp_path, path).unprotected_above() == str(above)
    (above / "memory.low").write_text("max\n")
    assert opened(tmp_path, path).unprotected_above() is None


def test_the_root_is_known(tmp_path: Path, path: Path) -> None:
    assert not opened(tmp_path, path).is_root
    assert opened(tmp_path, tmp_path).is_root
