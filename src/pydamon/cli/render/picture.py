"""Writing a picture file: the whole of it or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from pydamon.errors import MachineError, PydamonError, RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = {".png": "png", ".svg": "svg"}
_WHERE = "-o"


def check_picture(path: str) -> str:
    """The format for the file's name; RequestError if it is none of ours, MachineError without matplotlib."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in _FORMATS:
        raise RequestError(f"{path}: pictures are .png or .svg; choose such a name", where=_WHERE)
    if os.path.isdir(path):
        raise RequestError(f"{path} is a directory", where=_WHERE)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MachineError("drawing needs matplotlib: pip install 'pydamon[plot]'", where=_WHERE) from None
    return _FORMATS[extension]


def write_picture(path: str, figure: Figure) -> None:
    """Draw the figure into the file, which appears (or is replaced) only once it is complete."""
    import matplotlib

    kind = check_picture(path)
    directory = os.path.dirname(path) or "."
    try:
        fd, temporary = tempfile.mkstemp(prefix=".pydamon-", suffix="." + kind, dir=directory)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}", where=_WHERE) from None
    try:
        with os.fdopen(fd, "wb") as file, matplotlib.rc_context({"svg.hashsalt": "pydamon"}):
            # Without a date the same record gives the same file.
            metadata = {"Date": None} if kind == "svg" else {"Software": "pydamon"}
            figure.savefig(file, format=kind, metadata=metadata)
            _own(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise PydamonError(f"cannot write {path}: {error.strerror}", where=_WHERE) from None
        raise


def _own(fd: int) -> None:
    """Permissions as for any new file; under sudo the file belongs to who called sudo."""
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(fd, 0o666 & ~mask)
    if os.geteuid() == 0 and "SUDO_UID" in os.environ and "SUDO_GID" in os.environ:
        with contextlib.suppress(ValueError, OSError):
            os.fchown(fd, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
