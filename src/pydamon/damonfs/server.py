"""A damonfs in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydamon import messages
from pydamon.damonfs.namespace import unmount
from pydamon.damonfs.nodes import Tree
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.outputs import Place
from pydamon.linux.parent import end_with_parent

_READY = b"ready"
_PATIENCE_S = 5.0
_NEEDED_LATER = (
    "pydamon.core.damos",
    "pydamon.engines.follow",
    "pydamon.engines.user.engine",
    "pydamon.linux.metrics",
    "pydamon.ops.actions.acting",
    "pydamon.ops.attributes",
    "pydamon.ops.vaddr_group",
    "pydamon.run.events",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a damonfs is to be: the kernel's ``level`` (a name), the ``primitive``, sampling only as the kernel does
    (``faithful``), whether it is the ``legacy`` tree of debugfs, and whether its kdamonds offer what they find to
    tracing tools as ``user_events``."""

    level: str
    primitive: str = "auto"
    faithful: bool = False
    user_events: bool = False
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """A damonfs that is mounted on ``directory``, served by the process ``pid``."""

    directory: str
    pid: int
    _reaped: list[int] = field(default_factory=list, repr=False)

    def wait(self) -> None:
        """Until it was unmounted; raises PydamonError if its process ended otherwise."""
        _, status = os.waitpid(self.pid, 0)
        self._reaped.append(status)
        if status:
            raise PydamonError("the server of the file system ended unexpectedly", where=self.directory)

    def close(self) -> None:
        """Unmount it, and wait until the process has ended; only for the process that started it."""
        if self._reaped:  # its id may be somebody else's by now
            return
        os.kill(self.pid, signal.SIGTERM)
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)
        # Ours, and it does not end: somebody still waits for a command (e.g. for a scheme that applies once an hour).
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with contextlib.suppress(PydamonError):
            unmount(self.directory)


def make_tree(options: Options, say: Callable[[str], object], *not_theirs: int) -> tuple[Tree, Callable[[], None]]:
    """The tree for ``options``, and how to stop what runs in it. Raises RequestError for an unknown level.

    Kdamonds run in processes of their own, which do not hold the file descriptors ``not_theirs`` open.
    """
    from pydamon.damonfs.legacy import LegacyTree
    from pydamon.damonfs.levels import level
    from pydamon.damonfs.remote import Spawner
    from pydamon.damonfs.runner import starter
    from pydamon.damonfs.tree import DamonTree, usable_operations

    chosen = level(options.level)
    # Whatever is loaded and tried now is not when a program turns on a kdamond, and waits.
    usable = usable_operations()
    for module in _NEEDED_LATER:
        importlib.import_module(module)
    spawner = Spawner(*not_theirs)
    make_start = functools.partial(
        starter, options.primitive, faithful=options.faithful, user_events=options.user_events, run=spawner.run
    )
    tree: LegacyTree | DamonTree
    if options.legacy:
        tree = LegacyTree(chosen, make_start=make_start, say=say)
    else:
        tree = DamonTree(chosen, start=make_start(), avail_operations=lambda: usable, say=say)

    def close() -> None:
        tree.close()
        spawner.close()

    return tree, close


def check_directory(directory: str, option: str) -> str:
    """The absolute path of a directory to mount on; raises RequestError.

    The kernel's own trees are refused: nobody else on the machine would see their DAMON any more.
    """
    path = os.path.abspath(directory)
    try:
        status = os.stat(path)
    except OSError as error:
        raise RequestError(f"{directory}: {error.strerror}", where=option) from None
    if not stat.S_ISDIR(status.st_mode):
        raise RequestError(f"{directory} is not a directory", where=option)
    for place in ("/sys", "/sys/kernel/debug"):
        if os.path.ismount(place) and os.stat(place).st_dev == status.st_dev:
            raise RequestError(
                f"{directory} is the kernel's, for everybody on this machine; mount elsewhere, or run a program that "
                "sees damonfs there: pydamon mount -- COMMAND",
                where=option,
            )
    return path


def start(directory: str, options: Options, *, log: str | None, session: bool) -> Served:
    """Serve a damonfs on ``directory`` in a new process; returns when it is mounted.

    What it says goes to the file ``log``, without one to standard error (in a ``session`` of its own: nowhere). Raises
    PydamonError, and nothing is left then.
    """
    from pydamon.damonfs.fuse import binding

    binding()  # what is missing is said before anything is started
    log_fd = None if log is None else _open_log(log)
    read_end, write_end = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed
            stream.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _be_server(directory, options, write_end, log_fd, session)
    for fd in (write_end, log_fd):
        if fd is not None:
            os.close(fd)
    try:
        with open(read_end, "rb") as pipe:
            answer = pipe.read()
    except BaseException:  # Ctrl-C: nobody else would ever end it
        Served(directory, pid).close()
        raise
    if answer == _READY:
        return Served(directory, pid)
    os.waitpid(pid, 0)
    if not answer:
        raise MachineError("the server of the file system ended unexpectedly", where="mount")
    status, where, message = json.loads(answer)
    kind = {1: PydamonError, 2: RequestError}.get(status, MachineError)
    raise kind(message, where=where or "mount")


def _open_log(log: str) -> int:
    with Place(log, "log") as place:
        return place.open_to_append()


def _be_server(directory: str, options: Options, ready_fd: int, log_fd: int | None, session: bool) -> None:
    """Never returns."""
    status = 0
    try:
        if session:
            os.setsid()
        else:
            # Ctrl-C is for the command that uses it; who started it ends it, or dies and takes it along.
            os.setpgid(0, 0)
            end_with_parent()
        os.chdir("/")
        _redirect(log_fd, session)
        tree, close = make_tree(options, _say, ready_fd)
        try:
            _serve(tree, directory, lambda: _tell(ready_fd, _READY))
        finally:
            close()
    except PydamonError as error:
        status = error.exit_status
        _tell(ready_fd, json.dumps([status, error.where, error.message]).encode())
    except BaseException as error:
        status = 1
        _tell(ready_fd, json.dumps([1, None, f"{type(error).__name__}: {error}"]).encode())
    finally:
        os._exit(status)


def _serve(tree: Tree, directory: str, mounted: Callable[[], object]) -> None:
    from pydamon.damonfs.fuse import serve

    serve(tree, directory, mounted)


_told = threading.Lock()


def _tell(fd: int, text: bytes) -> None:
    """Once: the pipe is closed then."""
    if _told.acquire(blocking=False):
        os.write(fd, text)
        os.close(fd)


def _say(line: str) -> None:
    messages.say(f"damonfs: {line}")


def _redirect(log_fd: int | None, session: bool) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if log_fd is not None:
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
    elif session:
        os.dup2(null, 1)
        os.dup2(null, 2)
