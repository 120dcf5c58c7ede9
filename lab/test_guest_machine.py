"""The guest is the machine that guest tests count on: each feature is used once, not only looked for."""

import ctypes
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.guest

PAGE = mmap.PAGESIZE
MIB = 1 << 20
KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
BITMAP = "/sys/kernel/mm/page_idle/bitmap"
PR_SET_VMA, PR_SET_VMA_ANON_NAME = 0x53564D41, 0
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Keep this process, and what it starts, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, before)


class Area:
    """Anonymous memory whose pages are all present."""

    def __init__(self, size: int) -> None:
        self.map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.size = size
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.touch()

    def touch(self, size: int | None = None) -> None:
        """Write to each page of the first ``size`` bytes."""
        for offset in range(0, size or self.size, PAGE):
            self.map[offset] = 1

    def pagemap(self, page: int = 0) -> int:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            entry = os.pread(file.fileno(), 8, (self.address // PAGE + page) * 8)
        return struct.unpack("=Q", entry)[0]


def test_checkout_and_interpreter_are_the_hosts_and_read_only():
    import numpy
    import pyarrow

    import pydamon

    assert numpy.arange(3).sum() == pyarrow.array([1, 2]).to_numpy().sum() == 3
    assert Path(pydamon.__file__).is_relative_to(Path(__file__).parents[1])
    with pytest.raises(OSError, match="Read-only"):
        Path(__file__).with_name("written-by-the-guest").touch()


def test_two_nodes_of_which_one_has_no_cpu():
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    cpus = [(node / "cpulist").read_text().strip() for node in nodes]
    assert cpus == ["0-1", ""]
    totals = [int((node / "meminfo").read_text().split("MemTotal:")[1].split()[0]) for node in nodes]
    assert totals[0] > 1500 * 1024
    assert totals[1] > 700 * 1024


def test_memory_can_be_paged_out_to_zram():
    assert Path("/proc/swaps").read_text().splitlines()[1].startswith("/dev/zram0")
    area = Area(4 * MIB)
    area.map.madvise(21)  # MADV_PAGEOUT, which the mmap module does not name
    swapped = sum(area.pagemap(page) >> 62 & 1 for page in range(area.size // PAGE))
    assert swapped > area.size // PAGE // 2


def test_idle_bitmap_sees_an_access(one_cpu):
    area = Area(MIB)  # more than a CPU's batch of pages that are not on the LRU yet
    entry = area.pagemap()
    frame = entry & (1 << 55) - 1
    assert entry >> 63
    assert frame
    where, bit = frame // 64 * 8, 1 << frame % 64
    with open(BITMAP, "r+b", buffering=0) as bitmap:

        def idle() -> bool:
            return bool(struct.unpack("=Q", os.pread(bitmap.fileno(), 8, where))[0] & bit)

        os.pwrite(bitmap.fileno(), struct.pack("=Q", bit), where)
        assert idle()
        # Marking clears the PTE's bit without flushing the TLB: until this CPU forgets the translation, an
        # access leaves no trace. Idling does not make it forget; running another process on it does.
        subprocess.run(["true"], check=True)
        assert idle()
        area.touch(PAGE)
        assert not idle()


def test_soft_dirty_sees_a_write():
    area = Area(8 * PAGE)
    Path("/proc/self/clear_refs").write_text("4")
    assert not area.pagemap(3) >> 55 & 1
    area.map[3 * PAGE] = 2
    assert area.pagemap(3) >> 55 & 1
    assert not area.pagemap(5) >> 55 & 1


def test_btf_is_there_for_bpf():
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        assert file.read(2) == b"\x9f\xeb"
    assert os.path.ismount("/sys/fs/bpf")


def test_anonymous_memory_can_have_a_name():
    area = Area(4 * PAGE)
    named = libc.prctl(PR_SET_VMA, ctypes.c_ulong(PR_SET_VMA_ANON_NAME), ctypes.c_ulong(area.address),
                       ctypes.c_ulong(area.size), ctypes.c_char_p(b"lab"))  # fmt: skip
    assert named == 0
    assert "[anon:lab]" in Path("/proc/self/maps").read_text()


def test_cgroup_v2_controls_memory():
    group = Path("/sys/fs/cgroup/lab-test")
    group.mkdir()
    try:
        (group / "memory.max").write_text("64M")
        assert (group / "memory.max").read_text() == f"{64 * MIB}\n"
        assert (group / "cpu.max").exists()
    finally:
        group.rmdir()


@pytest.fixture
def kdamond() -> Iterator[Path]:
    count = KDAMONDS / "nr_kdamonds"
    count.write_text("1")
    yield KDAMONDS / "0"
    if (KDAMONDS / "0" / "state").read_text() == "on\n":
        (KDAMONDS / "0" / "state").write_text("off")
    count.write_text("0")


@pytest.mark.parametrize("ops", ["vaddr", "fvaddr", "paddr"])
def test_kernel_damon_knows_the_operations_set(kdamond, ops):
    (kdamond / "contexts/nr_contexts").write_text("1")
    operations = kdamond / "contexts/0/operations"
    assert ops in (kdamond / "contexts/0/avail_operations").read_text().split()
    operations.write_text(ops)
    assert operations.read_text() == f"{ops}\n"


def test_kernel_damon_finds_the_hot_half_of_this_process(kdamond, one_cpu):
    area = Area(4 * MIB)
    (kdamond / "contexts/nr_contexts").write_text("1")
    context = kdamond / "contexts/0"
    (context / "operations").write_text("fvaddr")
    (context / "targets/nr_targets").write_text("1")
    (context / "targets/0/pid_target").write_text(str(os.getpid()))
    (context / "targets/0/regions/nr_regions").write_text("1")
    (context / "targets/0/regions/0/start").write_text(str(area.address))
    (context / "targets/0/regions/0/end").write_text(str(area.address + area.size))
    # A scheme that does nothing but count: its tried regions are the monitoring results.
    (context / "schemes/nr_schemes").write_text("1")
    scheme = context / "schemes/0"
    (scheme / "action").write_text("stat")
    for directory, most in (("sz", 2**64 - 1), ("nr_accesses", 2**32 - 1), ("age", 2**32 - 1)):
        (scheme / "access_pattern" / directory / "min").write_text("0")
        (scheme / "access_pattern" / directory / "max").write_text(str(most))
    (kdamond / "state").write_text("on")

    hot = cold = 0.0
    end = time.monotonic() + 60
    neighbour = subprocess.Popen(["sh", "-c", "while :; do :; done"])  # DAMON does not flush the TLB either
    try:
        while time.monotonic() < end and not (hot > 3 and hot > 5 * cold):
            working = time.monotonic() + 1
            while time.monotonic() < working:
                area.map[: area.size // 2 : PAGE]  # reads a byte of each page
                os.sched_yield()
            (kdamond / "state").write_text("update_schemes_tried_regions")
            hot = cold = 0.0  # mean accesses of the two halves, each region weighed by its bytes
            middle = area.address + area.size // 2
            for region in (scheme / "tried_regions").glob("[0-9]*"):
                first, last, accesses = (int((region / f).read_text()) for f in ("start", "end", "nr_accesses"))
                below = max(0, min(last, middle) - first)
                hot += accesses * below / (area.size // 2)
                cold += accesses * (last - first - below) / (area.size // 2)
    finally:
        neighbour.kill()
        neighbour.wait()
    assert hot > 3
    assert hot > 5 * cold
