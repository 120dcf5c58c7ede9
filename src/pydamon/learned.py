"""Types that msgspec is to read, made known to it one after another: two threads that do so at once crash it.

It looks at a type when it first reads one, and takes what another thread has half made (0.18 to 0.22: SIGSEGV).
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

_Kind = TypeVar("_Kind")
_LOCK = threading.Lock()
_KNOWN: set[object] = set()


def learned(kind: type[_Kind]) -> type[_Kind]:
    """The same type, with all that it is made of known to msgspec: for what several threads may read."""
    if kind not in _KNOWN:
        with _LOCK:
            msgspec.json.Decoder(kind)
            _KNOWN.add(kind)
    return kind
