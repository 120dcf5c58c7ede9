"""What damonfs costs: reads and writes per second, in memory and through FUSE; the time of a snapshot through the tree.

A snapshot is ``update_schemes_tried_regions`` and reading every region's four files. It is shown without the wait for
the next aggregation, too: that is the part that the file system adds. In the guest lab (``lab/run -- python -m
benchmarks damonfs``) the kernel's own files are measured the same way, beside ours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydamon.damonfs import server
from pydamon.damonfs.levels import level
from pydamon.damonfs.runner import starter
from pydamon.damonfs.tree import DamonTree
from pydamon.errors import PydamonError

_SECONDS = 2.0
_SNAPSHOTS = 8
_AGGR_US = 100_000
_REGIONS = 100
_FIELDS = ("start", "end", "nr_accesses", "age")
_KERNEL = Path("/sys/kernel/mm/damon/admin")
# 64 MiB of which every eighth MiB is used: many regions.
_TARGET = """
block = bytearray(64 << 20)
print(flush=True)
while True:
    for part in range(0, 64, 8):
        for at in range(part << 20, part + 1 << 20, 4096):
            block[at] = 1
"""


def main() -> None:
    """Measure and print."""
    with subprocess.Popen([sys.executable, "-c", _TARGET], stdout=subprocess.PIPE) as target:
        assert target.stdout is not None
        target.stdout.readline()
        try:
            _all(target.pid)
        finally:
            target.kill()


def _all(pid: int) -> None:
    tree = DamonTree(level("6.12"), start=starter(), avail_operations=lambda: ["vaddr"])
    _report("the tree in memory, no FUSE", pid, lambda name: tree.read(f"/admin/{name}"), _writer(tree), _lister(tree))
    tree.close()
    with tempfile.TemporaryDirectory() as directory:
        try:
            served = server.start(directory, server.Options(level="6.12"), log=None, session=False)
        except PydamonError as error:
            print(f"through FUSE: {error}")
        else:
            root = Path(directory) / "admin"
            _report("through FUSE", pid, *_files(root))
            served.close()
    if "pydamon.lab=1" in Path("/proc/cmdline").read_text().split():
        _report("the kernel's own files", pid, *_files(_KERNEL))


def _writer(tree: DamonTree) -> Callable[[str, object], object]:
    return lambda name, value: tree.write(f"/admin/{name}", str(value))


def _lister(tree: DamonTree) -> Callable[[str], list[str]]:
    return lambda name: tree.names(f"/admin/{name}")


def _files(root: Path) -> tuple[Callable[[str], str], Callable[[str, object], object], Callable[[str], list[str]]]:
    return (
        lambda name: (root / name).read_text(),
        lambda name, value: (root / name).write_text(str(value)),
        lambda name: os.listdir(root / name),
    )


def _report(
    title: str,
    pid: int,
    read: Callable[[str], str],
    write: Callable[[str, object], object],
    names: Callable[[str], list[str]],
) -> None:
    write("kdamonds/nr_kdamonds", 1)
    write("kdamonds/0/contexts/nr_contexts", 1)
    context = "kdamonds/0/contexts/0"
    value = f"{context}/monitoring_attrs/nr_regions/max"
    reads = _per_second(lambda: read(value))
    writes = _per_second(lambda: write(value, 1000))
    write(f"{context}/monitoring_attrs/nr_regions/min", _REGIONS)
    write(f"{context}/targets/nr_targets", 1)
    write(f"{context}/targets/0/pid_target", pid)
    write(f"{context}/schemes/nr_schemes", 1)
    for name in ("sz", "nr_accesses", "age"):
        write(f"{context}/schemes/0/access_pattern/{name}/max", 2**64 - 1)
    write("kdamonds/0/state", "on")
    folder = f"{context}/schemes/0/tried_regions"
    waits, takes, counts = [], [], []
    for _ in range(_SNAPSHOTS):
        began = time.perf_counter()
        write("kdamonds/0/state", "update_schemes_tried_regions")
        told = time.perf_counter()
        regions = [name for name in names(folder) if name.isdecimal()]
        for region in regions:
            for field in _FIELDS:
                read(f"{folder}/{region}/{field}")
        waits.append((told - began) * 1000)
        takes.append((time.perf_counter() - told) * 1000)
        counts.append(len(regions))
    write("kdamonds/0/state", "off")
    print(f"{title}:")
    print(f"  {reads:10,.0f} reads/s, {writes:10,.0f} writes/s (open, one value, close)")
    print(
        f"  a snapshot of {statistics.median(counts):.0f} regions: {statistics.median(waits):.0f} ms until it is told "
        f"(an aggregation takes {_AGGR_US // 1000} ms), {statistics.median(takes):.1f} ms to read it"
    )


def _per_second(action: Callable[[], object]) -> float:
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _SECONDS:
        for _ in range(50):
            action()
        count += 50
    return count / passed


if __name__ == "__main__":
    main()
