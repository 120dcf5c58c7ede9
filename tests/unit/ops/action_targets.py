"""What the tests of actions have in common: an operations set over a child process, and regions over its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from tests.unit.primitives.bpf_child import Child

from pydamon.linux.process import Process
from pydamon.ops.base import Applied
from pydamon.ops.vaddr import VaddrOps
from pydamon.primitives.base import Primitive
from pydamon.primitives.bpf import BpfPrimitive
from pydamon.primitives.smaps import SmapsPrimitive
from pydamon.spec import Scheme
from pydamon.spec.schemes import Filter


@contextmanager
def acting_on(*pids: int, bpf: bool = False, dry_run: bool = False, remember: bool = False) -> Iterator[VaddrOps]:
    def opened(process: Process) -> Primitive:
        return BpfPrimitive(process) if bpf else SmapsPrimitive(process)

    ops = VaddrOps([Process(pid) for pid in pids], opened)
    ops.dry_run, ops.remember_homes = dry_run, remember
    ops.init()
    try:
        yield ops
    finally:
        ops.cleanup()


def scheme(action: str, *filters: Filter, **fields: object) -> Scheme:
    return Scheme(action=action, filters=filters, **fields)  # type: ignore[arg-type]


def apply(ops: VaddrOps, wanted: Scheme, *regions: tuple[int, int], allowed: bool = False) -> Applied:
    """Check and apply to (address, size) regions of the first target."""
    start = np.array([at for at, _ in regions], np.uint64)
    size = np.array([size for _, size in regions], np.uint64)
    ops.check_scheme(wanted)
    return ops.apply_scheme(0, wanted, start, start + size, np.full(len(start), allowed))


_UNADVISED = """
import ctypes, mmap, sys
control = ctypes.CDLL(None).prctl
control(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: small pages, although huge ones may be allowed always
size = int(sys.argv[1])
area = mmap.mmap(-1, size + (2 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area[:] = b"x" * len(area)
control(41, 0, 0, 0, 0)
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
print(at + -at % (2 << 20), flush=True)
sys.stdin.read()
"""


def small_pages(size: int) -> AbstractContextManager[tuple[int, int]]:
    """A process with memory in small pages that may be huge, but that the kernel will not make huge by itself.

    Its pid and the address, which is a multiple of 2 MiB.
    """
    return told_where(_UNADVISED, size)


@contextmanager
def told_where(text: str, *arguments: int) -> Iterator[tuple[int, int]]:
    """A Python that runs ``text``, which prints an address when its memory is as it is to be; its pid, and that."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        try:
            assert popen.stdout is not None
            yield popen.pid, int(popen.stdout.readline())
        finally:
            popen.kill()


def page_kinds(child: Child, start: int, size: int) -> dict[int, int]:
    """Bytes by PAGEMAP_SCAN category, of the child's memory."""
    from pydamon.linux.pagemap import Pagemap
    from pydamon.linux.pagemap_scan import populated

    table = Pagemap(child.pid)
    ranges, _ = populated(table.fileno(), start, start + size, 1 << 30)
    table.close()
    found: dict[int, int] = {}
    for low, high, kind in ranges.tolist():
        found[kind] = found.get(kind, 0) + high - low
    return found
