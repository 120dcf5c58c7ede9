"""One heap for all threads, as malloc_info(3) of the C library counts them."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs a C library that tells its heaps"
)

_HEAPS = """
import ctypes, sys, threading
from pydamon.linux.allocator import one_arena
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
if sys.argv[1] == "one":
    assert one_arena()
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


@pytest.mark.parametrize(("asked", "one"), [("one", True), ("many", False)])
def test_threads_share_one_heap_if_that_is_asked(asked: str, one: bool) -> None:
    said = subprocess.run([sys.executable, "-c", _HEAPS, asked], capture_output=True, text=True, check=True, timeout=60)
    assert (said.stdout.count("<heap nr=") == 1) is one
