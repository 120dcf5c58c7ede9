"""The tree as a file system: a thin shell of mfusepy (libfuse) around `nodes.Tree`.

Every read and write reaches the tree, as with sysfs: nothing is cached by the kernel. One write(2) is one command.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from typing import Any

from pydamon.damonfs.formats import fail
from pydamon.damonfs.nodes import PAGE_SIZE, Directory, File, Tree
from pydamon.errors import MachineError


def binding() -> Any:
    """The module mfusepy; raises MachineError if it or libfuse is missing."""
    try:
        import mfusepy
    except ImportError:
        raise MachineError("needs mfusepy: pip install mfusepy", where="mount") from None
    except OSError as error:  # the library is loaded when the module is
        raise MachineError(f"needs libfuse (on Debian: apt-get install libfuse3-3): {error}", where="mount") from None
    return mfusepy


class _Handle:
    """One opened file: what is shown to a reader is made when it begins at the start."""

    __slots__ = ("file", "shown")

    def __init__(self, file: File) -> None:
        self.file = file
        self.shown = b""


class Server:
    """The operations that libfuse calls, from several threads; an OSError becomes the error number.

    ``user`` tells the id of the user who is being served, ``mounted`` is called when the file system can be used.
    """

    use_ns = True

    def __init__(self, tree: Tree, user: Callable[[], int], mounted: Callable[[], object] = lambda: None) -> None:
        self._tree = tree
        self._user = user
        self._mounted = mounted
        self._began_ns = time.time_ns()
        self._owner = (os.getuid(), os.getgid())
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)

    def init(self, path: str) -> None:
        """The file system is there."""
        self._mounted()

    def getattr(self, path: str, info: Any = None) -> dict[str, int]:
        """stat(2)."""
        node = self._tree.find(path)
        directory = isinstance(node, Directory)
        return {
            "st_mode": node.mode | (stat.S_IFDIR if directory else stat.S_IFREG),
            "st_nlink": 2 + node.nr_directories() if isinstance(node, Directory) else 1,
            "st_uid": self._owner[0],
            "st_gid": self._owner[1],
            "st_size": 0 if directory else self._tree.file_size,
            "st_atime": self._began_ns,
            "st_mtime": self._began_ns,
            "st_ctime": self._began_ns,
        }

    def readdir(self, path: str, handle: int) -> list[str]:
        """The names in a directory."""
        return [".", "..", *self._tree.names(path)]

    def open(self, path: str, info: Any) -> int:
        """open(2); as with sysfs the file's mode holds for root, too."""
        self._check_user(path)
        file = self._tree.file(path)
        access = info.flags & os.O_ACCMODE
        if access in (os.O_WRONLY, os.O_RDWR) and not file.mode & 0o222:
            fail(errno.EACCES)
        if access in (os.O_RDONLY, os.O_RDWR) and not file.mode & 0o444:
            fail(errno.EACCES)
        info.fh = next(self._numbers)
        info.direct_io = 1
        self._handles[info.fh] = _Handle(file)
        return 0

    def read(self, path: str, size: int, offset: int, info: Any) -> bytes:
        """read(2)."""
        handle = self._handles[info.fh]
        if offset == 0:
            handle.shown = handle.file.read()
        return handle.shown[offset : offset + size]

    def write(self, path: str, data: bytes, offset: int, info: Any) -> int:
        """write(2)."""
        return self._handles[info.fh].file.write(data, offset)

    def release(self, path: str, info: Any) -> int:
        """The last close(2)."""
        self._handles.pop(info.fh, None)
        return 0

    def truncate(self, path: str, length: int, info: Any = None) -> int:
        """Opening with O_TRUNC changes nothing, as with sysfs."""
        self._tree.file(path)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """chmod(2): kept until the node goes."""
        self._check_user(path)
        self._tree.find(path).mode = stat.S_IMODE(mode)
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        """Times are not kept."""
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """statfs(2)."""
        return {"f_bsize": PAGE_SIZE, "f_namemax": 255}

    def create(self, path: str, mode: int, info: Any = None) -> int:
        """Nobody makes files in sysfs."""
        fail(errno.EACCES)

    def _check_user(self, path: str) -> None:
        """EACCES for whoever is neither the owner nor root: no file is anybody else's."""
        if self._user() not in (0, self._owner[0]):
            fail(errno.EACCES)

    def _refuse(self, *_: object) -> int:
        fail(errno.EPERM)

    mkdir = mknod = unlink = rmdir = symlink = rename = link = _refuse


def serve(tree: Tree, directory: str, mounted: Callable[[], object] = lambda: None) -> None:
    """Mount ``tree`` on ``directory`` and serve it until it is unmounted.

    Raises MachineError if it cannot be mounted. Ends also on SIGINT, SIGTERM and SIGHUP.
    """
    fuse = binding()
    server: Any = type("DamonFs", (Server, fuse.Operations), {})(tree, lambda: fuse.fuse_get_context()[0], mounted)
    # The kernel may keep names, since whatever is done to one asks the tree again: one that has gone is ENOENT then.
    # That is far fewer requests than a walk of the whole path each time. Checking permissions on the way should need
    # none either, so it is not left to the kernel (default_permissions) but done when a file is opened.
    options: dict[str, Any] = {"attr_timeout": 0, "entry_timeout": 3600, "negative_timeout": 0}
    if os.getuid() == 0:
        options["allow_other"] = True  # like sysfs; the modes keep all but root from the files
    try:
        fuse.FUSE(
            server, directory, raw_fi=True, foreground=True, fsname="damonfs", subtype="damonfs",
            max_idle_threads=4, **options,
        )  # fmt: skip
    except RuntimeError as error:
        raise MachineError(
            f"cannot mount (error {error}); it needs /dev/fuse, and root or fusermount3", where=directory
        ) from None
