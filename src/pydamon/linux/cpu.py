"""The processors, as /proc/cpuinfo tells of them (proc_cpuinfo(5))."""

from __future__ import annotations

from pydamon.linux.texts import decode

_MOST = 8192  # bytes: one processor's part is smaller


def first_cpu() -> str:
    """The first processor's part; reading on would ask every processor for its frequency. Raises OSError."""
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        return decode(file.read(_MOST)).partition("\n\n")[0]
