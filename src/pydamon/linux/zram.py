"""zram: compressed memory as a block device, and its policy knobs (Documentation/admin-guide/blockdev/zram.rst)."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from pydamon.errors import MachineError, RequestError
from pydamon.linux.causes import cause
from pydamon.linux.texts import read_text

_BLOCK = Path("/sys/block")
_NAME = re.compile(r"zram\d{1,4}", re.ASCII)
_PAGE = 4096  # writeback_limit counts these
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def devices(block: Path = _BLOCK) -> list[str]:
    """The names of all devices of zram."""
    return sorted(path.name for path in block.glob("zram*") if _NAME.fullmatch(path.name))


class Zram:
    """The device ``name`` (like zram0), below ``block`` (for tests). Raises RequestError for none."""

    def __init__(self, name: str, block: Path = _BLOCK) -> None:
        if not _NAME.fullmatch(name):
            raise RequestError("is no device of zram, like zram0", where=repr(name[:80]))
        self._path = block / name
        if not self._path.is_dir():
            known = ", ".join(devices(block)) or "none"
            raise RequestError(f"is not there; devices of zram: {known}", where=name)

    def require_writeback(self) -> None:
        """Raise MachineError unless this user may have it write back; changes nothing."""
        try:
            backing = read_text(self._path / "backing_dev").strip()
            os.close(os.open(self._path / "writeback", os.O_WRONLY | _FLAGS))
        except OSError as error:
            raise self._refused("writeback", error) from None
        if backing == "none":
            raise MachineError("has no backing device; it is set before the size", where=str(self._path))

    def mark_idle(self, age_s: int | None) -> bool:
        """Mark what was not used for ``age_s`` seconds as idle, or all of it (until it is used). Raises MachineError.

        False: this kernel does not know since when (it needs CONFIG_ZRAM_TRACK_ENTRY_ACTIME); nothing was marked.
        """
        try:
            self._write_raw("idle", "all" if age_s is None else str(age_s))
        except OSError as error:
            if error.errno == errno.EINVAL and age_s is not None:
                return False
            raise self._refused("idle", error) from None
        return True

    def limit_writeback(self, limit_bytes: int) -> None:
        """Write back no more than that from now on. Raises MachineError."""
        self._write("writeback_limit_enable", "1")
        self._write("writeback_limit", str(limit_bytes // _PAGE))

    def limit(self) -> tuple[str, str]:
        """Whether there is a limit, and its pages, as they stand. Raises MachineError."""
        try:
            enabled, pages = (read_text(self._path / name).strip() for name in _LIMIT)
            return enabled, pages
        except OSError as error:
            raise self._refused("writeback_limit", error) from None

    def restore_limit(self, before: tuple[str, str]) -> None:
        """As `limit` said. Raises MachineError."""
        for name, value in reversed(list(zip(_LIMIT, before, strict=True))):
            self._write(name, value)

    def write_back(self, kind: str) -> bool:
        """Write back what is of that kind; False: the limit is used up. Raises MachineError."""
        try:
            self._write_raw("writeback", kind)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC):
                return False  # the limit, or the device, has no room left
            raise self._refused("writeback", error) from None
        return True

    def written_bytes(self) -> int:
        """What it has written back so far. Raises MachineError."""
        (pages,) = self._numbers("bd_stat", 2)
        return pages * _PAGE

    def stored_bytes(self) -> tuple[int, int]:
        """How much is stored in it, and the size of that compressed. Raises MachineError."""
        stored, compressed = self._numbers("mm_stat", 0, 1)
        return stored, compressed

    def _numbers(self, name: str, *columns: int) -> list[int]:
        """Those of the numbers that stand in a file in one line."""
        try:
            words = read_text(self._path / name).split()
            return [int(words[column]) for column in columns]
        except OSError as error:
            raise self._refused(name, error) from None
        except (ValueError, IndexError):
            raise MachineError("is not as the kernel documents it", where=str(self._path / name)) from None

    def _write(self, name: str, text: str) -> None:
        try:
            self._write_raw(name, text)
        except OSError as error:
            raise self._refused(name, error) from None

    def _write_raw(self, name: str, text: str) -> None:
        fd = os.open(self._path / name, os.O_WRONLY | os.O_TRUNC | _FLAGS)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _refused(self, name: str, error: OSError) -> MachineError:
        reason = cause(error, "it needs root", "it needs CONFIG_ZRAM_WRITEBACK")
        return MachineError(f"cannot be used: {reason}", where=str(self._path / name))


_LIMIT = ("writeback_limit_enable", "writeback_limit")
