"""Where a data set lies: a directory, or an object store by its URL. A file is there whole or not at all.

Names are relative, with ``/``. To put the same bytes under the same name again changes nothing, so it may be tried
again after whatever went wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux import temporary
from pydamon.plain import printable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FIELD = "to"
MOST_BYTES = 1 << 30  # of one file that is read
_INCOMING = ".pydamon-incoming"  # below the root: files that are not whole yet
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,200}")
_FILE_URL = "file://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https", "http", "memory")
_PIECE = 1000  # names at a time
_TIMEOUT = "30s"
_CONNECT = "5s"


class StoreError(PydamonError):
    """The store did not do it this time: it may later."""


class Entry(NamedTuple):
    """A file in a store."""

    name: str
    bytes: int


class Store(Protocol):
    """All raise StoreError for what may go better later, RequestError for a name that is none."""

    where: str  # for people

    def put(self, name: str, data: bytes) -> None:
        """Store it, as a whole; it lasts when this returns."""

    def get(self, name: str) -> bytes:
        """What was put there; StoreError if there is none."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files below the folder ``prefix`` (whole parts of names), in no order."""

    def delete(self, name: str) -> None:
        """Remove it; what is not there is no error."""


def open_store(where: str, options: Mapping[str, str] | None = None, *, make: bool = False) -> Store:
    """The store that a path or URL names; with ``make`` a directory is made. Raises RequestError, MachineError."""
    options = dict(options or {})
    is_path = check_where(where, options)
    if is_path or where.startswith(_FILE_URL):
        return Directory(where.removeprefix(_FILE_URL), make=make)
    return Objects(where, options)


def check_where(where: str, options: Mapping[str, str]) -> bool:
    """Whether it is the path of a directory, and not a URL. Raises RequestError for what is neither."""
    scheme = _URL.match(where)
    if scheme is None or where.startswith(_FILE_URL):
        if not where or "\0" in where:
            raise RequestError("is not the name of a directory", where=FIELD)
        if options:
            raise RequestError(f"go with an object store; {printable(where)[:100]} is a directory", where="options")
        return scheme is None
    if scheme[1] not in _SCHEMES:
        known = "s3://, gs://, az://, file:// or memory://"
        raise RequestError(f"{printable(where)[:100]!r} is no directory, and none of {known}", where=FIELD)
    return False


def shown(where: str) -> str:
    """A path or URL for people: without a password, and without a query, in which there may be a signature."""
    if _URL.match(where) is None:
        return where
    return re.sub(r"//[^/@]*@", "//", where).partition("?")[0]


def checked_name(name: str) -> list[str]:
    """The parts of a name. Raises RequestError for one that could lead elsewhere."""
    parts = name.split("/")
    if len(parts) > 16 or not all(_SAFE.fullmatch(each) for each in parts):
        raise RequestError(f"{printable(name)[:100]!r} is no name of a file in a data set")
    return parts


# -- a directory ------------------------------------------------------------------------------------------------------


