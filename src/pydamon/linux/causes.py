"""Why the kernel refused a file, and what would help: permission for a lack of permission, not for a full table."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Iterator

_PERMISSION = (errno.EPERM, errno.EACCES)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO)


def cause(error: OSError, permission: str = "", missing: str = "") -> str:
    """The system's word for it, and what would help: ``permission`` if this user may not, ``missing`` if there is none.

    For example ``Permission denied; run as root`` or ``Too many open files; this process may have 1024 (ulimit -n)``.
    """
    word = error.strerror or str(error)
    remedy = ""
    if error.errno in _PERMISSION:
        remedy = permission
    elif error.errno in _MISSING:
        remedy = missing
    elif error.errno == errno.EMFILE:
        with contextlib.suppress(OSError, ValueError):
            remedy = f"this process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} (ulimit -n)"
    elif error.errno == errno.ENFILE:
        remedy = "the whole machine has no more (sysctl fs.file-max)"
    elif error.errno == errno.ENOSPC:
        remedy = "the file system is full"
    return f"{word}; {remedy}" if remedy else word


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """An OSError that is raised in here, by a call that knows a descriptor only, is about ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise
