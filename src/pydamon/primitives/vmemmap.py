"""Where the kernel keeps its struct pages (vmemmap): found through a file of our own, checked on own pages."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    CALL,
    EXIT,
    GET_CURRENT_TASK,
    JA,
    JEQ_K,
    JGE_K,
    JNE_K,
    LD_IMM64,
    LDX4,
    LDX8,
    LSH_K,
    MOV,
    MOV_K,
    PSEUDO_MAP_VALUE,
    R0,
    R1,
    R2,
    R3,
    R7,
    R8,
    R10,
    STX8,
    Assembler,
)
from pydamon.linux.frames import FrameInfo, Frames, on_lru
from pydamon.primitives.bpf import own_frames, own_pages
from pydamon.primitives.bpf_facts import KernelFacts, SamplerFacts
from pydamon.primitives.bpf_program import kfunc, read_kernel

_WORDS = 64  # addresses in one run
_TASK_AT, _COUNT_AT, _ADDRESSES_AT = 0, 8, 16
_VALUES_AT = _ADDRESSES_AT + 8 * _WORDS
_FAILED_AT = _VALUES_AT + 8 * _WORDS
_SIZE = _FAILED_AT + 8 * _WORDS
_READ, _ITERATOR = -8, -16  # stack slots
_OWN_PAGES = 16
_ALIGNMENT = 1 << 24  # of x86-64 it is 1 GiB; of arm64 that of the memory's start (1 GiB), in struct pages
_MADV_COLD = 20


class KernelReader:
    """Reads words of kernel memory, a few at a time; for setting up only."""

    def __init__(self, facts: KernelFacts) -> None:
        self._loaded = bpf_syscall.Loaded(_SIZE, lambda map_fd: _reader_program(facts, map_fd))
        self._memory, self._run = self._loaded.memory, self._loaded.run

    def read(self, addresses: Sequence[int]) -> list[int]:
        """The 8 bytes at each address. Raises LookupError if one cannot be read."""
        found: list[int] = []
        for begin in range(0, len(addresses), _WORDS):
            part = np.array(addresses[begin : begin + _WORDS], np.uint64)
            self._memory[_COUNT_AT : _COUNT_AT + 8] = len(part).to_bytes(8, "little")
            self._memory[_ADDRESSES_AT : _ADDRESSES_AT + part.nbytes] = part.tobytes()
            self._run()
            if any(self._memory[_FAILED_AT : _FAILED_AT + part.nbytes]):
                raise LookupError("kernel memory that cannot be read")
            found += np.frombuffer(self._memory[_VALUES_AT : _VALUES_AT + part.nbytes], np.uint64).tolist()
        return found

    def own_task(self) -> int:
        """Address of this thread's task_struct."""
        self._memory[_COUNT_AT : _COUNT_AT + 8] = bytes(8)
        self._run()
        return int.from_bytes(self._memory[_TASK_AT : _TASK_AT + 8], "little")

    def close(self) -> None:
        """Unload the program."""
        self._loaded.close()


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
            (frame,) = own_frames(address, 1).tolist()
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
        frames = own_frames(start, _OWN_PAGES)
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


def _struct_pages(
    facts: SamplerFacts, reader: KernelReader, vmemmap: int, frames: Frames
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Flags and mapcount (with 4 bytes behind it) of the frames."""
    pages = [vmemmap + facts.page_size * frame for frame in frames.tolist()]
    heads = reader.read([page + facts.page_head for page in pages])
    pages = [head - 1 if head & 1 else page for page, head in zip(pages, heads, strict=True)]
    flags = reader.read([page + facts.page_flags for page in pages])
    mapcounts = reader.read([page + facts.page_mapcount for page in pages])
    return np.array(flags, np.uint64), np.array(mapcounts, np.uint64)


def _reader_program(facts: KernelFacts, map_fd: int) -> bytes:
    """For each address of the map's value: the 8 bytes there, or -EFAULT among the failures; and the current task."""
    asm = Assembler()
    emit, jump, label = asm.emit, asm.jump, asm.label
    emit(LD_IMM64, R7, PSEUDO_MAP_VALUE, imm=map_fd)
    emit(0)  # second half: offset 0 in the value
    emit(CALL, imm=GET_CURRENT_TASK)
    emit(STX8, R7, R0, _TASK_AT)
    emit(MOV, R1, R10)
    emit(ADD_K, R1, imm=_ITERATOR)
    emit(MOV_K, R2)
    emit(LDX4, R3, R7, _COUNT_AT)
    kfunc(asm, facts.loop[0])
    label("next")
    emit(MOV, R1, R10)
    emit(ADD_K, R1, imm=_ITERATOR)
    kfunc(asm, facts.loop[1])
    jump(JEQ_K, "end", R0)
    emit(LDX4, R8, R0)
    jump(JGE_K, "end", R8, imm=_WORDS)
    emit(LSH_K, R8, imm=3)
    emit(ADD, R8, R7)
    emit(LDX8, R3, R8, _ADDRESSES_AT)
    read_kernel(asm, _READ)
    emit(STX8, R8, R0, _FAILED_AT)
    emit(MOV_K, R1)
    jump(JNE_K, "store", R0)
    emit(LDX8, R1, R10, _READ)
    label("store")
    emit(STX8, R8, R1, _VALUES_AT)
    jump(JA, "next")
    label("end")
    emit(MOV, R1, R10)
    emit(ADD_K, R1, imm=_ITERATOR)
    kfunc(asm, facts.loop[2])
    emit(MOV_K, R0)
    emit(EXIT)
    return asm.code()
