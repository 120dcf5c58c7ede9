"""How the C library hands out memory: mallopt(3). Who works in threads for days must not keep what each had."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h


def one_arena() -> bool:
    """Have all threads that come share one heap; whether the C library can (glibc).

    Each thread would get a heap of its own, and of each what was once needed at a time is kept: a server with eight
    threads so grows for as long as its largest answers meet other threads. They work in turns anyhow.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, 1))
