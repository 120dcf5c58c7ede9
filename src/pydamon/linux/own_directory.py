"""Directories for what ends with the boot: the user's own, for control sockets and facts of the running kernel; and
those whose sockets a group may reach, below one that root has made.
"""

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


def shared_base() -> str:
    """Below it are the directories that groups may enter: ``$PYDAMON_RUN_DIR``, else ``/run/pydamon``."""
    return os.environ.get("PYDAMON_RUN_DIR") or "/run/pydamon"


def make_shared_directory(name: str, gid: int) -> str:
    """The directory ``name`` below `shared_base`, which the group may enter and nobody else; it is made, or is ours.

    Raises MachineError if it cannot be made, is not ours, or cannot be given to the group.
    """
    base = shared_base()
    path = os.path.join(base, name)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(base, 0o755)
        _check_base(base)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o750)
        fd = open_own_directory(path)
    except OSError as error:
        hint = "run as root, or in a unit with RuntimeDirectory=pydamon/NAME"
        raise MachineError(f"cannot be made: {error.strerror}; {hint}", where=path) from None
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, 0o750)
    except OSError as error:
        why = f"cannot be given to the group {gid}: {error.strerror}; whoever runs this must be in the group"
        raise MachineError(why, where=path) from None
    finally:
        os.close(fd)
    return path


def shared_directories() -> list[str]:
    """The directories below `shared_base` that this user may enter, sorted."""
    base = shared_base()
    try:
        _check_base(base)
        names = sorted(os.listdir(base))
    except (OSError, MachineError):
        return []
    paths = [os.path.join(base, name) for name in names]
    return [path for path in paths if os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK, effective_ids=True)]


def _check_base(base: str) -> None:
    """Raise MachineError if somebody else than root and this user may put something into it."""
    status = os.stat(base, follow_symlinks=False)
    trusted = status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
    if not stat.S_ISDIR(status.st_mode) or not trusted:
        raise MachineError("must be a directory of root's, or yours, that others cannot write", where=base)


def _is_own(path: str, uid: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022
