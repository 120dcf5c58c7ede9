"""Writing a file that a report was asked for: the whole of it or nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO

from pydamon.errors import PydamonError, RequestError

OPTION = "-o"


def write_whole(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` fill the file, which appears (or is replaced) only once it is complete.

    A device or a pipe stays what it is and gets the content. Raises RequestError if it cannot be written there,
    PydamonError if writing failed; nothing is left then.
    """
    if os.path.isdir(path):
        raise RequestError(f"{path} is a directory", where=OPTION)
    import tempfile

    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null, say
        _write_into(path, write)
        return
    path = os.path.realpath(path)  # a link stays one
    suffix = os.path.splitext(path)[1]
    try:
        fd, temporary = tempfile.mkstemp(prefix=".pydamon-", suffix=suffix, dir=os.path.dirname(path) or ".")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}", where=OPTION) from None
    try:
        with os.fdopen(fd, "wb") as file:
            write(file)
            _own(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise PydamonError(f"cannot write {path}: {error.strerror}", where=OPTION) from None
        raise


def _write_into(path: str, write: Callable[[BinaryIO], object]) -> None:
    import shutil
    import tempfile

    with tempfile.TemporaryFile() as file:  # what writes may go back in it
        write(file)
        file.seek(0)
        try:
            with open(path, "wb") as into:
                shutil.copyfileobj(file, into)
        except OSError as error:
            raise RequestError(f"cannot write {path}: {error.strerror}", where=OPTION) from None


def _own(fd: int) -> None:
    """Permissions as for any new file; under sudo the file belongs to whoever called sudo."""
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(fd, 0o666 & ~mask)
    if os.geteuid() == 0 and "SUDO_UID" in os.environ and "SUDO_GID" in os.environ:
        with contextlib.suppress(ValueError, OSError):
            os.fchown(fd, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
