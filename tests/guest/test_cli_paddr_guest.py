"""``pydamon record --ops paddr`` and ``--ops fvaddr`` on a real kernel, and what the reports say about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.cgroups import remove
from tests.helpers.command import pydamon
from tests.helpers.neighbour import neighbour

from pydamon.linux.mounts import mounts
from pydamon.records.reader import RecordReader

pytestmark = pytest.mark.guest

MIB = 1 << 20
# Sweeps the memory without pause; a second of it is about 40 sweeps in the emulated guest.
SWEEPER = """
import ctypes, mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
while True:
    for at in range(0, len(area), 4096):
        area[at] = 1
"""


@pytest.fixture
def sweeper() -> Iterator[tuple[int, int]]:
    """(pid, address) of a process that writes to 64 MiB all the time."""
    child = subprocess.Popen([sys.executable, "-c", SWEEPER, str(64 * MIB)], stdout=subprocess.PIPE)
    assert child.stdout
    with neighbour(child.pid):
        yield child.pid, int(child.stdout.readline())
    child.kill()
    child.communicate()


def report(verb: str, path: Path) -> list[dict[str, Any]]:
    done = pydamon("report", verb, "-i", str(path), "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_physical_memory_is_recorded_with_its_owners(sweeper: tuple[int, int], tmp_path: Path) -> None:
    out = tmp_path / "phys.damon"
    options = ["--sample", "50ms", "--aggr", "500ms", "--update", "2s", "--duration", "12s", "--min-regions", "100"]
    done = pydamon("record", "-o", str(out), "--ops", "paddr", "--seed", "1", *options)
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("pydamon: monitoring physical memory through idle")
    assert sum("whose memory it is was looked up" in line for line in lines) == 1
    assert sum("cost:" in line and " checks and " in line for line in lines) == 1
    with RecordReader(out) as reader:
        assert reader.info.ops == "paddr"
        assert [(t.target, t.pid, t.command) for t in reader.info.targets] == [(0, None, "physical memory")]
        tables = {entry.name for entry in reader.tables()}
        assert {"maps", "owners", "reverse_map", "cost"} <= tables
        owners = [row for piece in reader.table("owners") for row in piece.to_pylist()]
        looked = [row for piece in reader.table("reverse_map") for row in piece.to_pylist()]
    assert len(looked) >= 2  # looked up anew
    assert looked[-1]["total_ns"] > looked[0]["total_ns"] > 0
    last = [row for row in owners if row["time_ns"] == owners[-1]["time_ns"]]
    mapped = sum(row["mapped_bytes"] for row in last if row["pid"] == sweeper[0])
    assert mapped > 32 * MIB  # of 64: only the three largest of each region are kept
    (shown,) = report("access", out)
    regions = shown["regions"]
    assert isinstance(regions, list)
    named = [region for region in regions if any(f"({sweeper[0]}) " in name for name in region["names"])]
    assert named
    # Where it is the largest owner is hot; where nobody is, is not.
    hot = [r for r in regions if r["nr_accesses"] >= 5]
    assert hot
    text = pydamon("report", "access", "-i", str(out)).stdout
    print(text)
    assert f"({sweeper[0]}) " in text
    cost = pydamon("report", "cost", "-i", str(out))
    assert cost.returncode == 0, cost.stderr
    assert "reverse map" in cost.stdout


def test_how_much_of_physical_memory_is_of_a_cgroup(tmp_path: Path) -> None:
    cgroup = mounts("cgroup2")[0] / f"pydamon-probes-{os.getpid()}"
    (cgroup.parent / "cgroup.subtree_control").write_text("+memory")
    cgroup.mkdir()
    try:
        # Born into the cgroup: all its memory is the cgroup's.
        join = f'echo 0 > {cgroup}/cgroup.procs; exec "$@"'
        command = ["sh", "-c", join, "sh", sys.executable, "-c", SWEEPER, str(64 * MIB)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline()
        out = tmp_path / "phys.damon"
        options = ["--sample", "50ms", "--aggr", "500ms", "--duration", "15s", "--min-regions", "200"]
        done = pydamon(
            "record", "-o", str(out), "--ops", "paddr", *options, "--probe", f"memcg=/{cgroup.name}", "--probe", "anon"
        )
        charged = int((cgroup / "memory.current").read_text())
        child.kill()
        child.communicate()
        assert done.returncode == 0, done.stderr
        mine, anon = report("attrs", out)[0]["probes"]
        print(mine, anon, charged)
        # The cgroup's memory as the kernel counts it; samples tell it about so well.
        assert mine["accessed_bytes"] + mine["idle_bytes"] == pytest.approx(charged, rel=0.4)
        assert anon["accessed_bytes"] >= 0.8 * mine["accessed_bytes"] > 0
    finally:
        (cgroup / "cgroup.kill").write_text("1")
        remove(cgroup)


def test_regions_limit_what_is_monitored_of_physical_memory(tmp_path: Path) -> None:
    out = tmp_path / "phys.damon"
    limits = ["--region", "0x8000000-0x9000000", "--region", "0x1000000-0x3000000"]
    done = pydamon("record", "-o", str(out), "--ops", "paddr", "--duration", "2s", *limits)
    assert done.returncode == 0, done.stderr
    with RecordReader(out) as reader:
        for snapshot in reader.snapshots():
            spans = zip(snapshot.start.tolist(), snapshot.end.tolist(), strict=True)
            assert all(0x1000000 <= a < b <= 0x3000000 or 0x8000000 <= a < b <= 0x9000000 for a, b in spans)
            assert int((snapshot.end - snapshot.start).sum()) == 0x3000000


def test_where_there_is_no_memory_is_said_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "phys.damon"
    done = pydamon("record", "-o", str(out), "--ops", "paddr", "--region", "0x100000000000-0x100000100000")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "has no System RAM in the given ranges" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("primitive", ["auto", "idle", "bpf+idle", "smaps"])
def test_fixed_ranges_of_a_process(sweeper: tuple[int, int], tmp_path: Path, primitive: str) -> None:
    pid, address = sweeper
    out = tmp_path / "fixed.damon"
    start, end = address + 8 * MIB, address + 24 * MIB
    options = ["--primitive", primitive, "--sample", "50ms", "--aggr", "500ms", "--duration", "4s"]
    ranges = ["--region", "0x10000-0x20000", "--region", f"{start:#x}-{end:#x}"]
    done = pydamon("record", "-o", str(out), "--ops", "fvaddr", *options, *ranges, str(pid))
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    with RecordReader(out) as reader:
        assert [t.pid for t in reader.info.targets] == [pid]
        snapshots = list(reader.snapshots())
    assert snapshots
    for snapshot in snapshots:
        spans = zip(snapshot.start.tolist(), snapshot.end.tolist(), strict=True)
        assert all(start <= a < b <= end or 0x10000 <= a < b <= 0x20000 for a, b in spans)
    accessed = snapshots[-1].nr_accesses[snapshots[-1].start >= start]
    assert accessed.max() > 0
    # Nothing is mapped there: never "accessed".
    assert not snapshots[-1].nr_accesses[snapshots[-1].start < start].any()
