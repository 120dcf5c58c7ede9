"""What a memory cgroup (version 2) tells of itself, and what it can be asked: to give memory back, to keep it.

A cgroup is its directory and that directory's inode: one that was removed and made anew is another. Limits
(memory.high, memory.max) are never written.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.memcg import directory
from pydamon.linux.mounts import mounts
from pydamon.linux.texts import decode, read_text

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_MAX = "max"
NO_LIMIT = (1 << 63) - 1  # what stands for ``max``
_NEEDS = "it needs the memory controller of cgroup v2 in this cgroup"


class Usage(msgspec.Struct, frozen=True):
    """What a cgroup uses, in bytes; None where it is not told."""

    current_bytes: int | None = None
    swap_bytes: int | None = None
    swap_max_bytes: int | None = None
    min_bytes: int | None = None


class Cgroup:
    """A cgroup by its path, as `memcg.directory` finds it; raises MachineError, also later when it is gone."""

    def __init__(self, path: str, below: tuple[Path, ...] | None = None) -> None:
        self.directory = directory(path, below)
        self.is_root = self.directory in map(Path, map(os.path.realpath, mounts("cgroup2") if below is None else below))
        try:
            self._fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
            self.inode = os.fstat(self._fd).st_ino
        except OSError as error:
            raise MachineError(f"cannot be opened: {cause(error)}", where=str(self.directory)) from None

    def close(self) -> None:
        """Give the directory back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def unprotected_above(self) -> str | None:
        """The nearest cgroup above it, below the root, whose memory.low is 0: what is below that is not protected."""
        above = self.directory.parent
        while (above / "memory.low").exists():  # the root has none
            if not _number_in(above / "memory.low"):
                return str(above)
            above = above.parent
        return None

    def gone(self) -> bool:
        """Whether it was removed."""
        try:
            return os.stat(self.directory).st_ino != self.inode
        except OSError:
            return True

    # -- what it tells ------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What it uses now; never raises."""
        return Usage(
            current_bytes=self._number("memory.current"),
            swap_bytes=self._number("memory.swap.current"),
            swap_max_bytes=self._number("memory.swap.max"),
            min_bytes=self._number("memory.min"),
        )

    def _number(self, name: str) -> int | None:
        try:
            text = self._line(name)
            return NO_LIMIT if text == _MAX else int(text)
        except (OSError, ValueError):
            return None

    def _line(self, name: str) -> str:
        return self._read(name).split("\n")[0].strip()

    def _read(self, name: str) -> str:
        fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._fd)
        with open(fd, "rb", buffering=0) as file:
            return decode(file.readall())

    # -- what it can be asked -----------------------------------------------------------------------------------------

    def require(self, name: str) -> None:
        """Raise MachineError unless this user may write that file of it; changes nothing."""
        try:
            os.close(os.open(name, os.O_WRONLY | _FLAGS, dir_fd=self._fd))
        except OSError as error:
            raise self._refused(name, error) from None

    def reclaim(self, wanted_bytes: int, swappiness: int | None = None) -> bool:
        """Ask the kernel to take so much of it; False: it found less. Raises MachineError if it may, or can, not."""
        text = str(wanted_bytes) if swappiness is None else f"{wanted_bytes} swappiness={swappiness}"
        try:
            self._write("memory.reclaim", text)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return False
            if error.errno == errno.EINVAL and swappiness is not None:
                text = "takes no swappiness on this kernel (Linux 6.11 has it)"
                raise MachineError(text, where=str(self.directory / "memory.reclaim")) from None
            raise self._refused("memory.reclaim", error) from None
        return True

    def low(self) -> str:
        """Its memory.low as it stands: bytes, or ``max``. Raises MachineError."""
        try:
            return self._line("memory.low")
        except OSError as error:
            raise self._refused("memory.low", error) from None

    def set_low(self, value: str) -> None:
        """Write its memory.low: bytes, or ``max``. Raises MachineError."""
        try:
            self._write("memory.low", value)
        except OSError as error:
            raise self._refused("memory.low", error) from None

    def _write(self, name: str, text: str) -> None:
        fd = os.open(name, os.O_WRONLY | _FLAGS, dir_fd=self._fd)
        try:
            os.write(fd, f"{text}\n".encode())  # in one call: a kill leaves the old value, or the new one
        finally:
            os.close(fd)

    def _refused(self, name: str, error: OSError) -> MachineError:
        if self.gone():
            return MachineError("was removed", where=str(self.directory))
        reason = cause(error, "it needs root, or a cgroup that was delegated to this user", _NEEDS)
        return MachineError(f"cannot be used: {reason}", where=str(self.directory / name))


def _number_in(file: Path) -> int:
    try:
        text = read_text(file).strip()
        return NO_LIMIT if text == _MAX else int(text)
    except (OSError, ValueError):
        return 0
