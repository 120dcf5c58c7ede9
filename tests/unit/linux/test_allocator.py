"""What the C library keeps, as it tells itself: malloc_info(3), mallinfo2(3). In a process that is changed for good."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.usefixtures("processes"),
    pytest.mark.skipif(
        not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs a C library that tells what it keeps"
    ),
]

_BEGIN = """
import ctypes, sys, threading
from pydamon.linux.allocator import keep_little
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
if sys.argv[1] == "little":
    assert keep_little()
"""
_HEAPS = """
meet = threading.Barrier(4)
def allocate():
    meet.wait()
    c.malloc(1000)
    meet.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(c.fopen(b"/dev/stdout", b"w"))
c.malloc_info(0, file)
c.fclose(file)
"""
_LARGE = """
class Told(ctypes.Structure):
    _fields_ = [(str(at), ctypes.c_size_t) for at in range(10)]  # the fourth: pieces that are mappings of their own
c.mallinfo2.restype = Told
c.free(ctypes.c_void_p(c.malloc(8 << 20)))
before = getattr(c.mallinfo2(), "3")
c.malloc(1 << 20)
print(getattr(c.mallinfo2(), "3") - before)
"""


def _said(code: str, asked: str) -> str:
    command = [sys.executable, "-c", _BEGIN + code, asked]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(("asked", "one"), [("little", True), ("much", False)])
def test_threads_share_one_heap_if_that_is_asked(asked: str, one: bool) -> None:
    assert (_said(_HEAPS, asked).count("<heap nr=") == 1) is one


def test_a_large_piece_is_a_mapping_though_a_larger_one_was_freed() -> None:
    """Unasked it is one where the heap cannot grow, which is chance, and otherwise none: that is not tried."""
    assert int(_said(_LARGE, "little")) == 1
