"""The actions of schemes, one row each: all that is known of an action but how it is done.

How it is done to processes and page frames is in ``ops/actions/acting.py: DOINGS``, how to a simulated machine in
``ops/sim/actions.py: DOINGS``, both by the names of the rows; tests check that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

ActionName = Literal[
    "willneed", "cold", "pageout", "hugepage", "nohugepage", "collapse",
    "lru_prio", "lru_deprio", "migrate_hot", "migrate_cold", "stat",
]  # fmt: skip
Version = tuple[int, int]


NO_SWAP = "there is no swap: only memory of files can go, anonymous memory stays"  # of actions that swap


class Action(msgspec.Struct, frozen=True):
    """What an action is.

    ``words`` complete "memory that …", ``help`` is what `doctor` says. ``prefers``: which regions go first when not all
    can; None: all are alike. ``since``: the kernel whose DAMON first has it, by the operations set (``vaddr`` stands
    for ``fvaddr``, too); the user engine has all of them on processes. ``stays``: what undoing it cannot bring back.
    """

    name: ActionName
    words: str
    help: str
    since: Mapping[str, Version]
    prefers: Literal["hot", "cold"] | None = None
    stays: str | None = None
    nearest: str = "stat, or the user engine"  # instead of it, where the kernel's DAMON lacks it
    instead: str = ""  # of it on other processes, where it is for a process itself alone
    own_process: bool = False  # most kernels let only the process itself ask for it
    migrates: bool = False  # it needs NUMA nodes to migrate to
    swaps: bool = False  # what it takes out of memory needs swap, unless it is of files
    # Of physical memory, young pages are left alone unless a filter says otherwise (docs/algorithms.md 2.15).
    spares_young: bool = False
    acts: bool = True  # else it only counts: ages stay, and nothing can be refused
    debugfs: int | None = None  # its number in the kernel's old debugfs file

    @property
    def known_since(self) -> Version:
        """The first kernel that has it for any operations set."""
        return min(self.since.values())

    @property
    def physical(self) -> bool:
        """Whether it is one of physical memory; in the user engine as in the kernel."""
        return "paddr" in self.since


# The order is that of messages. On processes: madvise in 5.16, migration in 6.17; of page frames: pageout in 5.16,
# LRU lists in 6.0, migration in 6.11; collapse in 7.2 (58996503b631).
_ROWS = (
    Action(
        name="willneed",
        words="is read in before it is used (willneed)",
        help="read in what is in swap or in the file",
        since={"vaddr": (5, 16)},
        prefers="hot",
        stays="what was read in stays until the kernel needs the memory",
        debugfs=0,
    ),
    Action(
        name="cold",
        words="is made the first to go when memory gets short (cold)",
        help="deactivate: the first to go when memory is short",
        since={"vaddr": (5, 16)},
        prefers="cold",
        stays="pages stay deactivated until they are used again",
        debugfs=1,
    ),
    Action(
        name="pageout",
        words="is paged out",
        help="page out now",
        since={"vaddr": (5, 16), "paddr": (5, 16)},
        prefers="cold",
        stays="what was paged out stays out until it is used again",
        swaps=True,
        spares_young=True,
        debugfs=2,
    ),
    Action(
        name="hugepage",
        words="may get huge pages (hugepage)",
        help="allow huge pages",
        since={"vaddr": (5, 16)},
        prefers="hot",
        instead="use collapse, which makes huge pages of what is in memory",
        own_process=True,
        debugfs=3,
    ),
    Action(
        name="nohugepage",
        words="gets no new huge pages (nohugepage)",
        help="forbid huge pages",
        since={"vaddr": (5, 16)},
        own_process=True,
        debugfs=4,
    ),
    Action(
        name="collapse",
        words="is put into huge pages (collapse)",
        help="make huge pages of what is in memory",
        since={"vaddr": (7, 2)},
        prefers="hot",
        stays="collapsed memory stays in huge pages until the kernel splits them",
        nearest="hugepage",
    ),
    Action(
        name="lru_prio",
        words="is marked as used on the kernel's LRU lists (lru_prio)",
        help="mark as used on the LRU lists",
        since={"paddr": (6, 0)},
        prefers="hot",
        stays="pages stay where they are on the LRU lists until the kernel moves them",
    ),
    Action(
        name="lru_deprio",
        words="is made inactive on the kernel's LRU lists (lru_deprio)",
        help="deactivate on the LRU lists",
        since={"paddr": (6, 0)},
        prefers="cold",
        stays="pages stay deactivated until they are used again",
    ),
    Action(
        name="migrate_hot",
        words="is moved{to} (migrate_hot)",
        help="move to another NUMA node",
        since={"paddr": (6, 11), "vaddr": (6, 17)},
        prefers="hot",
        nearest="lru_prio or lru_deprio",
        migrates=True,
    ),
    Action(
        name="migrate_cold",
        words="is moved{to} (migrate_cold)",
        help="move to another NUMA node",
        since={"paddr": (6, 11), "vaddr": (6, 17)},
        prefers="cold",
        nearest="lru_prio or lru_deprio",
        migrates=True,
    ),
    Action(
        name="stat",
        words="is counted and left alone (stat)",
        help="count only",
        since={"vaddr": (5, 16), "paddr": (5, 16)},
        acts=False,
        debugfs=5,
    ),
)

ACTIONS: Mapping[str, Action] = {row.name: row for row in _ROWS}
PHYSICAL = tuple(row.name for row in _ROWS if row.physical)
MIGRATIONS = tuple(row.name for row in _ROWS if row.migrates)
# The kernel's debugfs file has numbers for actions: the place here.
DEBUGFS_ACTIONS = tuple(
    row.name for row in sorted((row for row in _ROWS if row.debugfs is not None), key=lambda row: row.debugfs or 0)
)
