"""A directory that looks like a memory cgroup (version 2): its files can be written as the kernel's can."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.waiting import wait_until

from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader

CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=15437\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4905\n"


def fake_cgroup(root: Path, name: str = "web", *, current_bytes: int = 100 << 20) -> Path:
    """Below ``root``, which stands for a mount of cgroup v2."""
    path = root / name
    path.mkdir(parents=True)
    texts = {
        "memory.current": str(current_bytes),
        "memory.swap.current": "0",
        "memory.swap.max": "max",
        "memory.min": "0",
        "memory.low": "0",
        "memory.reclaim": "",
        "memory.stat": "anon 1\npgmajfault 7\nworkingset_refault_anon 3\nworkingset_refault_file 4\n",
        "memory.pressure": CALM,
        "io.pressure": CALM,
    }
    for file, text in texts.items():
        (path / file).write_text(text + "\n")
    return path


def recorded_ns(path: Path) -> int:
    """What time the snapshots that are in the file so far cover, by their ends; -1 without any."""
    try:
        with RecordReader(path) as reader:
            ends_ns = [one.end_ns for one in reader.snapshots()]
    except (PydamonError, OSError):
        return -1
    return ends_ns[-1] - ends_ns[0] if ends_ns else -1


@contextmanager
def removed(
    group: Path, when: Callable[[], bool], child: subprocess.Popen[bytes], *, lives: bool = True
) -> Iterator[None]:
    """During the block the directory that stands for the cgroup of ``child`` is removed, once something holds.

    ``lives``: the child goes on, in another cgroup, if it were a real one, until the block is over.
    """

    def remove() -> None:
        wait_until(when, every_s=0.1)
        shutil.rmtree(group)
        if not lives:
            child.kill()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        yield
    finally:
        child.kill()
        remover.join()
