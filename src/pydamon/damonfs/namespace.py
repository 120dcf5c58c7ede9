"""A private view of the machine's mounts, in which damonfs lies where the kernel's DAMON is."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydamon.errors import MachineError
from pydamon.linux.texts import read_lines

SYSFS = "/sys/kernel/mm/damon"
DEBUGFS = "/sys/kernel/debug"

_CLONE_NEWNS = 0x20000
_TRACEFS = "/sys/kernel/tracing"
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise MachineError(f"{what}: {os.strerror(number)}; it needs root", where="mount")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    kind_b = None if kind is None else kind.encode()
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), kind_b, flags, None), f"cannot mount on {target}")


def unmount(target: str) -> None:
    """Take the mount at ``target`` away, even while somebody uses it; raises MachineError."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"cannot unmount {target}")


def mount_type(target: str) -> str | None:
    """The type of what is mounted last exactly on ``target`` as this process sees it; None if nothing is."""
    found = None
    for line in read_lines("/proc/self/mounts"):
        _, where, kind, *_ = line.split(" ")
        if where.replace("\\040", " ") == target:
            found = kind
    return found


def enter(sysfs: str | None, debugfs: str | None) -> None:
    """Give this process mounts of its own, with the damonfs at ``sysfs`` (and ``debugfs``) over the kernel's places.

    Nobody else sees that. Raises MachineError; also if it cannot be seen afterwards that damonfs is there. tracefs is
    mounted read-only if it is not mounted: damo looks there for the kernel's events, and does nothing without it.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "cannot make a mount namespace")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    if sysfs is not None:
        _bind(sysfs, SYSFS)
    if debugfs is not None:
        # Not the real one, even if it is mounted: nothing of it is needed, and the directory may not be there.
        _mount("debugfs", DEBUGFS, "tmpfs", 0)
        os.mkdir(f"{DEBUGFS}/damon")
        _bind(debugfs, f"{DEBUGFS}/damon")
    if os.path.isdir(_TRACEFS) and not os.path.ismount(_TRACEFS):
        with contextlib.suppress(MachineError):
            _mount("tracefs", _TRACEFS, "tracefs", 0)
            # This mount only: the file system is the same one for the whole machine.
            _mount("none", _TRACEFS, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _bind(source: str, target: str) -> None:
    if not os.path.isdir(target):
        _cover_with_links(os.path.dirname(target), os.path.basename(target))
    _mount(source, target, None, _MS_BIND)
    kind = mount_type(target)
    if kind is None or not kind.startswith("fuse"):
        raise MachineError(f"is {kind}, not damonfs, after mounting", where=target)


def _cover_with_links(parent: str, name: str) -> None:
    """Where the kernel has no DAMON: show ``parent`` (a directory of sysfs) with an additional directory ``name``."""
    fd = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        below = f"/proc/self/fd/{fd}"
        entries = os.listdir(below)
        _mount("damonfs", parent, "tmpfs", 0)
        for entry in entries:
            source, target = f"{below}/{entry}", f"{parent}/{entry}"
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                Path(target).touch()
            _mount(source, target, None, _MS_BIND | _MS_REC)
        os.mkdir(f"{parent}/{name}")
    finally:
        os.close(fd)


def execute(command: Sequence[str], sysfs: str | None, debugfs: str | None) -> NoReturn:
    """Become ``command`` in such a view (`enter`). Raises MachineError or OSError."""
    enter(sysfs, debugfs)
    os.execvp(command[0], list(command))
