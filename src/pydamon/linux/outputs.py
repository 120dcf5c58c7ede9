"""The one way to open what is written: nothing is followed, or written into, that another user may have planted.

The rule is the kernel's of protected symbolic links and regular files, also where that is switched off, and for every
link on the way: in a folder that everybody may write (or, if it is sticky, a group), a link, file or pipe is used only
if the caller or the folder's owner owns it. Files are made beside their place and renamed, so that a link or file that
comes in between is replaced, and never written through. Devices and pipes stay what they are; writing to them waits for
their reader, but not against the will of the user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from pydamon.errors import RequestError
from pydamon.linux import sudo, temporary

PRIVATE = 0o600

_MOST_LINKS = 40
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")
_READER_S = 1.0  # so long a reader may take to come, or to take the rest when all is to end
_LOOK_S = 0.1
_AT_ONCE = 4096  # PIPE_BUF: where poll() says that a pipe takes something, it takes so much

_KINDS = {stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}


def never() -> bool:
    """The default of ``stopped``: nobody asks for an end."""
    return False


class Place:
    """Where an output goes, with all links on the way followed, or refused: a name in a folder that is held open.

    ``found`` is what is there (None: nothing yet). Raises RequestError about ``where`` for what cannot be written, or
    must not be. A context manager.
    """

    def __init__(self, path: str, where: str) -> None:
        self.path = path
        self.where = where
        self.found: os.stat_result | None = None
        self._folder_fd = -1
        self.name = ""
        self.dangling = False  # nothing is there but a link to it
        self._descriptor: int | None = None  # of our own, where one of these is named
        try:
            self._walk()
            self._check()
        except OSError as error:
            self.close()
            raise self.refused(error.strerror) from None
        except ValueError:  # a NUL character
            self.close()
            raise RequestError(f"{path!r} is not the name of a file", where=where) from None
        except BaseException:
            self.close()
            raise

    @property
    def is_stream(self) -> bool:
        """Whether it is a device, a pipe, or a descriptor that is open already: it stays what it is."""
        return self._descriptor is not None or (self.found is not None and not stat.S_ISREG(self.found.st_mode))

    def refused(self, why: str | None) -> RequestError:
        """The error of not being able to write there."""
        return RequestError(f"cannot write {self.path}: {why}", where=self.where)

    def close(self) -> None:
        """Let go of the folder. Closing again does nothing."""
        fd, self._folder_fd = self._folder_fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the way there ------------------------------------------------------------------------------------------------

    def _walk(self) -> None:
        """Go from folder to folder; `found` is what the last name stands for."""
        if not self.path:
            raise RequestError("is not the name of a file", where=self.where)
        self._folder_fd = os.open("/" if self.path.startswith("/") else ".", _FOLDER)
        left = deque(part for part in self.path.split("/") if part not in ("", "."))
        links = 0
        if not left or left[-1] == ".." or self.path.endswith("/"):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        while left:
            name = left.popleft()
            try:
                found = os.stat(name, dir_fd=self._folder_fd, follow_symlinks=False)
            except FileNotFoundError:
                self._missing(name, bool(left), links)
                return
            if not stat.S_ISLNK(found.st_mode):
                if left:
                    self._enter(name)
                    continue
                self.name, self.found = name, found
                return
            if not left and self._is_descriptor(name):
                return
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self.refuse_planted("a symbolic link", found)
            target = os.readlink(name, dir_fd=self._folder_fd)
            if target.startswith("/"):
                self._enter("/")
            left.extendleft(part for part in reversed(target.split("/")) if part not in ("", "."))
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

    def _enter(self, name: str) -> None:
        fd = os.open(name, _FOLDER, dir_fd=self._folder_fd)
        os.close(self._folder_fd)
        self._folder_fd = fd

    def _missing(self, name: str, is_folder: bool, links: int) -> None:
        if is_folder:
            raise self.refused(f"there is no directory {os.path.dirname(self.path) or name}")
        self.name, self.dangling = name, links > 0

    def _is_descriptor(self, name: str) -> bool:
        """Whether the link is one of /proc/self/fd: what is open already, and may have no name."""
        match = _DESCRIPTORS.fullmatch(os.readlink(f"/proc/self/fd/{self._folder_fd}"))
        if match is None or not name.isdecimal():
            return False
        if int(match[1]) != os.getpid():
            raise self.refused("it is another process's")
        self._descriptor = int(name)
        return True

    def refuse_planted(self, what: str, found: os.stat_result) -> None:
        """Raise RequestError if another user may have put ``found`` into the folder."""
        folder = os.fstat(self._folder_fd)
        shared = folder.st_mode & stat.S_IWOTH or (folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWGRP)
        if shared and found.st_uid not in (*_callers(), folder.st_uid):
            raise RequestError(
                f"{self.path} is {what} of user {found.st_uid} in a folder where others may write; choose another name",
                where=self.where,
            )

    def _check(self) -> None:
        """Raise what writing there would raise, as far as that can be told without doing it."""
        if self._descriptor is not None:
            return
        if self.found is None:
            self._check_folder()
            return
        kind = stat.S_IFMT(self.found.st_mode)
        if kind == stat.S_IFDIR:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if kind in _KINDS:
            raise RequestError(f"{self.path} is {_KINDS[kind]}", where=self.where)
        self.refuse_planted("a file" if kind == stat.S_IFREG else "a device or pipe", self.found)
        if kind == stat.S_IFREG:
            self._check_folder()
        elif not os.access(self.name, os.W_OK, dir_fd=self._folder_fd, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def _check_folder(self) -> None:
        # By its descriptor: it may be one that O_PATH alone can open.
        if not os.access(f"/proc/self/fd/{self._folder_fd}", os.W_OK | os.X_OK, effective_ids=True):
            raise self.refused(f"no permission to write in {os.path.dirname(self.path) or '.'}")

    # -- opening ------------------------------------------------------------------------------------------------------

    def open_found(self, flags: int) -> int:
        """A descriptor of what was found, and of nothing that has come in its place."""
        fd = os.open(self.name, flags | _FILE, dir_fd=self._folder_fd)
        now = os.fstat(fd)
        if self.found is None or (now.st_dev, now.st_ino) != (self.found.st_dev, self.found.st_ino):
            os.close(fd)
            raise self.refused("it is being replaced by somebody else")
        return fd

    def is_as_found(self) -> bool:
        """Whether the name still stands for what was found, or for nothing if nothing was."""
        try:
            now = os.stat(self.name, dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return self.found is None
        return self.found is not None and (now.st_dev, now.st_ino) == (self.found.st_dev, self.found.st_ino)

    def open_stream(self, stopped: Callable[[], bool] = never) -> Stream:
        """The device, pipe or descriptor; raises RequestError if nobody reads from the pipe."""
        if self._descriptor is not None:
            try:
                fd = fcntl.fcntl(self._descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            except OSError as error:
                raise self.refused(error.strerror) from None
            return Stream(fd, stopped, shared=True)
        end = time.monotonic() + _READER_S
        while True:
            try:
                return Stream(self.open_found(os.O_WRONLY), stopped, shared=False)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise self.refused(error.strerror) from None
                if stopped() or time.monotonic() > end:
                    raise self.refused("nobody reads from this pipe; start its reader first") from None
            time.sleep(_LOOK_S / 10)

    def make_beside(self, mode: int = PRIVATE) -> NewFile:
        """A new, empty file in the folder, which is to appear at the place. Takes the place over."""
        try:
            return NewFile(self, mode)
        except OSError as error:
            raise self.refused(error.strerror) from None

    def open_to_append(self) -> int:
        """A descriptor of the file, made if there is none; what is written goes to its end."""
        if self.is_stream:
            return self.open_stream().fd
        try:
            if self.found is not None:
                return self.open_found(os.O_WRONLY | os.O_APPEND)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _FILE
            return os.open(self.name, flags, PRIVATE, dir_fd=self._folder_fd)
        except OSError as error:
            raise self.refused(error.strerror) from None

    def folder_fd(self) -> int:
        """The descriptor of the folder."""
        return self._folder_fd


class Stream:
    """A device, pipe or descriptor that is written to; once ``stopped`` says so, a reader has a second left."""

    def __init__(self, fd: int, stopped: Callable[[], bool], *, shared: bool) -> None:
        self.fd = fd
        self._stopped = stopped
        mode = os.fstat(fd).st_mode
        # What others have open, too, must not be made non-blocking: it gets so little at a time that it does not block.
        self._most = _AT_ONCE if shared and not stat.S_ISREG(mode) else 1 << 16
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, data: memoryview) -> int:
        """Write some of ``data`` as soon as there is room for it; OSError if that does not come, or cannot."""
        given_up: float | None = None
        while not self._poll.poll(_LOOK_S * 1000):
            if not self._stopped():
                continue
            if given_up is None:
                given_up = time.monotonic() + _READER_S
            elif time.monotonic() > given_up:
                raise OSError(errno.ETIMEDOUT, "its reader takes nothing")
        try:
            return os.write(self.fd, data[: self._most])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise OSError(errno.EPIPE, "its reader is gone") from None


class NewFile:
    """A file that is made beside its place: `appear` renames it, `discard` removes it.

    Its descriptor stays open; until it appears it has a `temporary.name`. Locked, so that two recordings
    do not go to one file.
    """

    def __init__(self, place: Place, mode: int) -> None:
        self.place = place
        suffix = os.path.splitext(place.name)[1][:16]
        self._name = temporary.name(suffix)
        self._folder_fd = place.folder_fd()
        temporary.clean(self._folder_fd)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fd = os.open(self._name, flags, PRIVATE, dir_fd=self._folder_fd)
        temporary.hold(self.fd)
        self.appeared = False
        _give_to_invoking_user(self.fd)
        if mode != PRIVATE:
            os.fchmod(self.fd, mode)

    def appear(self) -> None:
        """Take the place: of what was found there, of nothing that has come since. Raises RequestError, OSError."""
        if not self.place.is_as_found():
            raise self.place.refused("somebody else has written it meanwhile")
        check_closing(self.fd)
        if self.place.found is None:
            self._take_free_name()
        else:
            os.rename(self._name, self.place.name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        self.appeared = True

    def _take_free_name(self) -> None:
        """Rename without replacing: of two who want a free name one gets it."""
        try:
            os.link(self._name, self.place.name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        except FileExistsError:
            raise self.place.refused("somebody else has written it meanwhile") from None
        except OSError:  # a file system without hard links
            os.rename(self._name, self.place.name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        else:
            with contextlib.suppress(OSError):  # the next run removes it
                os.unlink(self._name, dir_fd=self._folder_fd)

    def discard(self, *, everything: bool = False) -> None:
        """Remove the file if it has not appeared; or even then, if ``everything`` and nothing was there before."""
        with contextlib.suppress(OSError):
            if not self.appeared:
                os.unlink(self._name, dir_fd=self._folder_fd)
            elif everything and self.place.found is None:
                os.unlink(self.place.name, dir_fd=self._folder_fd)

    def close(self) -> None:
        """Let go of the folder; the descriptor is the caller's."""
        self.place.close()


