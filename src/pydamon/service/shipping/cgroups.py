"""What the kernel tells of a cgroup (version 2): its bounds, how long its tasks waited, and what came back."""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.linux.memcg import directory
from pydamon.linux.texts import read_text

_REFAULTS = re.compile(r"^workingset_refault_(?:anon|file) (\d+)$", re.MULTILINE)
_TOTAL = re.compile(r"^(some|full) .*\btotal=(\d+)$", re.MULTILINE)
_MOST = (1 << 50) - 1


class Facts(msgspec.Struct, frozen=True):
    """Bytes and us, each None where it is not told; ``psi_…`` and ``refaulted`` only grow."""

    limit_bytes: int | None = None
    request_bytes: int | None = None
    psi_some_us: int | None = None
    psi_full_us: int | None = None
    refaulted: int | None = None


def facts(path: str, below: Sequence[Path] | None = None) -> Facts:
    """Of the cgroup ``path``; nothing of one that is gone, or is not of version 2. ``below`` is for tests."""
    try:
        folder = directory(path, below)
    except (MachineError, OSError, ValueError):
        return Facts()
    asked = [_number(folder / f"memory.{name}") for name in ("min", "low")]
    waited = {name: int(value) for name, value in _TOTAL.findall(_text(folder / "memory.pressure"))}
    pages = _REFAULTS.findall(_text(folder / "memory.stat"))
    return Facts(
        limit_bytes=_number(folder / "memory.max"),
        request_bytes=max((each for each in asked if each), default=None),
        psi_some_us=waited.get("some"),
        psi_full_us=waited.get("full"),
        refaulted=sum(map(int, pages)) * mmap.PAGESIZE if pages else None,
    )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return read_text(path)
    return ""


def _number(path: Path) -> int | None:
    """None: there is no bound."""
    text = _text(path).strip()
    return min(int(text), _MOST) if text.isascii() and text.isdecimal() else None
