"""Loaded by every Python that the tests start: no write may reach the host's own DAMON (its operator uses it)."""

import os
import sys

_TREE = "/sys/kernel/mm/damon"
_TREES = (_TREE, "/sys/module/damon_")


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event != "open":
        return
    path, mode, flags = args
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str) or not os.path.realpath(path).startswith(_TREES):
        return
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if (writes or (isinstance(mode, str) and set(mode) & set("wax+"))) and not _is_ours():
        raise PermissionError(f"a test must not write below {_TREE} or {_TREES[1]}*: {path}")


def _is_ours() -> bool:
    # In a mount namespace of its own a test may see damonfs there: what is mounted last on the tree is a FUSE then.
    kind = None
    with open("/proc/self/mounts") as file:
        for line in file:
            if line.split(" ")[1] == _TREE:
                kind = line.split(" ")[2]
    return kind == "fuse.damonfs"


def _in_guest() -> bool:
    # By the kernel's command line: nobody sets that by mistake.
    with open("/proc/cmdline") as file:
        return "pydamon.lab=1" in file.read().split()


if not _in_guest():
    sys.addaudithook(_guard)
