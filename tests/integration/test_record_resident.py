"""What is resident, of programs whose regions are much larger than their memory, compared with what the kernel says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers.again import for_longer
from tests.helpers.command import pydamon
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.core.snapshot import Snapshot
from pydamon.records.reader import RecordReader

PAGE = 4096
THREADS = """
import threading, time
def deep(k): return deep(k - 1) if k else 0
def work():
    while True:
        deep(20)
        time.sleep(0.02)
threading.stack_size(8 << 20)
for _ in range(100): threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
time.sleep(1000)
"""
EIGHTH = """
import mmap, time
area = mmap.mmap(-1, 128 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)
for _ in range(100000):
    view[:: 8 * 4096] = bytes(4096)
    if _ == 0: print("ready", flush=True)
    time.sleep(0.01)
"""


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


@pytest.mark.parametrize(("text", "mapped"), [(THREADS, 800 << 20), (EIGHTH, 128 << 20)])
def test_what_is_used_is_never_more_than_what_is_resident(text: str, mapped: int, tmp_path: Path) -> None:
    with program(text) as pid:
        wait_until(lambda: rss(pid) > 4 << 20)
        found: list[Snapshot] = []

        def record(duration: str) -> None:
            done = pydamon("record", "-o", str(tmp_path / "r"), "--force", "--duration", duration, str(pid))
            assert done.returncode == 0, done.stderr
            with RecordReader(tmp_path / "r") as reader:
                # The last one ends with the recording: after one sample of it, perhaps.
                found[:] = list(reader.snapshots())[-2:]

        for_longer(record, lambda: found and (found[0].nr_accesses > 0).any(), 4)
        resident = rss(pid)
    last = found[0]
    told = last.column("resident")
    assert told is not None
    assert (told != 2**64 - 1).all()
    assert int((last.end - last.start).sum()) > mapped
    used = int(told[last.nr_accesses > 0].sum(dtype=np.uint64))
    assert 1 << 20 < used <= int(told.sum(dtype=np.uint64)) <= resident + 16 * PAGE