def check_closing(fd: int) -> None:
    """Raise OSError if closing says that not all is stored (network file systems do, and quotas); ``fd`` stays open."""
    try:
        another = os.dup(fd)
    except OSError:  # too many open files: then it is not known
        return
    os.close(another)


def lock_found(place: Place) -> int | None:
    """A descriptor of the file that is to be replaced, locked; None if there is none.

    RequestError if another pydamon records to it.
    """
    if place.found is None or place.is_stream:
        return None
    try:
        fd = place.open_found(os.O_RDONLY)
    except OSError as error:
        raise place.refused(error.strerror) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RequestError(f"another pydamon is recording to {place.path}", where=place.where) from None
    except OSError:
        pass  # a file system without locks
    return fd


def mode_for(sources: list[str], widened: int | None = None) -> int:
    """The mode of what is made from these files: no wider than theirs (what has none, as a pipe, is private).

    ``widened`` is what the user wants instead.
    """
    if widened is not None:
        return widened
    mask = os.umask(0)
    os.umask(mask)
    mode = 0o666 & ~mask
    for path in sources:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return mode & PRIVATE
        mode &= status.st_mode if stat.S_ISREG(status.st_mode) else PRIVATE
    return mode | PRIVATE


def _callers() -> tuple[int, ...]:
    """Who we are: under sudo also the user who called it."""
    uid = os.geteuid()
    invoking = sudo.invoking_owner()
    return (uid,) if invoking is None else (uid, invoking[0])


def _give_to_invoking_user(fd: int) -> None:
    """Under sudo, what we create belongs to who called sudo."""
    invoking = sudo.invoking_owner()
    if invoking is not None:
        with contextlib.suppress(OSError):
            os.fchown(fd, *invoking)
