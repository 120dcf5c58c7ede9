"""One generation is kept of what is replaced: whose it may be, and what must not be replaced by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydamon.errors import RequestError
from pydamon.linux.old_files import check_old, keep_old
from pydamon.linux.outputs import Place

NOBODY = 65534


def _ours(fd: int) -> bool:
    return os.pread(fd, 4, 0) == b"ours"


def _keep(path: Path) -> str:
    with Place(str(path), "output") as place:
        return keep_old(place, _ours)


def _refused(path: Path) -> str:
    with Place(str(path), "output") as place, pytest.raises(RequestError) as caught:
        check_old(place, _ours)
    assert caught.value.where == "output"
    return caught.value.message


def test_what_is_there_has_a_second_name_and_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("ours 1")
    assert _keep(path) == f"{path}.old"
    assert os.path.samefile(path, f"{path}.old")
    assert _keep(path) == f"{path}.old"  # again: both are the same file already
    assert sorted(os.listdir(tmp_path)) == ["x", "x.old"]


def test_one_generation_is_kept(tmp_path: Path) -> None:
    path, old = tmp_path / "x", tmp_path / "x.old"
    path.write_text("ours 2")
    old.write_text("ours 1")
    _keep(path)
    assert old.read_text() == "ours 2"


def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "x"
    path.write_text("ours 1")
    with Place(str(path), "output") as place:
        keep_old(place, _ours)
        assert place.found is None
        assert place.is_as_found()
    assert os.listdir(tmp_path) == ["x.old"]


def test_what_is_none_of_ours_is_not_replaced(tmp_path: Path) -> None:
    path, old = tmp_path / "x", tmp_path / "x.old"
    path.write_text("ours")
    old.write_text("mine")
    assert _refused(path) == f"what is in {path} cannot be kept: {old} is no pydamon record; choose another name"
    assert old.read_text() == "mine"
    old.unlink()
    old.mkdir()
    assert "is no pydamon record" in _refused(path)


def test_nothing_is_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "x", tmp_path / "other"
    path.write_text("ours")
    other.write_text("ours, too")
    (tmp_path / "x.old").symlink_to(other)
    assert "x.old is a symbolic link" in _refused(path)
    assert other.read_text() == "ours, too"


def test_a_link_to_the_output_keeps_beside_what_it_stands_for(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_text("ours")
    link = tmp_path / "link"
    link.symlink_to(folder / "x")
    assert _keep(link) == f"{folder}/x.old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_where_others_may_write_only_what_is_ones_own_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    path, old = folder / "x", folder / "x.old"
    path.write_text("ours")
    old.write_text("ours")
    os.chown(old, NOBODY, NOBODY)
    assert f"user {NOBODY}" in _refused(path)
