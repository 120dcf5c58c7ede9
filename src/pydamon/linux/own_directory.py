"""A directory of the user's own for what ends with the boot: control sockets, and facts of the running kernel."""

from __future__ import annotations

import contextlib
import os
import stat

from pydamon.errors import MachineError

FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW  # for what is opened in it


def own_directory() -> str:
    """Its path: ``$XDG_RUNTIME_DIR/pydamon``, else ``/run/user/UID/pydamon``, else ``/tmp/pydamon-UID``.

    A base directory that is not the user's own is passed over.
    """
    uid = os.geteuid()
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if os.path.isabs(base) and _is_own(base, uid):
            return os.path.join(base, "pydamon")
    return f"/tmp/pydamon-{uid}"


def open_own_directory(path: str) -> int:
    """A file descriptor of it; it is made if it is not there.

    Raises MachineError if it is a symbolic link, belongs to somebody else, or can be written by others.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
    except OSError as error:
        raise MachineError(f"cannot be used: {error.strerror}; it must be a directory", where=path) from None
    status = os.fstat(fd)
    obstacle = None
    if status.st_uid != os.geteuid():
        obstacle = f"belongs to user {status.st_uid}, not to {os.geteuid()}"
    elif status.st_mode & 0o022:
        obstacle = f"can be written by others (mode {stat.S_IMODE(status.st_mode):o}); chmod 700 would do"
    if obstacle is not None:
        os.close(fd)
        raise MachineError(f"{obstacle}; XDG_RUNTIME_DIR may name a directory of yours", where=path)
    return fd


def _is_own(path: str, uid: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022
