"""Free memory in whole blocks, compaction, the balloon's reporting, huge pages: as the kernel's files tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.errors import MachineError
from pydamon.linux import balloon, compaction, thp

_BUDDYINFO = """\
Node 0, zone      DMA      1      0      0      0      0      0      0      0      0      1      2
Node 0, zone   Normal    100     10      0      0      0      0      0      0      0      3      0
"""
_ROLLUP = "Rss: 100 kB\nAnonHugePages:      4096 kB\nShmemPmdMapped:     2048 kB\nFilePmdMapped:         0 kB\n"


def test_buddyinfo_tells_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "buddyinfo"
    path.write_text(_BUDDYINFO)
    blocks = 4 * (2 << 20) + 2 * (4 << 20)
    assert compaction.free(path) == compaction.Free((1 + 100 + 2 * 10) * 4096 + blocks, blocks)
    path.write_text("Node 0, zone DMA one two\n")
    assert compaction.free(path) is None
    assert compaction.free(tmp_path / "none") is None


def test_this_machines_free_memory_is_about_what_meminfo_says() -> None:
    told = compaction.free()
    assert told is not None
    assert 0 <= told.whole_bytes <= told.all_bytes
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert told.all_bytes <= int(lines["MemTotal"].split()[0]) * 1024


def test_compaction_writes_once(tmp_path: Path) -> None:
    path = tmp_path / "compact_memory"
    path.write_text("")
    compaction.require(path)
    compaction.compact(path)
    assert path.read_text() == "1\n"
    with pytest.raises(MachineError, match="CONFIG_COMPACTION"):
        compaction.compact(tmp_path / "none")


@pytest.mark.parametrize(
    ("device", "features", "driver", "words"),
    [
        ("0x0005", "0000010", True, None),
        ("0x0005", "0000000", True, "free-page-reporting=on"),
        ("0x0005", "0000010", False, "has no driver"),
        ("0x0001", "0000010", True, "no virtio balloon here"),
        ("?", "", True, "no virtio balloon here"),
    ],
)
def test_balloon(tmp_path: Path, device: str, features: str, driver: bool, words: str | None) -> None:
    path = tmp_path / "virtio0"
    path.mkdir()
    (path / "device").write_text(device + "\n")
    (path / "features").write_text(features + "\n")
    if driver:
        (path / "driver").mkdir()
    found = balloon.reporting_obstacle(tmp_path)
    assert (found is None) if words is None else (found is not None and words in found)
    assert "no virtio balloon here" in str(balloon.reporting_obstacle(tmp_path / "none"))


def test_huge_pages_are_summed(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/smaps_rollup").write_text(_ROLLUP)
    assert thp.of_process(7, tmp_path) == 6 << 20
    assert thp.of_process(8, tmp_path) is None
    (tmp_path / "memory.stat").write_text("anon 5\nanon_thp 2097152\nfile_thp 0\nshmem_thp 4194304\n")
    assert thp.of_cgroup(tmp_path) == 6 << 20
    (tmp_path / "enabled").write_text("always defer [madvise] never\n")
    assert thp.mode(tmp_path / "enabled") == "madvise"
    assert thp.mode(tmp_path / "none") is None
