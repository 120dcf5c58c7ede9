"""The memory that the sampler's BPF program and this process share: one value of an array map, as NumPy records.

The header comes first, then the arrays in the order of `SamplerLayout`. The program's offsets are taken from these
records, so that there is one description of them.
"""

from __future__ import annotations

import msgspec
import numpy as np

REFUSED_RANGES = 8  # per target: mappings that are known to refuse MADV_COLD
FILTER_BITS = 16  # the panel's filter has 2**16 bits
NOTED = 1024  # cleared panel pages that one run can note

# What a run is asked to do (`HEADER["flags"]`).
CHECK = 1  # look at the watched pages and count
DRAW = 2  # draw a page per region and watch it
BEGIN = 8  # a new sample: what adds up begins at 0
FRESH = 4  # draw for regions without a watched page only, right after all of the process was cleared

# What became of a target (`TARGET["status"]`).
OK = 0
GONE = 1  # no such process, or another one has its pid
NO_MM = 2  # it has no address space: it is exiting
CHANGED = 3  # its address space was exchanged during the run (exec): windows opened in it will say nothing

# `REGION["flags"]`.
CAREFUL = 1  # look at the struct page of every page that is drawn, also of those that need not be cleared
MET = 2  # a page was drawn that cannot be cleared alone

HEADER = np.dtype(
    [
        # in
        ("flags", np.uint32),
        ("first_target", np.uint32),
        ("end_target", np.uint32),
        ("panel", np.uint32),  # not 0: note what is cleared and passes the panel's filter
        ("base", np.uint64),  # virtual address at which the kernel maps physical address 0
        ("mask", np.uint64),  # bits of an entry that are a physical address
        ("limit", np.uint64),  # end of physical memory; a table beyond it is not believed
        ("vmemmap", np.uint64),  # address of frame 0's struct page; 0: not known
        ("random", np.uint64),  # state of the random numbers (xorshift64*), never 0
        # in and out: they add up over the runs of a sample (from BEGIN on)
        ("ranges", np.uint32),  # in iovecs
        ("parts", np.uint32),  # of these, folios smaller than 2 MiB whose mapping is to be looked at
        ("slow", np.uint32),  # regions in the slow list: a young page, about which nothing else is known
        ("unwatched", np.uint32),  # regions for which no page could be watched
        ("bad", np.uint32),  # targets whose status is not OK
        ("failed", np.uint32),  # walks that ended in memory that cannot be read
        ("noted", np.uint32),  # entries of the noted list that were wanted; those above its size are lost
        # scratch: values go through memory, so that the verifier forgets that they were constants
        ("cursor", np.uint32),
        ("end", np.uint32),
        ("step", np.uint32),
        ("level", np.uint32),
        ("target", np.uint32),
        ("stale", np.uint32),
        ("young", np.uint32),
        ("pgd", np.uint64),
        ("mm", np.uint64),
        ("address", np.uint64),
        ("entry", np.uint64),
        ("slot", np.uint64),  # where the entry is
        ("last", np.uint64),  # the range that was listed last
        ("begin", np.uint64),
        ("length", np.uint64),
    ]
)
TARGET = np.dtype(
    [
        ("identity", np.uint64),  # the task's start time; 0: the next run stores it
        ("space", np.uint64),  # tells the address space; 0: windows that are open say nothing
        ("bytes", np.uint64),  # out: sum of the lengths of its ranges
        ("pid", np.int32),
        ("status", np.uint32),
        ("first", np.uint32),  # its regions
        ("count", np.uint32),
        ("first_range", np.uint32),  # out: its iovecs
        ("ranges", np.uint32),
        ("unwatched", np.uint32),  # out: its regions without a watched page
        ("refusals", np.uint32),  # entries of `refused` in use
        ("owner", np.uint32),  # place of the target in the caller's list
        ("absent", np.uint32),  # out, adds up: pages that were drawn and are absent, where no resident one is known
        ("refused", np.uint64, (REFUSED_RANGES, 2)),  # start and length in bytes
    ]
)
REGION = np.dtype(  # one cache line
    [
        ("start", np.uint64),
        ("pages", np.uint64),
        ("watched", np.uint64),  # address of the page whose window is open; 0: none
        ("accessed", np.int64),
        ("unknown", np.int64),
        ("drawn", np.uint64),  # the page that was drawn first
        ("rank", np.uint32),  # number of its first resident page among all resident pages
        ("resident", np.uint32),  # resident pages that are known; 0: draw from all pages
        ("level", np.uint32),  # at the start of the window
        ("flags", np.uint32),
    ]
)
IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])
NOTE = np.dtype([("base", np.uint64), ("pages", np.uint32), ("target", np.uint32)])

RUN_REGIONS = 4096  # that one run handles at most
RUN_TARGETS = 256
BEHIND_ALL = 1 << 62  # a rank above any


class SamplerLayout(msgspec.Struct, frozen=True):
    """Where the arrays are, for that many target records, regions and runs of resident pages (powers of two)."""

    targets: int = RUN_TARGETS
    regions: int = RUN_REGIONS
    run_bits: int = 12

    @classmethod
    def for_size(cls, targets: int, regions: int, runs: int) -> SamplerLayout:
        """The smallest layout that has room for these, but never below the default one."""
        small = cls()
        return cls(
            max(small.targets, _power_of_two(targets)),
            max(small.regions, _power_of_two(regions)),
            max(small.run_bits, (_power_of_two(runs)).bit_length() - 1),
        )

    def has_room(self, targets: int, regions: int, runs: int) -> bool:
        """Whether as many fit."""
        return targets <= self.targets and regions <= self.regions and runs <= self.runs

    @property
    def runs(self) -> int:
        """Runs of resident pages there is room for."""
        return 1 << self.run_bits

    @property
    def targets_at(self) -> int:
        """TARGET records."""
        return HEADER.itemsize + -HEADER.itemsize % 64

    @property
    def regions_at(self) -> int:
        """REGION records."""
        return self.targets_at + self.targets * TARGET.itemsize

    @property
    def iovecs_at(self) -> int:
        """IOVEC records: at most one per region."""
        return self.regions_at + self.regions * REGION.itemsize

    @property
    def slow_at(self) -> int:
        """uint32: numbers of regions."""
        return self.iovecs_at + self.regions * IOVEC.itemsize

    @property
    def before_at(self) -> int:
        """uint64 per run of resident pages: how many such pages come before it; BEHIND_ALL where there is no run."""
        return self.slow_at + self.regions * 4

    @property
    def starts_at(self) -> int:
        """uint64 per run of resident pages: its address."""
        return self.before_at + self.runs * 8

    @property
    def filter_at(self) -> int:
        """The panel's filter: a bit per hash of a page number."""
        return self.starts_at + self.runs * 8

    @property
    def noted_at(self) -> int:
        """NOTE records."""
        return self.filter_at + (1 << FILTER_BITS) // 8

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return self.noted_at + NOTED * NOTE.itemsize


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
