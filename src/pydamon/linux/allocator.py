"""How the C library hands out memory: mallopt(3). Who works in threads for days must not keep what each had."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_PIECE = 256 << 10


def keep_little() -> bool:
    """Have all threads that come share one heap, and pieces of 256 KiB and more go back; whether the C library can.

    Each thread would get a heap of its own, and of each what was once needed at a time is kept: a server with eight
    threads so grows for as long as its largest answers meet other threads. They work in turns anyhow. And after one
    large piece was freed, glibc takes pieces up to its size from the heap, too, where what lies behind keeps them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(_M_ARENA_MAX, 1), mallopt(_M_MMAP_THRESHOLD, _PIECE)])
