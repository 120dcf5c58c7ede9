"""How much swap this machine has (proc_meminfo(5)); compressed memory (zram) is swap, too."""

from __future__ import annotations

from typing import NamedTuple

from pydamon.linux.texts import read_lines

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


class SwapDevice(NamedTuple):
    """One of /proc/swaps: its name there, whether it is zram, and its bytes."""

    name: str
    is_zram: bool
    size_bytes: int
    used_bytes: int


def swap_devices(path: str = "/proc/swaps") -> list[SwapDevice]:
    """All that are in use; none where the kernel has no swap, or does not tell."""
    try:
        rows = [line.split() for line in read_lines(path)[1:]]
        # Name, type, size and used in KiB, priority; the name has no blanks (they are \\040).
        return [
            SwapDevice(row[0], row[0].rpartition("/")[2].startswith("zram"), int(row[2]) << 10, int(row[3]) << 10)
            for row in rows
            if len(row) == 5
        ]
    except (OSError, ValueError):
        return []
