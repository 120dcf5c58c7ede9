"""What killed processes leave is removed by the next one, and nothing else."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydamon.linux import temporary
from pydamon.linux.outputs import Place

MAKER = """
import os, sys, time
from pydamon.linux import temporary
fd = os.open(temporary.name(".png"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
temporary.hold(fd)
print(flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("processes")
def test_what_a_killed_process_leaves_is_removed_once_it_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MAKER], cwd=tmp_path, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        maker.stdout.readline()
        (left,) = os.listdir(tmp_path)
        assert temporary.clean(str(tmp_path)) == []  # it lives
        maker.kill()
    assert temporary.clean(str(tmp_path)) == [left]
    assert os.listdir(tmp_path) == []


def test_only_our_own_files_of_such_a_name_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".pydamon-12-0123456789").touch()
    (tmp_path / "pydamon-12-01234567").touch()
    (tmp_path / ".pydamon-12-01234567.a.b").touch()
    (tmp_path / ".pydamon-1-00000000").mkdir()
    (tmp_path / "somebody's").touch()
    (tmp_path / ".pydamon-1-00000001").symlink_to("somebody's")
    os.mkfifo(tmp_path / ".pydamon-1-00000002")
    kept = sorted(os.listdir(tmp_path))
    (tmp_path / ".pydamon-1-00000003.html").touch()
    if os.geteuid() == 0:
        (tmp_path / ".pydamon-1-00000004").touch()
        os.chown(tmp_path / ".pydamon-1-00000004", 65534, 65534)
        kept = sorted([*kept, ".pydamon-1-00000004"])
    fd = os.open(tmp_path, os.O_PATH)
    assert temporary.clean(fd) == [".pydamon-1-00000003.html"]
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == kept


def test_a_folder_that_cannot_be_looked_into_is_no_error(tmp_path: Path) -> None:
    assert temporary.clean(str(tmp_path / "missing")) == []


def test_a_name_is_recognized_and_held(tmp_path: Path) -> None:
    path = tmp_path / temporary.name(".damon")
    with open(path, "wb") as file:
        temporary.hold(file.fileno())
        with open(path, "rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert temporary.clean(str(tmp_path)) == [path.name]


def test_whoever_makes_a_file_removes_what_was_left_there(tmp_path: Path) -> None:
    (tmp_path / ".pydamon-1-00000003.html").touch()
    with Place(str(tmp_path / "a.html"), "-o") as place:
        new = place.make_beside()
        (beside,) = os.listdir(tmp_path)
        assert beside != ".pydamon-1-00000003.html"
        assert temporary.clean(str(tmp_path)) == []  # it is held
        new.appear()
        os.close(new.fd)
    assert os.listdir(tmp_path) == ["a.html"]
