"""How much swap this machine has (proc_meminfo(5)); compressed memory (zram) is swap, too."""

from __future__ import annotations

_MEMINFO = "/proc/meminfo"


def swap_bytes() -> int | None:
    """All swap there is, used or free; 0 without any, None if that cannot be read."""
    return _told(b"SwapTotal:")


def swap_free_bytes() -> int | None:
    """What of it is free; None if that cannot be read."""
    return _told(b"SwapFree:")


def _told(name: bytes) -> int | None:
    try:
        # As bytes: a codec may not be there to be loaded once privileges are dropped.
        with open(_MEMINFO, "rb") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(name)), None)
    except (OSError, ValueError, IndexError):
        return None
