"""The formats of page tables that the BPF programs can walk, as data; each program is assembled for one of them.

x86-64: Intel's Software Developer's Manual, volume 3A, chapter 5 (paging), and the kernel's
Documentation/arch/x86/x86_64/5level-paging.rst. arm64: the Arm Architecture Reference Manual, D8 (VMSAv8-64), and the
kernel's Documentation/arch/arm64/memory.rst.
"""

from __future__ import annotations

import os
import platform
import re
import sys

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.linux import bpf_syscall
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.texts import read_lines

Entries = NDArray[np.uint64]

LEVEL_UNKNOWN = 0  # a read failed, or the address is not a user-space one
LEVEL_ABSENT = 1  # nothing is mapped there now
LEVEL_4K = 2  # an entry of the lowest table
LEVEL_2M = 3  # a leaf one table above
LEVEL_1G = 4  # a leaf two tables above

TRY_UNTESTED = "PYDAMON_TRY_UNTESTED"  # set to 1: walk formats that nobody has tried on a running kernel


class PageTables(msgspec.Struct, frozen=True):
    """A format with pages of 4 KiB and tables of 512 entries of 8 bytes."""

    name: str
    address_bits: int  # user-space addresses end at 2 to the power of this
    levels: tuple[tuple[int, int | None], ...]  # from the top: shift of the index, LEVEL_ of a leaf there (None: none)
    leaf: tuple[int, int]  # in an upper table: these bits have this value in an entry that is a leaf
    table: tuple[int, int]  # ... and in one that leads to a table
    mapped: int  # in the lowest table: any of these bits is set in an entry that maps a page
    present: int  # any access to a page whose entry lacks this bit faults
    accessed: int
    inverted: bool  # in entries that are not present the kernel inverts the address
    frame_bits: int  # a physical address has no more bits
    contiguous: int | None  # with this bit, the accessed bit of any entry of its group of 16 may stand for all of them
    tried: bool  # on a running kernel

    def accessed_of(self, entries: Entries) -> Flags:
        """Whether the accessed bit is set in each entry; shape (n,)."""
        flags: Flags = (entries & np.uint64(self.accessed)) != 0
        return flags

    def frames_of(self, entries: Entries, mask: np.uint64) -> Frames:
        """The page frame number in each entry of a mapped page; ``mask``: the bits that are a physical address."""
        if self.inverted:
            entries = np.where(entries & np.uint64(self.present), entries, ~entries)
        frames: Frames = (entries & mask) >> np.uint64(12)
        return frames


_P, _LARGE, _PROTNONE = 1 << 0, 1 << 7, 1 << 8
_BOTTOM = ((39, None), (30, LEVEL_1G), (21, LEVEL_2M), (12, LEVEL_4K))


def _x86(name: str, address_bits: int, levels: tuple[tuple[int, int | None], ...], *, tried: bool) -> PageTables:
    return PageTables(
        name=name,
        address_bits=address_bits,
        levels=levels,
        # The bit alone means present: a huge page that is being split loses the other for a moment.
        leaf=(_LARGE, _LARGE),
        table=(_P, _P),
        mapped=_P | _PROTNONE,  # PROT_NONE and NUMA hinting: mapped, but every access faults
        present=_P,
        accessed=1 << 5,
        inverted=True,  # against speculative reads (L1TF)
        frame_bits=52,
        contiguous=None,
        tried=tried,
    )


def _arm64(name: str, address_bits: int) -> PageTables:
    return PageTables(
        name=name,
        address_bits=address_bits,
        levels=tuple((shift, leaf) for shift, leaf in _BOTTOM if shift < address_bits),
        leaf=(0b11, 0b01),  # a block descriptor
        table=(0b11, 0b11),
        # What is mapped without access (PROT_NONE, NUMA hinting) counts as absent: no manual says how Linux marks it.
        mapped=1 << 0,
        present=1 << 0,
        accessed=1 << 10,  # AF
        inverted=False,
        frame_bits=48,
        contiguous=1 << 52,
        tried=False,
    )


X86_4 = _x86("x86-64 with four levels", 47, _BOTTOM, tried=True)
X86_5 = _x86("x86-64 with five levels (la57)", 56, ((48, None), *_BOTTOM), tried=True)
ARM64_39 = _arm64("arm64 with 4 KiB pages and 39-bit addresses", 39)
ARM64_48 = _arm64("arm64 with 4 KiB pages and 48-bit addresses", 48)


def of_this_machine(cpuinfo: str) -> PageTables:
    """The format of the tables that this machine uses now. ``cpuinfo``: text of /proc/cpuinfo, of one processor.

    Raises MachineError for one that is not known here, or known but untried (unless `TRY_UNTESTED` is set).
    """
    machine = platform.machine()
    if sys.maxsize < 1 << 32 or machine not in ("x86_64", "aarch64"):
        raise bpf_syscall.unusable(f"the page-table walk knows x86-64 and arm64 only; this is {machine}")
    if machine == "x86_64":
        # The kernel drops the flag if it was booted with four levels on a processor that has five.
        found = X86_5 if "la57" in cpuinfo.split() else X86_4
    else:
        size = os.sysconf("SC_PAGESIZE")
        if size != 4096:
            raise bpf_syscall.unusable(
                f"on arm64 the page-table walk knows pages of 4 KiB; here they have {size} bytes"
            )
        found = ARM64_48 if _highest_mapping() >> 39 else ARM64_39
    if not found.tried and os.environ.get(TRY_UNTESTED) != "1":
        raise bpf_syscall.unusable(
            f"nobody has tried the page-table walk on {found.name} yet; to try it, set {TRY_UNTESTED}=1"
        )
    return found


def physical_address_bits(tables: PageTables, cpuinfo: str) -> int:
    """How many bits a physical address has on this machine."""
    found = re.search(r"^address sizes\s*: (\d+) bits physical", cpuinfo, re.MULTILINE)
    return min(int(found[1]), tables.frame_bits) if found else tables.frame_bits


def _highest_mapping() -> int:
    """Address of this process's mapping that is highest (its stack: near the end of what addresses there are)."""
    return max((int(line.partition("-")[0], 16) for line in read_lines("/proc/self/maps")), default=0)
