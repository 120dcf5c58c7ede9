"""The memory of a running workload: real mappings of this process, placed as ``layout`` says."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.spec.units import format_size
from pydamon.workload import layout as layouts
from pydamon.workload.layout import GAP_BYTES, PAGE_SIZE, Layout
from pydamon.workload.model import Workload

_PROT_NONE = 0
_MAP_FIXED = 0x10
_MADV_NOHUGEPAGE = 15
_MADV_POPULATE_WRITE = 23  # since Linux 5.14
_PR_SET_VMA, _PR_SET_VMA_ANON_NAME = 0x53564D61, 0
_STEP_BYTES = 64 << 20  # how much is populated between two chances for a signal
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class Memory:
    """Maps, populates and fills the regions of a workload; a context manager that unmaps them.

    Every page is resident before the first phase: phases then begin and end on time, and memory that is only read has
    pages of its own (untouched anonymous memory reads from the shared zero page, which no monitor counts as accessed).
    Huge pages are off, so that the truth holds at page granularity whatever the machine's default is.

    Raises MachineError if the machine has too little memory or address space, RequestError for a bad init file.
    """

    def __init__(self, workload: Workload, mapping: str) -> None:
        sized = layouts.place(workload, 0, mapping)
        _check_available(sized)
        # One reservation, cut up afterwards: no other allocation can come in between.
        reserved_bytes = sized.end + 2 * GAP_BYTES
        reserved = _map(None, reserved_bytes, _PROT_NONE, 0)
        self.layout = layouts.place(workload, reserved + GAP_BYTES, mapping)
        # Of numpy's uint8, one per region, in the workload's order; never to be used after ``close``.
        self.views: list[NDArray[np.uint8]] = []
        self._span = (reserved, reserved + reserved_bytes)
        try:
            self._map_regions()
            for region, place in zip(workload.regions, self.layout.regions, strict=True):
                view = _view(place.start, region.size_bytes)
                _populate(place.start, place.end)
                if region.init_file is not None:
                    _load(region.init_file, view)
                self.views.append(view)
        except BaseException:
            self.close()
            raise

    def _map_regions(self) -> None:
        at = self._span[0]
        for place in self.layout.mappings:
            _libc.munmap(at, place.start - at)
            _map(place.start, place.end - place.start, mmap.PROT_READ | mmap.PROT_WRITE, _MAP_FIXED)
            # Fails where the kernel has no transparent huge pages (EINVAL): there is nothing to turn off then.
            _libc.madvise(place.start, place.end - place.start, _MADV_NOHUGEPAGE)
            # Fails before Linux 5.17 and without CONFIG_ANON_VMA_NAME: then the mapping just shows no name.
            name = place.name.removeprefix("[anon:").removesuffix("]").encode()
            buffer = ctypes.create_string_buffer(name)
            _libc.prctl(
                _PR_SET_VMA, _PR_SET_VMA_ANON_NAME, place.start, place.end - place.start, ctypes.addressof(buffer)
            )
            at = place.end
        _libc.munmap(at, self._span[1] - at)

    def close(self) -> None:
        """Unmap everything."""
        self.views.clear()
        for place in self.layout.mappings:
            _libc.munmap(place.start, place.end - place.start)

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _map(address: int | None, size_bytes: int, protection: int, flags: int) -> int:
    flags |= mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    result = _libc.mmap(address, size_bytes, protection, flags, -1, 0)
    if result is None or result == _MAP_FAILED:
        problem = os.strerror(ctypes.get_errno())
        raise MachineError(
            f"cannot map {format_size(size_bytes)} of memory: {problem}; take a smaller workload, or the mapping 'one'",
            where="workload",
        )
    return int(result)


def _view(address: int, size_bytes: int) -> NDArray[np.uint8]:
    buffer = memoryview((ctypes.c_uint8 * size_bytes).from_address(address))
    return np.frombuffer(buffer, dtype=np.uint8)


def _populate(start: int, end: int) -> None:
    while start < end:
        step_bytes = min(_STEP_BYTES, end - start)
        if _libc.madvise(start, step_bytes, _MADV_POPULATE_WRITE) != 0:
            _view(start, step_bytes)[::PAGE_SIZE] = 0  # a kernel that does not know the advice
        start += step_bytes


def _load(path: str, view: NDArray[np.uint8]) -> None:
    """Read the file into the region as far as both go; what is left stays zero."""
    try:
        with open(path, "rb", buffering=0) as file:
            at = 0
            while at < len(view):
                count = file.readinto(view[at : at + _STEP_BYTES].data)
                if not count:
                    break
                at += count
    except OSError as error:
        raise RequestError(f"cannot read the init file: {error.strerror}", where=path) from None


def _check_available(sized: Layout) -> None:
    """Refuse what the machine cannot hold: it would be killed, or something else would be."""
    needed_bytes = sum(place.end - place.start for place in sized.mappings)
    if needed_bytes > sys.maxsize:
        raise MachineError(f"no address space for {format_size(needed_bytes)}", where="workload")
    try:
        with open("/proc/meminfo", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file)
        available_bytes = sum(int(fields[key].split()[0]) * 1024 for key in (b"MemAvailable", b"SwapFree"))
    except (OSError, KeyError, ValueError):
        return
    if needed_bytes > available_bytes:
        raise MachineError(
            f"the workload needs {format_size(needed_bytes)} of memory and {format_size(available_bytes)} are "
            "available; simulate it instead (ops sim)",
            where="workload",
        )
