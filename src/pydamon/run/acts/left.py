"""What was set and is to be put back, in a file beside those of running kdamonds: nothing is lost with who set it.

``PID-START-N.left`` is written before each thing is set, and removed when all was put back. Of a process that lives no
more, it says what that has left: ``pydamon status`` shows it, and ``pydamon stop`` can undo it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.memcg_control import Cgroup
from pydamon.linux.own_directory import FLAGS
from pydamon.linux.zram import Zram
from pydamon.ops.membership import read_stat
from pydamon.run.directory import RuntimeDirectory

_NAME = re.compile(r"(\d{1,9})-(\d{1,20})-(\d{1,6})\.left", re.ASCII)
_MOST = 64 << 20  # bytes of a file


class Low(msgspec.Struct, frozen=True, tag="memory.low"):
    """memory.low of a cgroup: what it was ``before``, and what was ``written`` since (the last of it)."""

    path: str
    inode: int
    before: str
    written: tuple[str, ...]

    def words(self) -> str:
        """What is in force."""
        return f"memory.low of {self.path} is {self.written[-1]} (it was {self.before})"

    def undo(self, below: tuple[Path, ...] | None = None) -> str:
        """Put back what was before, unless somebody else has changed it since; a line. Raises MachineError."""
        try:
            cgroup = Cgroup(self.path, below)
        except MachineError:
            return f"memory.low of {self.path}: the cgroup was removed"
        try:
            if cgroup.inode != self.inode:
                return f"memory.low of {self.path}: the cgroup was removed, this is another one"
            now = cgroup.low()
            if now == self.before:
                return f"memory.low of {self.path} is {self.before}, as before"
            if now not in self.written:
                return f"memory.low of {self.path} was changed by somebody else; it stays {now}"
            cgroup.set_low(self.before)
            return f"memory.low of {self.path} is {self.before} again"
        finally:
            cgroup.close()


class WritebackLimit(msgspec.Struct, frozen=True, tag="writeback_limit"):
    """The limit of writing back of a device of zram: whether there was one, and its pages."""

    device: str
    before: tuple[str, str]

    def words(self) -> str:
        """What is in force."""
        return f"{self.device} has a limit of writing back that was set for it"

    def undo(self, below: tuple[Path, ...] | None = None) -> str:
        """Put back what was before; a line. Raises MachineError."""
        try:
            Zram(self.device).restore_limit(self.before)
        except RequestError:
            return f"the limit of {self.device}: the device was removed"
        return f"the limit of writing back of {self.device} is as before"


Thing = Low | WritebackLimit
_DECODER = msgspec.json.Decoder(dict[str, Thing])


class Ledger:
    """What this process has set, by a key of each. The file is made with the first; raises MachineError without one."""

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}
        self._name = ""

    @property
    def things(self) -> Mapping[str, Thing]:
        """What is in force."""
        return self._things

    def note(self, key: str, thing: Thing) -> None:
        """Before it is set. Raises MachineError: then it must not be."""
        self._write({**self._things, key: thing})
        self._things[key] = thing

    def undo(self, below: tuple[Path, ...] | None = None) -> list[str]:
        """Undo all; what could not be undone stays noted. Lines."""
        lines, kept = _undo_all(self._things, below)
        with contextlib.suppress(MachineError):  # as it stands it names more than there is
            self._write(kept)
        self._things = kept
        return lines

    def _write(self, things: Mapping[str, Thing]) -> None:
        if not things and not self._name:
            return
        with RuntimeDirectory() as directory:
            if not self._name:
                self._name = _new_name(directory.fileno())
            _replace(directory, self._name, things)


def left() -> list[tuple[int, Thing]]:
    """What processes that live no more have left: the pid that each had, and what. Raises MachineError."""
    found: list[tuple[int, Thing]] = []
    with RuntimeDirectory() as directory:
        for name in _names_of_dead(directory.fileno()):
            things = _read(directory.fileno(), name)
            found += [(int(name.partition("-")[0]), thing) for thing in things.values()]
    return found


def undo_left(only: str | None = None, below: tuple[Path, ...] | None = None) -> list[str]:
    """Undo what was left, or of it what is about the cgroup, or device, ``only``; lines. Raises MachineError."""
    lines: list[str] = []
    with RuntimeDirectory() as directory:
        for name in _names_of_dead(directory.fileno()):
            things = _read(directory.fileno(), name)
            wanted = {key: thing for key, thing in things.items() if only is None or key == only}
            done, kept = _undo_all(wanted, below)
            lines += done
            _replace(directory, name, {key: things[key] for key in things if key in kept or key not in wanted})
    return lines


def _undo_all(things: Mapping[str, Thing], below: tuple[Path, ...] | None) -> tuple[list[str], dict[str, Thing]]:
    """Lines, and what could not be undone."""
    lines, kept = [], {}
    for key, thing in things.items():
        try:
            lines.append(thing.undo(below))
        except PydamonError as error:
            lines.append(f"{thing.words()}, and stays: {error}")
            kept[key] = thing
    return lines, kept


def _new_name(fd: int) -> str:
    stat = read_stat(os.getpid())
    start = 0 if stat is None else stat.start_ticks
    for number in range(1_000_000):
        name = f"{os.getpid()}-{start}-{number}.left"
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600, dir_fd=fd))
            return name
        except FileExistsError:
            continue
        except OSError as error:
            raise MachineError(f"cannot be made: {error.strerror}", where=name) from None
    raise MachineError("there are a million of them", where=name)


def _replace(directory: RuntimeDirectory, name: str, things: Mapping[str, Thing]) -> None:
    """Whole, or not at all: a killed writer leaves what was there. Nothing left to say: no file."""
    fd = directory.fileno()
    try:
        if not things:
            for gone in (name, f"{name}.new"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(gone, dir_fd=fd)
            return
        new = f"{name}.new"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS, 0o600, dir_fd=fd)
        with open(file, "wb", buffering=0) as out:
            out.write(msgspec.json.encode(things))
        os.replace(new, name, src_dir_fd=fd, dst_dir_fd=fd)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}; what is set could not be found again"
        raise MachineError(reason, where=f"{directory.path}/{name}") from None


def _read(fd: int, name: str) -> dict[str, Thing]:
    """What a file says; nothing of one that is not understood."""
    try:
        file = os.open(name, os.O_RDONLY | FLAGS, dir_fd=fd)
        with open(file, "rb", buffering=0) as text:
            return _DECODER.decode(text.read(_MOST) or b"{}")
    except (OSError, msgspec.DecodeError):
        return {}


def _names_of_dead(fd: int) -> Iterator[str]:
    for name in sorted(os.listdir(fd)):
        found = _NAME.fullmatch(name)
        if found is not None:
            stat = read_stat(int(found[1]))
            if stat is None or stat.ended or stat.start_ticks != int(found[2]):
                yield name
