"""Where kdamonds in the background are found: a directory of the user's own, and three files for each of them. Those
that a group may look at are in another one, which the group can enter (`linux.own_directory`).

``NAME.pid`` says which process it is (pid and start time) and is locked by it as long as it lives, ``NAME.sock`` is its
control socket, ``NAME.log`` what it says. Whatever a killed daemon leaves is told apart by the identity and the lock,
and removed.

All files are opened relative to the directory's file descriptor, whose owner and mode were checked: nobody else can
put something in between, and the length of the path does not matter for the socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.learned import learned
from pydamon.linux.own_directory import (
    FLAGS,
    make_shared_directory,
    open_own_directory,
    own_directory,
    shared_directories,
)
from pydamon.linux.process import Process

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
SERVICE = ".service"  # at the end of a name: it supervises kdamonds, and is none
_MAX_NUMBER = 1000
_PATIENCE_S = 0.5  # for somebody who only looks whether a lock is free
_AGAIN_S = 0.02


class NameInUse(RequestError):
    """The name is another's, who lives."""


class Identity(msgspec.Struct, frozen=True):
    """What is in ``NAME.pid``: a process, for ever."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A name that is ours as long as ``lock_fd`` is open, also in processes that inherit it."""

    name: str
    lock_fd: int

    def write_identity(self) -> None:
        """From now on the name stands for this process."""
        process = Process(os.getpid())
        text = msgspec.json.encode(Identity(process.pid, process.start_ticks))
        process.close()
        os.pwrite(self.lock_fd, text, 0)
        os.ftruncate(self.lock_fd, len(text))

    def beat(self) -> None:
        """Leave a sign of life: the time of the file. Safe from any thread."""
        with contextlib.suppress(OSError):
            os.utime(self.lock_fd)


