"""A cgroup v2 of an experiment in the lab's guest: what it uses, how long its tasks wait, and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kernel_damon import require_guest
from pydamon.linux import psi
from pydamon.linux.mounts import mounts

_END_S = 30


@contextmanager
def made(name: str) -> Iterator[Path]:
    """A cgroup with the memory controller; removed when its processes have ended. MachineError outside of the lab."""
    require_guest()
    root = mounts("cgroup2")[0]
    (root / "cgroup.subtree_control").write_text("+memory +io")
    path = root / name
    path.mkdir()
    try:
        yield path
    finally:
        end_s = time.monotonic() + _END_S
        while True:
            try:
                path.rmdir()
                break
            except OSError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.05)


def number(cgroup: Path, name: str) -> int:
    """A file of the cgroup that holds a number."""
    return int((cgroup / name).read_text())


def stalled_us(cgroup: Path) -> int:
    """How long some task of it has waited for memory so far."""
    return psi.read("memory", cgroup).total_us
