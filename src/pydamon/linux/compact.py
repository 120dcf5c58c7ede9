"""Moving pages together (Documentation/admin-guide/sysctl/vm.rst, compact_memory; of a node below sysfs)."""

from __future__ import annotations

import os
from pathlib import Path

from pydamon.errors import MachineError
from pydamon.linux.causes import cause

_ALL = Path("/proc/sys/vm/compact_memory")
_NODES = Path("/sys/devices/system/node")


def file_of(node: int | None, *, everything: Path = _ALL, nodes: Path = _NODES) -> Path:
    """What is written to, for one NUMA node or for all of them."""
    return everything if node is None else nodes / f"node{node}" / "compact"


def compact(file: Path) -> None:
    """Compact as `file_of` says; returns when it is done. Raises MachineError."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
    except OSError as error:
        reason = cause(error, "it needs root", "it needs CONFIG_COMPACTION, and that node")
        raise MachineError(f"cannot be used: {reason}", where=str(file)) from None
