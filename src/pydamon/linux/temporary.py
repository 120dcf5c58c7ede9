"""Files that have a temporary name until they are whole: what a killed process has left of them is removed by the next.

Whoever makes one holds a lock on it (flock(2)) as long as it lives; so it is told, also across pid namespaces and
restarts of the machine, whether the maker is still there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat

from pydamon.linux import sudo

NAME = re.compile(r"\.pydamon-(\d+)-[0-9a-f]{8}(\.[^.]*)?")  # its maker's pid is for people to see
_MOST_LOOKS = 100_000  # names in a folder
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def name(suffix: str = "") -> str:
    """A new name; ``suffix`` is that of the file to come, with its dot, or empty."""
    return f".pydamon-{os.getpid()}-{os.urandom(4).hex()}{suffix[:16]}"


def hold(fd: int) -> None:
    """Say by a lock that the maker of the open file lives; to be done as soon as it is made."""
    with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there, either
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clean(folder: int | str) -> list[str]:
    """Remove from a folder (path or descriptor) our temporary files whose makers live no more; returns their names.

    Ours are regular files with such a `name` that belong to this user (under sudo also to whoever called it). Others
    are left alone, and nothing that goes wrong is an error.
    """
    removed = []
    with contextlib.suppress(OSError):
        if isinstance(folder, str):
            folder_fd = os.open(folder, _FOLDER)
        else:  # it may be one that only stands for the place (O_PATH)
            folder_fd = os.open(".", _FOLDER, dir_fd=folder)
        try:
            for found in _candidates(folder_fd):
                if _is_left(found, folder_fd):
                    removed.append(found)
        finally:
            os.close(folder_fd)
    return removed


def _candidates(folder_fd: int) -> list[str]:
    with os.scandir(folder_fd) as entries:
        names = (entry.name for _, entry in zip(range(_MOST_LOOKS), entries, strict=False))
        return [each for each in names if NAME.fullmatch(each)]


def _is_left(found: str, folder_fd: int) -> bool:
    """Whether it was ours and nobody's any more; it is removed then."""
    with contextlib.suppress(OSError):
        fd = os.open(found, _FLAGS, dir_fd=folder_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in _users():
                return False
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here = os.stat(found, dir_fd=folder_fd, follow_symlinks=False)
            if (here.st_dev, here.st_ino) == (status.st_dev, status.st_ino):
                os.unlink(found, dir_fd=folder_fd)
                return True
        finally:
            os.close(fd)
    return False


def _users() -> tuple[int, ...]:
    uid, invoking = os.geteuid(), sudo.invoking_user()
    return (uid,) if invoking is None else (uid, invoking)
