"""DAMON's special-purpose modules (``damon_reclaim``, ``damon_lru_sort``, ``damon_stat``): start, change, stop ours.

Each is a kdamond that the kernel sets up by itself, with a few parameters in ``/sys/module/NAME/parameters``
(``Documentation/admin-guide/mm/damon/reclaim.rst`` and its neighbours). It goes on when pydamon has ended; which one is
ours is written down in the user's directory, and nobody else's is ever changed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

import msgspec

from pydamon.engines.kernel import owner
from pydamon.errors import MachineError, RequestError
from pydamon.learned import learned
from pydamon.linux.damon_sysfs import Occupant, Roots, Thread, Tree, modules, thread_of
from pydamon.spec.modules import MODULES, Value

FILE = "kernel-module.json"
# Set by these functions themselves, or told by the kernel.
_NOT_PARAMETERS = frozenset({"enabled", "commit_inputs", "kdamond_pid"})
_START_S = 5.0
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class _Entry(msgspec.Struct, frozen=True):
    boot_id: str
    module: str
    pid: int
    start_ticks: int


def start(name: str, parameters: Mapping[str, Value], *, directory_fd: int, roots: Roots | None = None) -> Thread:
    """Set ``parameters`` of a module and enable it; its kdamond. What is not given is as the kernel has it.

    Raises MachineError if somebody uses DAMON (nothing was written then), or the kernel has no such module or
    parameter; RequestError for a name that is none, or a value that the module refuses. All is as before then.
    """
    roots = roots if roots is not None else Roots()
    tree = _tree(name, roots)
    owner.check_nobody(roots)
    before = _set(name, tree, parameters)
    try:
        _write(tree, "enabled", "Y", f"modules.{name}")
        thread = _wait_for_thread(tree, roots)
        if thread is None:
            raise MachineError("did not start: its kdamond is not there", where=f"modules.{name}")
        entry = _Entry(owner.boot_id(roots), name, thread.pid, thread.start_ticks)
        fd = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600, dir_fd=directory_fd)
        try:
            os.write(fd, msgspec.json.encode(entry))
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            tree.write("enabled", "N")
        _restore(tree, before)
        raise
    return thread


def tune(name: str, parameters: Mapping[str, Value], *, directory_fd: int, roots: Roots | None = None) -> None:
    """Change parameters of a module that `start` has started. Raises as `start`."""
    roots = roots if roots is not None else Roots()
    tree = _tree(name, roots)
    _check_ours(name, directory_fd, roots)
    before = _set(name, tree, parameters)
    if not tree.exists("commit_inputs"):  # damon_stat: it takes them when it starts
        return
    try:
        _write(tree, "commit_inputs", "Y", f"modules.{name}")
    except BaseException:
        _restore(tree, before)
        raise


def stop(name: str, *, directory_fd: int, roots: Roots | None = None) -> None:
    """Disable a module that `start` has started. Raises MachineError if it is not ours (any more)."""
    roots = roots if roots is not None else Roots()
    tree = _tree(name, roots)
    _check_ours(name, directory_fd, roots)
    _write(tree, "enabled", "N", f"modules.{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FILE, dir_fd=directory_fd)


def is_ours(occupant: Occupant, *, directory_fd: int, roots: Roots | None = None) -> bool:
    """Whether a module that runs is the very one that `start` has started."""
    roots = roots if roots is not None else Roots()
    try:
        fd = os.open(FILE, os.O_RDONLY | _FLAGS, dir_fd=directory_fd)
    except OSError:
        return False
    try:
        entry = msgspec.json.decode(os.read(fd, 1 << 16), type=learned(_Entry))
    except (msgspec.DecodeError, OSError):
        return False
    finally:
        os.close(fd)
    return (
        occupant.what == f"module {entry.module}"
        and occupant.thread == Thread(entry.pid, entry.start_ticks)
        and entry.boot_id == owner.boot_id(roots)
    )


def _tree(name: str, roots: Roots) -> Tree:
    if name not in MODULES:
        raise RequestError(f"is no module of DAMON; there are {', '.join(MODULES)}", where=f"modules.{name[:40]}")
    tree = Tree(f"{roots.modules}/{name}/parameters")
    if not tree.exists("enabled"):
        raise MachineError(f"this kernel has no such module (CONFIG_{name.upper()})", where=f"modules.{name}")
    return tree


def _check_ours(name: str, directory_fd: int, roots: Roots) -> None:
    (found,) = [module for module in modules(roots) if module.what == f"module {name}"]
    if found.state != "on":
        raise MachineError("does not run", where=f"modules.{name}")
    if not is_ours(found, directory_fd=directory_fd, roots=roots):
        raise MachineError(f"was started by somebody else, and is left alone: {found}", where=f"modules.{name}")


def _set(name: str, tree: Tree, parameters: Mapping[str, Value]) -> dict[str, str]:
    """Write the parameters; what they were before. Raises, and they are as before then."""
    known = [file for file in tree.list("") if file not in _NOT_PARAMETERS and _writable(tree, file)]
    for parameter in parameters:
        if parameter not in known:
            text = f"this kernel's module has no such parameter; it has {', '.join(known)}"
            raise MachineError(text, where=f"modules.{name}.{parameter[:60]}")
    before: dict[str, str] = {}
    try:
        for parameter, value in parameters.items():
            old = tree.read(parameter)
            text = ("Y" if value else "N") if isinstance(value, bool) else str(value)
            _write(tree, parameter, text, f"modules.{name}.{parameter}")
            before[parameter] = old
    except BaseException:
        _restore(tree, before)
        raise
    return before


def _writable(tree: Tree, file: str) -> bool:
    return bool(os.stat(tree.path(file)).st_mode & 0o200)


def _restore(tree: Tree, before: dict[str, str]) -> None:
    for parameter, text in before.items():
        with contextlib.suppress(OSError):
            tree.write(parameter, text)


def _write(tree: Tree, file: str, text: str, where: str) -> None:
    try:
        tree.write(file, text)
    except PermissionError:
        raise MachineError("needs root", where=where) from None
    except OSError as error:
        raise RequestError(f"{text!r} is refused by the kernel: {error.strerror}", where=where) from None


def _wait_for_thread(tree: Tree, roots: Roots) -> Thread | None:
    """The module's kdamond; some kernels start it a moment after it was enabled."""
    deadline = time.monotonic() + _START_S
    while True:
        pid = tree.read_int("kdamond_pid", -1)
        thread = thread_of(pid, roots) if pid > 0 else None
        if thread is not None or time.monotonic() > deadline:
            return thread
        time.sleep(0.05)
