"""A process that touches known pages when it is told to, for tests of the bpf primitive on the real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.primitives import bpf
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk

PAGE = 4096
MIB = 1 << 20
ALL_CPUS = os.sched_getaffinity(0)


def _obstacle() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    try:
        bpf.probe()
    except MachineError as error:
        return str(error)
    return None


OBSTACLE = _obstacle()

CHILD = r"""
import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mlock.argtypes = libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
areas = {}

def touch(name, pages, write=True):
    area, skip, _, size = areas[name]
    for page in range(size // 4096) if pages == ["all"] else map(int, pages):
        if write:
            area[skip + page * 4096] = 1
        else:
            area[skip + page * 4096]

def add(name, size, kind=""):
    flags = mmap.MAP_SHARED if kind == "shared" else mmap.MAP_PRIVATE
    area = mmap.mmap(-1, int(size) + (2 << 20), flags | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    skip = -at % (2 << 20)
    areas[name] = area, skip, at + skip, int(size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE if kind == "huge" else mmap.MADV_NOHUGEPAGE)
    if kind == "locked":
        assert libc.mlock(at + skip, int(size)) == 0
    return at + skip

def file(name, path):
    size = os.path.getsize(path)
    fd = os.open(path, os.O_RDWR)
    area = mmap.mmap(fd, size, mmap.MAP_SHARED)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    areas[name] = area, 0, at, size
    return at

def fork(name):
    pid = os.fork()
    if not pid:
        touch(name, ["all"], write=False)
        os.write(1, b"%d\n" % os.getpid())
        time.sleep(1000)

def protect(name, page, access):
    assert libc.mprotect(areas[name][2] + int(page) * 4096, 4096, int(access)) == 0

def unmap(name, page, count):
    assert libc.munmap(areas[name][2] + int(page) * 4096, int(count) * 4096) == 0

def spin(name, pages):
    print("ok", flush=True)
    area, skip, _, _ = areas[name]
    hot = [skip + page * 4096 for page in range(int(pages))]
    while True:
        for at in hot:
            area[at]

def storm():
    print("ok", flush=True)
    while True:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

def again():
    print("ok", flush=True)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1]])

for line in sys.stdin:
    verb, *words = line.split()
    if verb == "touch":
        print(touch(words[0], words[1:]) or "ok", flush=True)
    elif verb == "load":
        print(touch(words[0], words[1:], False) or "ok", flush=True)
    elif verb == "fork":
        fork(*words)
    elif verb == "exit":
        break
    else:
        print(globals()[verb](*words) or "ok", flush=True)
"""


class Child:
    """A process that does what it is told, one command at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", CHILD, CHILD]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = Process(self._popen.pid)
        self.pid = self._popen.pid
        self.forked: list[int] = []

    def do(self, *words: object) -> int:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(" ".join(map(str, words)) + "\n")
        self._popen.stdin.flush()
        answer = self._popen.stdout.readline().strip()
        assert answer, f"the child died of {words}"
        return int(answer) if answer.isdigit() else 0

    def rest(self) -> None:
        """Return once the child sleeps in its wait for a command: after its answer it still runs its way there."""
        stat = Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")

    def tell(self, *words: object) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(" ".join(map(str, words)) + "\n")
        self._popen.stdin.flush()

    def fork(self, name: str) -> int:
        """A child of the child that has read all pages of that area; returns its pid."""
        self.forked.append(self.do("fork", name))
        return self.forked[-1]

    def end(self) -> None:
        for pid in self.forked:
            os.kill(pid, 9)
        self.forked.clear()
        self._popen.kill()
        self._popen.communicate()


def use_cpus(child: Child | None, cpus: set[int]) -> None:
    for pid in (0, *((child.pid,) if child else ())):
        os.sched_setaffinity(pid, cpus)


def started_child() -> Iterator[Child]:
    """For a fixture: a child on the same CPU as this process.

    Pages that were faulted in last on another CPU are not on an LRU list yet, and MADV_COLD passes them over; those of
    its own CPU it puts on the list first.
    """
    cpus = os.sched_getaffinity(0)
    use_cpus(None, {min(cpus)})
    try:
        child = Child()
        yield child
        child.end()
        child.process.close()
    finally:
        use_cpus(None, cpus)


@contextmanager
def watching(child: Child, walk: PageTableWalk, *, whole: bool | None = None) -> Iterator[BpfPrimitive]:
    """A primitive on the child; ``whole`` forces the way of clearing, and forbids clear_refs for stuck pages."""
    primitive = BpfPrimitive(child.process, walk)
    if whole is not None:
        primitive.clearer._whole_is_cheaper = lambda ranges: whole  # type: ignore[method-assign]
    if whole is False:
        primitive.clearer.clear_stuck = lambda stuck, total: False  # type: ignore[method-assign]
    try:
        yield primitive
    finally:
        primitive.close()


def pages(start: int, count: int, step: int = 1) -> NDArray[np.uint64]:
    return np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(step * PAGE)


def kib_of(child: Child, address: int, key: str) -> int:
    """A field of the mapping at ``address`` in the child's smaps."""
    inside = False
    for line in Path(f"/proc/{child.pid}/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(text, 16) for text in first.split("-"))
            inside = low <= address < high
        elif inside and first == f"{key}:":
            return int(line.split()[1])
    raise AssertionError(f"no {key} for {address:#x}")
