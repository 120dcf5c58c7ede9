"""What the options of ``lab/run`` put into the guest, as the guest sees it.

``make lab`` runs it on a machine with everything; on another machine a test whose option was not given is skipped.
"""

import contextlib
import ctypes
import json
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hardware import Machine
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.guest

NODES = Path("/sys/devices/system/node")
MIB = 1 << 20
MADV_PAGEOUT = 21
SYS_MIGRATE_PAGES = 256
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(name="machine", scope="module")
def machine_fixture() -> Machine:
    asked = json.loads(Path("/run/lab/machine.json").read_text())
    return Machine(**asked | {"nodes_mib": tuple(asked["nodes_mib"])})


def vmstat() -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, Path("/proc/vmstat").read_text().splitlines())}


def test_each_node_has_its_memory_and_the_first_has_the_processors(machine):
    nodes = sorted(NODES.glob("node[0-9]*"))
    assert [(node / "cpulist").read_text().strip() for node in nodes] == ["0-1"] + [""] * (len(machine.nodes_mib) - 1)
    for node, size in zip(nodes, machine.nodes_mib, strict=True):
        kib = int((node / "meminfo").read_text().split("MemTotal:")[1].split()[0])
        assert size * 1024 * 0.6 < kib <= size * 1024  # the kernel itself and its tables have the rest


def test_a_third_node_takes_pages_that_are_moved_to_it(machine):
    if len(machine.nodes_mib) < 3:
        pytest.skip("lab/run --nodes 3")
    area = mmap.mmap(-1, 16 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.write(b"x" * len(area))
    before = vmstat()["pgmigrate_success"]
    from_node, to_node = ctypes.c_ulong(0b001), ctypes.c_ulong(0b100)
    assert LIBC.syscall(SYS_MIGRATE_PAGES, 0, 64, ctypes.byref(from_node), ctypes.byref(to_node)) >= 0
    words = Path("/proc/self/numa_maps").read_text().split()
    assert sum(int(word[3:]) for word in words if word.startswith("N2=")) > 3000
    assert vmstat()["pgmigrate_success"] - before > 3000


def test_the_firmware_tells_latency_and_bandwidth(machine):
    if not machine.hmat:
        pytest.skip("lab/run --hmat")
    for number in range(len(machine.nodes_mib)):
        told = NODES / f"node{number}/access0/initiators"
        assert int((told / "read_latency").read_text()) == 100 * (number + 1)
        assert int((told / "read_bandwidth").read_text()) == 8192 >> number
    tiers = Path("/sys/devices/virtual/memory_tiering").glob("memory_tier*")
    assert len(list(tiers)) == len(machine.nodes_mib)  # each is a tier of its own


def test_the_disk_is_mounted_and_empty(machine):
    if not machine.disk_mib:
        pytest.skip("lab/run --disk 256M")
    assert os.path.ismount("/mnt")
    found = os.statvfs("/mnt")
    assert 0.7 * machine.disk_mib < found.f_bavail * found.f_frsize / MIB <= machine.disk_mib
    Path("/mnt/file").write_bytes(b"x" * MIB)
    assert "lost+found" in os.listdir("/mnt")


def test_what_is_freed_is_reported_to_the_host(machine):
    if not machine.balloon:
        pytest.skip("lab/run --balloon")
    (device,) = Path("/sys/bus/virtio/drivers/virtio_balloon").glob("virtio*")
    features = (device / "features").read_text().strip()
    assert features[5] == "1"  # VIRTIO_BALLOON_F_REPORTING


def test_the_processor_has_five_levels_only_if_asked(machine):
    flags = Path("/proc/cpuinfo").read_text().split()
    assert ("la57" in flags) == (machine.five_levels or "la57=on" in (machine.cpu or ""))


def test_the_kernel_was_given_the_text(machine):
    assert machine.append in Path("/proc/cmdline").read_text()


def test_the_kernel_counts_what_is_swapped_moved_and_refaulted():
    assert {"pgmigrate_success", "pswpin", "pswpout", "workingset_refault_anon", "pgmajfault"} <= vmstat().keys()
    before = vmstat()["pswpout"]
    area = mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.write(b"x" * len(area))
    area.madvise(MADV_PAGEOUT)
    assert vmstat()["pswpout"] - before > 1000


def test_generations_are_on_and_balancing_is_off():
    assert int(Path("/sys/kernel/mm/lru_gen/enabled").read_text(), 16) & 1
    assert Path("/proc/sys/kernel/numa_balancing").read_text() == "0\n"


@pytest.fixture(name="loop")
def loop_fixture(tmp_path: Path) -> Iterator[str]:
    """A loop device on a file of 16 MiB."""
    with (tmp_path / "backing").open("wb") as file:
        file.truncate(16 * MIB)
    found = subprocess.run(
        ["losetup", "--find", "--show", tmp_path / "backing"], capture_output=True, text=True, check=True
    )
    yield found.stdout.strip()
    subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


def test_zram_writes_idle_pages_to_a_loop_device(loop):
    control = Path("/sys/class/zram-control")
    number = (control / "hot_add").read_text().strip()
    zram = Path(f"/sys/block/zram{number}")
    try:
        (zram / "comp_algorithm").write_text("zstd")
        (zram / "backing_dev").write_text(loop)
        (zram / "disksize").write_text(str(16 * MIB))
        with open(f"/dev/zram{number}", "r+b", buffering=0) as device:
            device.write(os.urandom(MIB))  # does not compress
            os.fsync(device)
        assert (zram / "mm_stat").read_text().split()[0] == str(MIB)

        def written() -> bool:
            (zram / "idle").write_text("1")  # what was not used for one second: ZRAM_MEMORY_TRACKING
            (zram / "writeback").write_text("idle")
            return int((zram / "bd_stat").read_text().split()[0]) == MIB // 4096

        wait_until(written)
        with open(f"/dev/zram{number}", "rb", buffering=0) as device:
            assert len(device.read(MIB)) == MIB
    finally:
        (zram / "reset").write_text("1")
        with contextlib.suppress(OSError):
            (control / "hot_remove").write_text(number)
