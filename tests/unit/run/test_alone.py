"""A module runs once on a target: by process (not by a number that is used again), by cgroup, on physical memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydamon.errors import RequestError
from pydamon.linux import memcg
from pydamon.run import alone
from pydamon.run.alone import Alone


def _refused(module: str, pid: int) -> bool:
    other = Alone()
    try:
        other.process(module, pid)
    except RequestError:
        return True
    finally:
        other.close()
    return False


def test_a_process_is_held_until_closed() -> None:
    module = f"test-{os.getpid()}"
    first = Alone()
    first.process(module, os.getpid())
    assert _refused(module, os.getpid())
    assert not _refused(f"{module}-other", os.getpid())
    first.close()
    assert not _refused(module, os.getpid())


def test_a_process_in_a_held_cgroup_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "web" / "one"
    below.mkdir(parents=True)
    inodes = [path.stat().st_ino for path in (below, below.parent, tmp_path)]
    monkeypatch.setattr(memcg, "mounts", lambda kind: [tmp_path])
    monkeypatch.setattr(memcg, "inodes_of", lambda pid: inodes)
    module = f"test-{os.getpid()}"
    first = Alone()
    first.cgroup(module, "/web")
    assert _refused(module, os.getpid())
    second = Alone()
    with pytest.raises(RequestError, match="a cgroup above /web/one already"):
        second.cgroup(module, "/web/one")
    second.close()
    first.close()
    held = Alone()
    held.process(module, os.getpid())
    third = Alone()
    with pytest.raises(RequestError, match=f"process {os.getpid()} of the cgroup /web already"):
        third.cgroup(module, "/web")
    third.close()
    held.close()


def test_names_of_others_are_no_processes() -> None:
    assert not alone._lives("1²", "0")
    assert not alone._lives(str(os.getpid()), "0")
