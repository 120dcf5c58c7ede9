"""Metrics for quota goals, from recorded text; the definitions are the kernel's (see `pydamon.linux.metrics`)."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from pydamon.errors import MachineError
from pydamon.linux import memcg
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.refaults import Refaults

MEMINFO = """MemTotal:        4000000 kB
MemFree:          900001 kB
Cached:            12345 kB
Active(anon):     300000 kB
Inactive(anon):   100000 kB
Active(file):     150000 kB
Inactive(file):   250000 kB
"""
NODE = "Node 1 MemTotal:       1000000 kB\nNode 1 MemFree:         250001 kB\nNode 1 MemUsed:  749999 kB\n"
PSI = "some avg10=0.00 avg60=0.12 avg300=0.00 total=11007\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=779\n"
STAT = (
    "anon N0=1 N1=2\ninactive_anon N0=0 N1=40960000\nactive_anon N0=0 N1=10240000\n"
    "inactive_file N0=4096 N1=51200000\nactive_file N0=0 N1=0\nunevictable N0=0 N1=999999999\n"
)


def texts(path: str) -> str:
    known = {
        "/proc/meminfo": MEMINFO,
        "/proc/pressure/memory": PSI,
        "/proc/pressure/io": PSI.replace("11007", "2024"),
        "/sys/devices/system/node/node1/meminfo": NODE,
    }
    if path not in known:
        raise MachineError("does not exist on this machine", where=path)
    return known[path]


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "memory.numa_stat").write_text(STAT)
    return tmp_path


def test_free_memory() -> None:
    assert MachineMetrics(read=texts).free_mem_permil() == 225  # 900001 * 1000 // 4000000


def test_pressure() -> None:
    assert MachineMetrics(read=texts).some_mem_psi_us() == 11007
    assert MachineMetrics(read=texts).some_io_psi_us() == 2024


def test_a_node() -> None:
    metrics = MachineMetrics(read=texts)
    assert metrics.node_mem_bp(1, used=False) == 2500
    assert metrics.node_mem_bp(1, used=True) == 7499  # what is not free, rounded down on its own
    with pytest.raises(MachineError, match="NUMA node 3 has no memory here"):
        metrics.node_mem_bp(3, used=True)


def test_a_cgroup_on_a_node(cgroup: Path) -> None:
    metrics = MachineMetrics(read=texts, below=[cgroup])
    # 102,400,000 bytes on the LRU lists of 1,024,000,000: what is not on them does not count.
    for path in ("a/b", "/a/b", f"{cgroup}/a/b"):
        assert metrics.node_memcg_bp(1, path, used=True) == 1000
        assert metrics.node_memcg_bp(1, path, used=False) == 9000


def test_active_and_inactive() -> None:
    metrics = MachineMetrics(read=texts)
    assert (metrics.active_bp(active=True), metrics.active_bp(active=False)) == (5625, 4375)


@pytest.mark.parametrize("path", ["a/c", "/a/b/../../..", "../..", "\0", "/etc", ""])
def test_what_is_no_cgroup(cgroup: Path, path: str) -> None:
    if path == "":
        assert memcg.directory(path, [cgroup]) == cgroup.resolve()
        return
    with pytest.raises(MachineError):
        memcg.directory(path, [cgroup])


def test_what_the_machine_does_not_tell(cgroup: Path) -> None:
    def nothing(path: str) -> str:
        raise MachineError("does not exist on this machine", where=path)

    metrics = MachineMetrics(read=nothing, below=[cgroup])
    for call in (
        metrics.free_mem_permil,
        metrics.some_mem_psi_us,
        metrics.some_io_psi_us,
        lambda: metrics.node_mem_bp(0, used=True),
        lambda: metrics.active_bp(active=True),
    ):
        with pytest.raises(MachineError):
            call()
    with pytest.raises(MachineError, match="memory controller"):
        memcg.lru_bytes_by_node("a", [cgroup])
    with pytest.raises(MachineError, match="no cgroup v2"):
        memcg.directory("a", [])
    odd = MachineMetrics(read=lambda path: "MemTotal: 0 kB\nMemFree: 0 kB\n")
    with pytest.raises(MachineError, match="is 0"):
        odd.free_mem_permil()


def test_what_came_back_is_counted_for_the_targets() -> None:
    assert MachineMetrics(counters=lambda: Refaults(refaulted_bytes=5, major_faults=1)).refaulted_bytes() == 5
    assert MachineMetrics(counters=lambda: Refaults(major_faults=2)).refaulted_bytes() == 2 * mmap.PAGESIZE
    with pytest.raises(MachineError, match="nothing counts here what comes back"):
        MachineMetrics().refaulted_bytes()


def test_this_machine() -> None:
    metrics = MachineMetrics()
    assert 0 < metrics.free_mem_permil() <= 1000
    assert metrics.active_bp(active=True) + metrics.active_bp(active=False) in (9999, 10_000)


def test_huge_pages_are_a_share_of_what_is_not_free() -> None:
    # The notes on DAMON of 2026-11-25, T15: 180 huge pages are 92,160 pages of 4 KiB; of 1,000,000 pages 400,000 are
    # free: 92,160 * 10,000 // 600,000 = 1,536.
    def told(total: int, free: int) -> MachineMetrics:
        text = f"MemTotal: {4 * total} kB\nMemFree: {4 * free} kB\nAnonHugePages: {100 * 2048} kB\n"
        text += f"ShmemHugePages: {50 * 2048} kB\nFileHugePages: {30 * 2048} kB\n"
        return MachineMetrics(read=lambda path: text)

    assert told(1_000_000, 400_000).hugepage_bp() == 1_536
    assert told(400_000, 400_000).hugepage_bp() == 10_000  # as the kernel: nothing but huge pages