class Directory:
    """A directory of a file system. A file is written beside, made to last, then linked to its name.

    Below the root no links are followed.
    """

    def __init__(self, path: str, *, make: bool = False) -> None:
        if not path or "\0" in path:
            raise RequestError("is not the name of a directory", where=FIELD)
        self.where = os.path.abspath(os.path.expanduser(path))
        try:
            if make:
                os.makedirs(self.where, exist_ok=True)
            os.close(self._root())
        except OSError as error:
            raise MachineError(f"{printable(self.where)}: {error.strerror}", where=FIELD) from None

    def put(self, name: str, data: bytes) -> None:
        """See `Store`."""
        *folders, last = checked_name(name)
        with self._errors(name), contextlib.ExitStack() as stack:
            root = self._held(stack, self._root())
            incoming = self._held(stack, _entered(root, [_INCOMING], make=True))
            folder = self._held(stack, _entered(root, folders, make=True))
            if _size(folder, last) == len(data):
                os.fsync(folder)  # whoever put it may have been killed before that
                return
            temporary.clean(incoming)
            _put_beside(incoming, folder, last, data)

    def get(self, name: str) -> bytes:
        """See `Store`."""
        *folders, last = checked_name(name)
        with self._errors(name), contextlib.ExitStack() as stack:
            folder = self._held(stack, self._below(folders))
            fd = self._held(
                stack, os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
            )
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
                raise StoreError("is no file, or more than 1 GiB", where=f"{self.where}/{name}")
            with open(fd, "rb", closefd=False) as file:
                return file.read(MOST_BYTES)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store`."""
        parts = checked_name(prefix.rstrip("/")) if prefix else []
        try:
            fd = self._below(parts)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot be listed: {error.strerror}", where=self.where) from None
        try:
            for _, folders, names, folder in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
                folders[:] = sorted(each for each in folders if _SAFE.fullmatch(each))
                yield from _entries(fd, folder, names, parts)
        except OSError as error:
            raise StoreError(f"cannot be listed: {error.strerror}", where=self.where) from None
        finally:
            os.close(fd)

    def delete(self, name: str) -> None:
        """See `Store`."""
        *folders, last = checked_name(name)
        with self._errors(name), contextlib.ExitStack() as stack, contextlib.suppress(FileNotFoundError):
            os.unlink(last, dir_fd=self._held(stack, self._below(folders)))

    def _root(self) -> int:
        return os.open(self.where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _below(self, folders: Sequence[str]) -> int:
        root = self._root()
        try:
            return _entered(root, folders)
        finally:
            os.close(root)

    @staticmethod
    def _held(stack: contextlib.ExitStack, fd: int) -> int:
        stack.callback(os.close, fd)
        return fd

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{name}: {error.strerror or error}", where=printable(self.where)) from None


def _entries(root: int, folder: int, names: list[str], parts: list[str]) -> Iterator[Entry]:
    path = os.path.relpath(os.readlink(f"/proc/self/fd/{folder}"), os.readlink(f"/proc/self/fd/{root}"))
    head = "/".join([*parts, *([] if path == "." else [path])])
    for name in sorted(each for each in names if _SAFE.fullmatch(each)):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield Entry(f"{head}/{name}" if head else name, found.st_size)


def _entered(root: int, folders: Sequence[str], *, make: bool = False) -> int:
    """A descriptor of the folder below ``root``."""
    fd = os.dup(root)
    for name in folders:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
                    os.fsync(fd)
            below = os.open(name, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _size(folder: int, name: str) -> int | None:
    """Of the regular file of that name; None: there is none."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _put_beside(incoming: int, folder: int, name: str, data: bytes) -> None:
    """Write the data to a file in ``incoming`` that then takes its name. Raises OSError, and leaves nothing then."""
    beside = temporary.name()
    mask = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(beside, mask, 0o666, dir_fd=incoming)
    try:
        temporary.hold(fd)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        os.rename(beside, name, src_dir_fd=incoming, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=incoming)
        raise
    finally:
        os.close(fd)


# -- an object store --------------------------------------------------------------------------------------------------

_MEMORY: dict[str, ObjectStore] = {}  # what was put to memory:// is there for the whole process


class Objects:
    """An object store through obstore; its puts are atomic by themselves."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
        except ImportError:
            words = "object stores need obstore: pip install 'pydamon[fleet]'"
            raise MachineError(words, where=FIELD) from None
        self.where = shown(url)
        self._obstore: Any = obstore
        self._errors: tuple[type[Exception], ...] = (BaseError, OSError, ValueError)
        try:
            self._store = _opened(url, options)
        except self._errors as error:
            raise RequestError(self._words(error), where=FIELD) from None

    def put(self, name: str, data: bytes) -> None:
        """See `Store`."""
        checked_name(name)
        with self._failing(name):
            self._obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes:
        """See `Store`."""
        checked_name(name)
        with self._failing(name):
            found = self._obstore.get(self._store, name)
            if found.meta["size"] > MOST_BYTES:
                raise StoreError("is more than 1 GiB", where=f"{self.where}/{name}")
            return bytes(found.bytes())

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store`."""
        folder = "/".join(checked_name(prefix.rstrip("/"))) if prefix else None
        with self._failing(prefix):
            for piece in self._obstore.list(self._store, folder, chunk_size=_PIECE):
                yield from (Entry(each["path"], each["size"]) for each in piece)

    def delete(self, name: str) -> None:
        """See `Store`."""
        checked_name(name)
        with self._failing(name), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    @contextlib.contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise StoreError(f"{name}: {self._words(error)}", where=self.where) from None

    @staticmethod
    def _words(error: Exception) -> str:
        """The first line of what obstore says, which may be a page."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return printable(lines[0])[:200]


def _opened(url: str, options: Mapping[str, str]) -> ObjectStore:
    from obstore import store

    if url.startswith("memory:"):
        return _MEMORY.setdefault(url, store.MemoryStore())
    config: Any = dict(options)
    client: Any = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT}
    if config.pop("allow_http", "") == "true":
        client["allow_http"] = True
    # Who puts tries again by itself, for as long as it takes.
    return store.from_url(url, config=config or None, client_options=client, retry_config={"max_retries": 1})
