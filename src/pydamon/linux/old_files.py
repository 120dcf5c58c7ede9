"""One generation of what an output replaces: it keeps its content, as its name with ``.old``.

Nothing is written into what is there, nothing is followed, and the name is never without a file in between. What has
the name with ``.old`` already is replaced only if it is what an earlier run has kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable

from pydamon.errors import RequestError
from pydamon.linux import temporary
from pydamon.linux.outputs import Place

SUFFIX = ".old"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def old_path(place: Place) -> str:
    """What the kept file is called, as the user has named the output, or in full if that was a link elsewhere."""
    if os.path.basename(place.path) == place.name:
        return place.path + SUFFIX
    return f"{os.readlink(f'/proc/self/fd/{place.folder_fd()}')}/{place.name}{SUFFIX}"


def check_old(place: Place, is_ours: Callable[[int], bool]) -> None:
    """Raise RequestError if what was found cannot be kept; ``is_ours`` tells whether a file (fd) may be replaced."""
    name, path = place.name + SUFFIX, old_path(place)
    try:
        fd = os.open(name, _FLAGS, dir_fd=place.folder_fd())
    except FileNotFoundError:
        return
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise _refused(place, f"{path} {why}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (found.st_size and not is_ours(fd)):
            raise _refused(place, f"{path} is no pydamon record")
        place.refuse_planted("a file beside one", found)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refused(place, f"another pydamon is recording to {path}") from None
        except OSError:
            pass  # a file system without locks
    finally:
        os.close(fd)


def keep_old(place: Place, is_ours: Callable[[int], bool]) -> str:
    """Give what was found its name with ``.old``, too; returns its path. Raises as `check_old`, and OSError."""
    check_old(place, is_ours)
    assert place.found is not None
    folder, name = place.folder_fd(), temporary.name()
    try:
        os.link(place.name, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError:  # a file system without hard links, or a file for which the kernel grants none
        if not place.is_as_found():
            raise place.refused("it is being replaced by somebody else") from None
        os.rename(place.name, place.name + SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
        place.found = None
        return old_path(place)
    try:
        linked = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if (linked.st_dev, linked.st_ino) != (place.found.st_dev, place.found.st_ino):
            raise place.refused("it is being replaced by somebody else")
        os.rename(name, place.name + SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        # It is still there if that went wrong, or if both names were the same file before.
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
    return old_path(place)


def _refused(place: Place, why: str) -> RequestError:
    return RequestError(f"what is in {place.path} cannot be kept: {why}; choose another name", where=place.where)
