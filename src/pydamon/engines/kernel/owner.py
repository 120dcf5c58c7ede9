"""Whose kdamond it is: the kernel's DAMON is one for the whole machine, and nobody else's is ever touched.

What we start is written down in one file of a directory of the user's own: who we are, which thread the kdamond is
(pid and start time), and what we have configured. The file is locked as long as we live. If we are killed, the kdamond
goes on without us: whoever comes next may end it if what is there is exactly what is written down, and else leaves it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.learned import learned
from pydamon.linux import damon_sysfs
from pydamon.linux.damon_sysfs import NR_KDAMONDS, Occupant, Roots, Thread, Tree
from pydamon.linux.damon_trace import remove_instance
from pydamon.linux.process import start_ticks
from pydamon.linux.texts import read_bytes, read_text

FILE = "kernel-damon.json"
WHERE = "the kernel's DAMON"
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_INSTANCE = re.compile(r"pydamon-\d+", re.ASCII)
# What the kernel changes by itself, or another tool may refresh without taking over.
_VOLATILE = re.compile(r"/state$|/refresh_ms$|/intervals/(sample|aggr)_us$|/current_value$")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the file. ``fingerprint`` is of all that we have configured, ``instance`` a tracing instance."""

    boot_id: str
    pid: int
    start_ticks: int
    kdamond: tuple[int, int] | None = None  # pid and start time of the thread
    fingerprint: str | None = None
    instance: str | None = None


class Claim:
    """The kernel's DAMON is ours from `take` until `release`."""

    def __init__(self, fd: int, directory_fd: int, entry: Entry) -> None:
        self._fd = fd
        self._directory_fd = directory_fd
        self.entry = entry
        self._write()

    def note(
        self, *, kdamond: Thread | None = None, fingerprint: str | None = None, instance: str | None = None
    ) -> None:
        """Write down what is new; what is not given stays."""
        entry = self.entry
        self.entry = msgspec.structs.replace(
            entry,
            kdamond=entry.kdamond if kdamond is None else (kdamond.pid, kdamond.start_ticks),
            fingerprint=fingerprint or entry.fingerprint,
            instance=instance or entry.instance,
        )
        self._write()

    def _write(self) -> None:
        if self._fd < 0:
            return
        text = msgspec.json.encode(self.entry)
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Nobody owns it any more; to be called when nothing of ours is left in the kernel."""
        try:
            if self._fd >= 0:
                os.unlink(FILE, dir_fd=self._directory_fd)
        except FileNotFoundError:
            pass
        finally:
            self.leave()

    def leave(self) -> None:
        """Something of ours is still in the kernel: the file stays, so that the next pydamon can remove it."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._directory_fd)
            self._fd = self._directory_fd = -1


def take(directory_fd: int, roots: Roots, tree: Tree | None = None) -> Claim:
    """Claim the kernel's DAMON. ``directory_fd`` is a directory that only this user can write to (duplicated).

    Raises MachineError that names whoever uses it, and has written nothing then, nowhere. What a killed pydamon has
    left there is ended first, if it is exactly that.
    """
    tree = tree if tree is not None else Tree(roots.damon)
    left = _left(directory_fd, roots, tree)
    if left is not None:
        fd, entry = left
        try:
            _clean(entry, roots, tree)
            os.unlink(FILE, dir_fd=directory_fd)
        finally:
            os.close(fd)
    return _create(directory_fd, roots)


def check(directory_fd: int, roots: Roots) -> None:
    """Raise MachineError, as `take` would, if somebody else uses the kernel's DAMON; writes nothing at all."""
    left = _left(directory_fd, roots, Tree(roots.damon))
    if left is not None:
        os.close(left[0])


def _left(directory_fd: int, roots: Roots, tree: Tree) -> tuple[int, Entry] | None:
    """The locked file of a killed pydamon whose kdamond is still there; None if nobody is. Raises MachineError."""
    occupants = damon_sysfs.find_occupants(roots)
    if not occupants:
        return None
    fd = _open_left(directory_fd, occupants)
    try:
        entry = _read(fd)
        if entry is None or not _is_left_by(entry, occupants, roots, tree):
            raise _in_use(occupants)
    except BaseException:
        os.close(fd)
        raise
    return fd, entry


def _create(directory_fd: int, roots: Roots) -> Claim:
    try:
        fd = os.open(FILE, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=directory_fd)
    except OSError as error:
        raise MachineError(f"cannot be opened: {error.strerror}", where=FILE) from None
    try:
        _lock(fd, directory_fd)
        left = _read(fd)
        if left is not None and left.boot_id == boot_id(roots):
            _remove_instance(left, roots)  # it was killed before there was a kdamond, or that has ended and gone
        occupants = damon_sysfs.find_occupants(roots)
        if occupants:  # somebody was faster
            raise _in_use(occupants)
        pid = os.getpid()
        return Claim(fd, os.dup(directory_fd), Entry(boot_id=boot_id(roots), pid=pid, start_ticks=start_ticks(pid)))
    except BlockingIOError:
        os.close(fd)
        raise MachineError("another pydamon is about to use it", where=WHERE) from None
    except BaseException:
        os.close(fd)
        raise