class RuntimeDirectory:
    """A directory for running kdamonds, held open: by default the user's own. Raises MachineError.

    With ``gid`` the sockets in it are for that group, too. ``path`` may be of another user, whose kdamonds can be
    asked, if they let us: they are known by their sockets only.
    """

    def __init__(self, path: str | None = None, *, gid: int | None = None) -> None:
        self.path = own_directory() if path is None else path
        self.gid = gid
        self.foreign = False
        if path is None or gid is not None:
            self._fd = open_own_directory(self.path)
            return
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
        except OSError as error:
            raise MachineError(f"cannot be opened: {error.strerror}", where=self.path) from None
        self.foreign = os.geteuid() not in (0, os.fstat(self._fd).st_uid)

    def __enter__(self) -> RuntimeDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """The directory's file descriptor."""
        return self._fd

    # -- who runs -------------------------------------------------------------------------------------------------

    def running(self) -> list[str]:
        """The names of the kdamonds that run; numbers first. What killed ones have left is removed."""
        names = [name for name in self._found() if not name.endswith(SERVICE)]
        return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))

    def services(self) -> list[str]:
        """The names of the services that run."""
        return sorted(name.removesuffix(SERVICE) for name in self._found() if name.endswith(SERVICE))

    def _found(self) -> list[str]:
        names = []
        for file in os.listdir(self._fd):
            name, dot, kind = file.rpartition(".")
            if dot and kind == ("sock" if self.foreign else "pid") and self.runs(name):
                names.append(name)
        return names

    def runs(self, name: str) -> bool:
        """Whether a kdamond (or a service) of that name runs. What a killed one has left is removed."""
        if not _NAME.fullmatch(name):
            return False
        if self.foreign:
            with contextlib.suppress(OSError):
                self.connect(name, _PATIENCE_S).close()
                return True
            return False
        process = self.process(name)
        if process is not None:
            process.close()
        return process is not None

    def process(self, name: str) -> Process | None:
        """The process of a kdamond that runs (to be closed by the caller), else None."""
        check_name(name)
        try:
            fd = os.open(f"{name}.pid", os.O_RDONLY | FLAGS, dir_fd=self._fd)
        except OSError:
            return None
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
        try:
            identity = msgspec.json.decode(text, type=learned(Identity))
            process = Process(identity.pid)
        except (msgspec.DecodeError, RequestError):
            self._remove_left(name)
            return None
        if process.start_ticks == identity.start_ticks and process.alive():
            return process
        process.close()
        self._remove_left(name)
        return None

    def _remove_left(self, name: str) -> None:
        """Remove the files of a killed daemon, unless the name is in use (or being taken) after all."""
        try:
            fd = os.open(f"{name}.pid", os.O_RDWR | FLAGS, dir_fd=self._fd)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_current(name, fd):
                self.remove(name)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    def _is_current(self, name: str, fd: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            here = os.stat(f"{name}.pid", dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(fd)
        return (here.st_dev, here.st_ino) == (mine.st_dev, mine.st_ino)

    def last_beat_ns(self, name: str) -> int | None:
        """When a kdamond has left its last sign of life (CLOCK_REALTIME, `Claim.beat`); None if there is none."""
        check_name(name)
        try:
            return os.stat(f"{name}.pid", dir_fd=self._fd, follow_symlinks=False).st_mtime_ns
        except OSError:
            return None

    # -- taking a name --------------------------------------------------------------------------------------------

    def claim(self, name: str | None) -> Claim:
        """Take ``name`` (which may be one of a service), or the lowest free number.

        Raises NameInUse, and RequestError if it is no name.
        """
        if name is not None:
            check_name(name)
            fd = self._lock(name)
            if fd is None:
                raise NameInUse(f"{name!r} is in use; stop it or take another name", where="name")
            return Claim(name, fd)
        for candidate in map(str, range(_MAX_NUMBER)):
            fd = self._lock(candidate, patience_s=0)
            if fd is not None:
                return Claim(candidate, fd)
        raise RequestError(f"all numbers below {_MAX_NUMBER} are in use", where="name")

    def _lock(self, name: str, patience_s: float = _PATIENCE_S) -> int | None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fd = os.open(f"{name}.pid", os.O_RDWR | os.O_CREAT | FLAGS, 0o600, dir_fd=self._fd)
            except OSError as error:
                raise MachineError(f"cannot be opened: {error.strerror}", where=f"{self.path}/{name}.pid") from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                if time.monotonic() >= deadline:
                    return None
                time.sleep(_AGAIN_S)
                continue
            if self._is_current(name, fd):
                os.ftruncate(fd, 0)
                self._unlink(f"{name}.sock")
                return fd
            os.close(fd)  # removed between opening and locking

    def remove(self, name: str) -> None:
        """Remove the files by which a kdamond is found; its log stays."""
        self._unlink(f"{name}.sock")
        self._unlink(f"{name}.pid")

    def _unlink(self, file: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file, dir_fd=self._fd)

    # -- its socket and its log -----------------------------------------------------------------------------------

    def listen(self, name: str) -> socket.socket:
        """The control socket of a claimed name, mode 0600 (0660 and the group's, if there is one), listening."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with _umask(0o177):
                listener.bind(self._socket_path(name))
            if self.gid is not None:
                os.chown(f"{name}.sock", -1, self.gid, dir_fd=self._fd, follow_symlinks=False)
                os.chmod(self._socket_path(name), 0o660)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise MachineError(f"cannot be made: {error.strerror}", where=f"{self.path}/{name}.sock") from None
        return listener

    def connect(self, name: str, timeout_s: float) -> socket.socket:
        """A connection to a running kdamond. Raises OSError."""
        check_name(name)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout_s)
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    connection.connect(self._socket_path(name))
                    return connection
                except BlockingIOError:  # so many wait already, as a rule for a moment
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(_AGAIN_S)
        except BaseException:
            connection.close()
            raise

    def _socket_path(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd}/{name}.sock"

    def log_path(self, name: str) -> str:
        """Where a kdamond writes what it has to say."""
        return f"{self.path}/{name}.log"

    def has_log(self, name: str) -> bool:
        """Whether a kdamond of that name, running or not, has left a log."""
        try:
            return os.stat(f"{name}.log", dir_fd=self._fd, follow_symlinks=False).st_size > 0
        except FileNotFoundError:
            return False

    def open_log(self, name: str) -> int:
        """A new, empty log. Raises MachineError."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | FLAGS
            return os.open(f"{name}.log", flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise MachineError(f"cannot be written: {error.strerror}", where=self.log_path(name)) from None

    def remove_log(self, name: str) -> None:
        """Remove the log."""
        self._unlink(f"{name}.log")


def directories() -> Iterator[RuntimeDirectory]:
    """The user's own directory, and those of others that this user may enter; each is open while it is looked at."""
    with RuntimeDirectory() as directory:
        yield directory
    for path in shared_directories():
        with contextlib.suppress(MachineError), RuntimeDirectory(path) as directory:
            yield directory


def group_directory(name: str, group: str) -> RuntimeDirectory:
    """The directory ``name`` of this user's, whose kdamonds the group may look at; below systemd its own one.

    Raises RequestError if there is no such group, MachineError.
    """
    gid = group_id(group)
    return RuntimeDirectory(make_shared_directory(name, gid), gid=gid)


def group_id(group: str) -> int:
    """The number of a group. Raises RequestError if there is none of that name."""
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise RequestError(f"there is no group {group[:80]!r} on this machine", where="group") from None


def service_directory(name: str, group: str | None) -> RuntimeDirectory:
    """The directory of the service ``name``: for the group, else what systemd has made for it, else the user's own."""
    if group is not None:
        return group_directory(name, group)
    made = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(made):
        os.close(open_own_directory(made))
        return RuntimeDirectory(made)
    return RuntimeDirectory()


def check_name(name: str) -> None:
    """Raise RequestError if ``name`` cannot be the name of a kdamond."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name[:80]!r} is not a name; it may have up to 64 letters, digits, '-', '_' and '.', "
            "and begins with a letter or digit",
            where="name",
        )


def check_monitor_name(name: str) -> None:
    """Raise RequestError if ``name`` cannot be that of one that monitors: those of services are told by their ends."""
    check_name(name)
    if name.endswith(SERVICE):
        raise RequestError(f"{name!r} ends in {SERVICE}, as only services do; take another", where="name")


def the_only(names: list[str]) -> str:
    """The name that is meant where none is given. Raises PydamonError if none runs, RequestError if several do."""
    if not names:
        raise PydamonError("nothing runs in the background", where="pydamon")
    if len(names) > 1:
        raise RequestError(f"several run; say which: {', '.join(names)}", where="name")
    return names[0]


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)
