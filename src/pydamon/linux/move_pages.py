"""move_pages(2): on which NUMA node pages of a process are, and moving them to other nodes.

A process's own pages need no privilege; pages that other processes map, too, are moved only with CAP_SYS_NICE.
"""

from __future__ import annotations

import ctypes
import errno
import platform

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.linux.tiers import listed
from pydamon.linux.word_files import Addresses

Nodes = NDArray[np.int32]  # a node, or a negative errno where the kernel does not tell

_NUMBER = 279 if platform.machine() == "x86_64" else 239  # that of arm64 and riscv64
_MOVE, _MOVE_ALL = 1 << 1, 1 << 2  # MPOL_MF_
_BATCH = 1 << 15
_HAS_MEMORY = "/sys/devices/system/node/has_memory"

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
)


def memory_nodes(path: str = _HAS_MEMORY) -> list[int]:
    """The NUMA nodes that have memory. Raises MachineError if the machine does not tell."""
    found = listed(path)
    if found is None:
        raise MachineError("cannot be read; it needs a kernel with CONFIG_NUMA and /sys", where=path)
    return found


def require_node(nid: int) -> None:
    """Raise MachineError if there is no NUMA node of that number with memory."""
    nodes = memory_nodes()
    if nid not in nodes:
        there = ", ".join(map(str, nodes))
        raise MachineError(f"NUMA node {nid} has no memory on this machine; nodes with memory: {there}")


def nodes_of(process: Process, addresses: Addresses) -> Nodes:
    """The node of the page at each address (bytes; uint64, shape (n,)); below 0 if it is not in memory.

    All are below 0 if the process has ended. Raises MachineError without permission.
    """
    result = np.full(len(addresses), -errno.ENOENT, np.int32)
    for begin in range(0, len(addresses), _BATCH):
        part = np.ascontiguousarray(addresses[begin : begin + _BATCH], np.uint64)
        status = np.full(len(part), -errno.ENOENT, np.int32)
        number = _call(process, part, None, status, _MOVE)
        _check(process, number)
        if number:
            break
        result[begin : begin + _BATCH] = status
    return result


def move(process: Process, addresses: Addresses, nodes: Nodes) -> None:
    """Move the page at each address to the node beside it; a huge page by any address in it, once.

    Ask `nodes_of` what has moved: a page's status here is no proof, since all of its folio moves with it.
    Nothing more is moved if the process ends. Raises MachineError without permission.
    """
    for begin in range(0, len(addresses), _BATCH):
        part = np.ascontiguousarray(addresses[begin : begin + _BATCH], np.uint64)
        wanted = np.ascontiguousarray(nodes[begin : begin + _BATCH], np.int32)
        status = np.empty(len(part), np.int32)
        number = _call(process, part, wanted, status, _MOVE_ALL)
        if number == errno.EPERM:  # without CAP_SYS_NICE: what nobody else maps
            number = _call(process, part, wanted, status, _MOVE)
        _check(process, number)
        if number == errno.ESRCH:
            break


def require(process: Process) -> None:
    """Raise MachineError if this user may not move pages of that process; changes nothing."""
    nothing = np.empty(0, np.uint64)
    _check(process, _call(process, nothing, None, np.empty(0, np.int32), _MOVE))


def _check(process: Process, number: int) -> None:
    if number in (errno.EPERM, errno.ENOSYS) and process.alive():
        reason = "this kernel has no such call; it needs CONFIG_NUMA and CONFIG_MIGRATION"
        if number == errno.EPERM:
            reason = f"no permission to move pages of process {process.pid}; run as its owner, or as root"
        raise MachineError(reason, where="move_pages")


def _call(process: Process, pages: Addresses, nodes: Nodes | None, status: NDArray[np.int32], flags: int) -> int:
    """0 or an errno; ESRCH if the process is not there any more."""
    # The call takes a pid: it means this process as long as that has not ended.
    if not process.alive():
        return errno.ESRCH
    done = _syscall(
        _NUMBER,
        process.pid,
        len(pages),
        pages.ctypes.data,
        None if nodes is None else nodes.ctypes.data,
        status.ctypes.data,
        flags,
    )
    return ctypes.get_errno() if done < 0 else 0