def _open_left(directory_fd: int, occupants: list[Occupant]) -> int:
    """The file that a killed pydamon has left, locked. Raises MachineError if there is none, or its owner lives."""
    try:
        fd = os.open(FILE, os.O_RDONLY | _FLAGS, dir_fd=directory_fd)
    except OSError:
        raise _in_use(occupants) from None
    try:
        _lock(fd, directory_fd)
    except BlockingIOError:
        entry = _read(fd)
        os.close(fd)
        raise _in_use(occupants, f"pydamon (pid {entry.pid})" if entry is not None else "another pydamon") from None
    return fd


def _lock(fd: int, directory_fd: int) -> None:
    """Lock the file; raises BlockingIOError if somebody else has it, or has put another one in its place."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        there = os.stat(FILE, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        raise BlockingIOError from None  # its owner has just removed it
    if not os.path.samestat(os.fstat(fd), there):
        raise BlockingIOError


def _read(fd: int) -> Entry | None:
    try:
        return msgspec.json.decode(os.pread(fd, 1 << 16, 0), type=learned(Entry))
    except (msgspec.DecodeError, OSError):
        return None


def _in_use(occupants: list[Occupant], by: str | None = None) -> MachineError:
    who = "; ".join(str(occupant) for occupant in occupants[:4])
    more = f" and {len(occupants) - 4} more" if len(occupants) > 4 else ""
    if by is not None:
        return MachineError(f"is in use by {by}: {who}{more}; stop that first", where=WHERE)
    return MachineError(f"is in use by somebody else, and left alone: {who}{more}", where=WHERE)


def _is_left_by(entry: Entry, occupants: list[Occupant], roots: Roots, tree: Tree) -> bool:
    """Whether what is there is one kdamond, and exactly the one that is written down.

    Either it is the very thread, or (it has ended with its targets, or its start was not written down any more) all
    that is configured is what we have configured.
    """
    if entry.boot_id != boot_id(roots) or _lives(entry, roots):
        return False
    if len(occupants) != 1 or occupants[0].what != "kdamond 0":
        return False
    thread = occupants[0].thread
    if entry.kdamond is not None and thread is not None:
        return entry.kdamond == (thread.pid, thread.start_ticks)
    return entry.fingerprint is not None and entry.fingerprint == fingerprint(tree)


def _lives(entry: Entry, roots: Roots) -> bool:
    try:
        text = read_bytes(Path(roots.proc, str(entry.pid), "stat"))
        return int(text[text.rindex(b")") + 2 :].split()[22 - 3]) == entry.start_ticks
    except (OSError, ValueError, IndexError):
        return False


def _clean(entry: Entry, roots: Roots, tree: Tree) -> None:
    """End the kdamond that a killed pydamon has left, and remove what belongs to it."""
    try:
        if tree.read("kdamonds/0/state") == "on":
            tree.write("kdamonds/0/state", "off")
        tree.write(NR_KDAMONDS, 0)
    except OSError as error:
        raise MachineError(f"what a killed pydamon has left cannot be removed: {error.strerror}", where=WHERE) from None
    _remove_instance(entry, roots)


def _remove_instance(entry: Entry, roots: Roots) -> None:
    # The file could say anything: only a name such as ours is believed.
    if entry.instance is not None and _INSTANCE.fullmatch(entry.instance) and not _lives(entry, roots):
        remove_instance(f"{roots.tracing}/instances/{entry.instance}")


def fingerprint(tree: Tree) -> str:
    """A number for all that is configured, which nobody else's configuration has."""
    digest = hashlib.sha256()
    for path, text in tree.settings("kdamonds"):
        if not _VOLATILE.search(path):
            digest.update(f"{path}={text}\n".encode())
    return digest.hexdigest()


def check_nobody(roots: Roots) -> None:
    """Raise MachineError if anybody at all, be it us, uses the kernel's DAMON; writes nothing."""
    occupants = damon_sysfs.find_occupants(roots)
    if occupants:
        raise _in_use(occupants)


def is_ours(occupant: Occupant, *, directory_fd: int, roots: Roots) -> bool:
    """Whether it is the very kdamond that a pydamon of this user has started; reads only."""
    try:
        fd = os.open(FILE, os.O_RDONLY | _FLAGS, dir_fd=directory_fd)
    except OSError:
        return False
    try:
        entry = _read(fd)
    finally:
        os.close(fd)
    thread = occupant.thread
    if entry is None or thread is None or entry.boot_id != boot_id(roots):
        return False
    return entry.kdamond == (thread.pid, thread.start_ticks)


def boot_id(roots: Roots) -> str:
    """What tells this boot of the machine from others."""
    try:
        return read_text(Path(roots.proc, "sys/kernel/random/boot_id")).strip()
    except OSError:
        return ""
