"""Where the kernel keeps its struct pages (vmemmap): found through a file of our own, checked on own pages."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.frames import FrameInfo, Frames, on_lru
from pydamon.primitives.bpf import own_frames, own_pages
from pydamon.primitives.bpf_facts import LEAST_HEAD_MASK, SamplerFacts
from pydamon.primitives.kernel_reader import KernelReader

_OWN_PAGES = 16
_ALIGNMENT = 1 << 24  # of x86-64 it is 1 GiB; of arm64 that of the memory's start (1 GiB), in struct pages
_MADV_COLD = 20


def find_vmemmap(facts: SamplerFacts) -> int:
    """The address of frame 0's struct page; 0 if it is not found, or does not tell what /proc says of own pages."""
    try:
        reader = KernelReader(facts.walk)
    except MachineError:
        return 0
    try:
        found = _by_own_file(facts, reader)
        agrees = any(_agrees_with_proc(facts, reader, found) for _ in range(2))  # a page may move between two looks
        return found if agrees else 0
    except (LookupError, MachineError, OSError):  # another memory model, no permission
        return 0
    finally:
        reader.close()


def _by_own_file(facts: SamplerFacts, reader: KernelReader) -> int:
    """Of the only page of a file, its page cache has the struct page, and our pagemap the frame."""
    task_files, files_table, table_files, file_mapping, mapping_pages = facts.files
    fd = os.memfd_create("pydamon", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            with contextlib.suppress(OSError):  # a kernel without huge pages knows no such advice
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            memory[0] = 1
            view = ctypes.c_char.from_buffer(memory)
            address = ctypes.addressof(view)
            del view  # or the memory cannot be closed
            (files,) = reader.read([reader.own_task() + task_files])
            (table,) = reader.read([files + files_table])
            (array,) = reader.read([table + table_files])
            (file,) = reader.read([array + 8 * fd])
            (mapping,) = reader.read([file + file_mapping])
            (page,) = reader.read([mapping + mapping_pages])  # an XArray with one entry, at 0, has it in its head
            (frame,) = _own_frames(address, 1).tolist()
    finally:
        os.close(fd)
    found = page - facts.page_size * int(frame)
    if page & 3 or found % _ALIGNMENT:
        raise LookupError("struct pages do not lie in one array")
    return found


def _agrees_with_proc(facts: SamplerFacts, reader: KernelReader, vmemmap: int) -> bool:
    """Whether the struct pages of own pages say what kpageflags and kpagecount say."""
    with own_pages(_OWN_PAGES) as start:
        # Put them on an LRU list: the flag must be seen set.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(_OWN_PAGES * mmap.PAGESIZE), _MADV_COLD)
        frames = _own_frames(start, _OWN_PAGES)
        info = FrameInfo()
        try:
            listed = on_lru(info.flags(frames))
            once = [info.mapped_once(frame, 1) for frame in frames.tolist()]
        finally:
            info.close()
        flags, mapcounts = _struct_pages(facts, reader, vmemmap, frames)
    small = (flags & np.uint64(facts.head)) == 0
    counted_once = (mapcounts & np.uint64(0xFFFF_FFFF)) == 0  # it counts from -1
    return bool(
        listed.any()
        and np.array_equal((flags & np.uint64(facts.lru)) != 0, listed)
        and np.array_equal(counted_once[small], np.array(once)[small])
    )


def _own_frames(start: int, count: int) -> Frames:
    """Raises LookupError if we may not see them."""
    frames = own_frames(start, count)
    if frames is None:
        raise LookupError("frames of own pages")
    return frames


def _struct_pages(
    facts: SamplerFacts, reader: KernelReader, vmemmap: int, frames: Frames
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Flags and mapcount (with 4 bytes behind it) of the frames."""
    pages = [vmemmap + facts.page_size * frame for frame in frames.tolist()]
    heads = reader.read([page + facts.page_head for page in pages])
    pages = [_head(page, word) for page, word in zip(pages, heads, strict=True)]
    flags = reader.read([page + facts.page_flags for page in pages])
    mapcounts = reader.read([page + facts.page_mapcount for page in pages])
    return np.array(flags, np.uint64), np.array(mapcounts, np.uint64)


def _head(page: int, word: int) -> int:
    """The struct page of the head, by the word that tells of it (`bpf_program.head_of_tail`)."""
    if not word & 1:
        return page
    return page & word if word >= LEAST_HEAD_MASK else word - 1
