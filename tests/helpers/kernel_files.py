"""Which files the DAMON of the running kernel has: looked at by making a kdamond, never by a version number."""

from __future__ import annotations

import functools
import os

import pytest

from pydamon.linux.damon_sysfs import NR_KDAMONDS, Roots, Tree, find_occupants

_CONTEXT = "kdamonds/0/contexts/0"


@functools.cache
def kernel_files() -> frozenset[str]:
    """Paths below a context with one scheme that has one filter and one goal, and one target; nobody may use DAMON.

    A word that the file ``action`` takes is there as ``action=WORD``.
    """
    assert find_occupants(Roots()) == []
    tree = Tree(Roots().damon)
    tree.write(NR_KDAMONDS, 1)
    try:
        for counter in ("contexts/nr_contexts", "contexts/0/targets/nr_targets", "contexts/0/schemes/nr_schemes"):
            tree.write(f"kdamonds/0/{counter}", 1)
        for counter in ("filters/nr_filters", "quotas/goals/nr_goals"):
            tree.write(f"{_CONTEXT}/schemes/0/{counter}", 1)
        root = tree.path(_CONTEXT)
        found = {os.path.relpath(f"{at}/{name}", root) for at, _, names in os.walk(root) for name in names}
        for action in ("pageout", "lru_prio", "migrate_hot", "collapse"):
            if _takes(tree, f"{_CONTEXT}/schemes/0/action", action):
                found.add(f"action={action}")
    finally:
        tree.write(NR_KDAMONDS, 0)
    return frozenset(found)


def _takes(tree: Tree, file: str, word: str) -> bool:
    try:
        tree.write(file, word)
    except OSError:
        return False
    return True


def need_file(path: str) -> None:
    """Skip the test if this kernel's DAMON has no such file."""
    if path not in kernel_files():
        pytest.skip(f"this kernel's DAMON has no {path}")
