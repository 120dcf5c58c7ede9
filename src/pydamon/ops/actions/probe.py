"""What of schemes this machine lets this user do, for ``pydamon doctor``. Nothing is changed by looking."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from pydamon.errors import MachineError
from pydamon.linux import move_pages, page_flags, pagemap
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.mounts import mounts
from pydamon.linux.process import Process
from pydamon.linux.swap import swap_bytes
from pydamon.linux.texts import read_text
from pydamon.ops.actions import acting
from pydamon.ops.actions.physical import other_process
from pydamon.spec.actions import ACTIONS, NO_SWAP, Action
from pydamon.spec.metrics import OF_MACHINE, Metric


@dataclass(frozen=True, slots=True)
class Finding:
    """One action, filter or metric: usable if ``obstacle`` (the reason, and what would enable it) is None.

    ``remark`` restricts what is usable.
    """

    name: str
    what: str
    obstacle: str | None = None
    remark: str | None = None


def actions() -> list[Finding]:
    """All actions on other processes, tried on one without telling it anything."""
    process = other_process()
    try:
        found = []
        for row in ACTIONS.values():
            remark = None
            if row.own_process:
                remark = "on this process itself it can be given"
            elif row.swaps and swap_bytes() == 0:
                remark = NO_SWAP
            obstacle = _obstacle(functools.partial(_try_action, row, process))
            found.append(Finding(row.name, row.help, obstacle, remark))
        return found
    finally:
        if process is not None:
            process.close()


def _try_action(row: Action, process: Process | None) -> None:
    if row.migrates:
        nodes = move_pages.memory_nodes()
        if len(nodes) < 2:
            raise MachineError(f"this machine has one NUMA node with memory ({nodes[0]}); it needs two")
    if process is not None:
        acting.require(row.name, process)


def filters() -> list[Finding]:
    """All filters that are decided per page."""

    def by_frame() -> None:
        pagemap.probe()
        page_flags.FrameFile(page_flags.FLAGS).close()

    def by_cgroup() -> None:
        by_frame()
        page_flags.FrameFile(page_flags.CGROUPS).close()
        if not mounts("cgroup2"):
            raise MachineError("no cgroup v2 is mounted")

    lists = None
    if _lru_gen():
        lists = "with the multi-generational LRU (lru_gen) the kernel hardly ever marks a page active"
    return [
        Finding("anon", "anonymous memory", _obstacle(lambda: pagemap.Pagemap("self").close())),
        Finding("active", "pages on an active LRU list", _obstacle(by_frame), lists),
        Finding("memcg", "pages charged to a cgroup, not to those below it", _obstacle(by_cgroup)),
        Finding("young", "accessed since last looked at", _obstacle(_try_young)),
        Finding("hugepage_size", "size of the folio", _obstacle(by_frame)),
        Finding("unmapped", "mapped by nobody (physical memory only)", _obstacle(by_frame)),
    ]


def _try_young() -> None:
    from pydamon.primitives import bpf, idle

    try:
        bpf.probe()
    except MachineError as error:
        try:
            idle.probe()
        except MachineError as other:
            raise MachineError(f"needs the primitive bpf or idle; bpf: {error}; idle: {other}") from None


def metrics() -> list[Finding]:
    """All metrics of quota goals and watermarks that are the machine's."""
    machine = MachineMetrics()
    found = [Finding("free_mem_rate", "free memory (watermarks)", _obstacle(machine.free_mem_permil))]
    for what, rows in itertools.groupby(OF_MACHINE, key=lambda row: row.help):
        names = list(rows)
        obstacle = _obstacle(functools.partial(_try_metric, names[0], machine))
        found.append(Finding(", ".join(row.name for row in names), what, obstacle))
    return found


def _try_metric(row: Metric, machine: MachineMetrics) -> None:
    nid = move_pages.memory_nodes()[0] if row.of_node else 0
    roots = mounts("cgroup2") if row.of_memcg else []
    if row.of_memcg and not roots:
        raise MachineError("no cgroup v2 is mounted")
    machine.measure(row.name, nid, str(roots[0]) if roots else "")


def _obstacle(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except MachineError as error:
        return str(error)
    return None


def _lru_gen() -> bool:
    try:
        # A bit mask; the first bit is the main switch.
        return bool(int(read_text("/sys/kernel/mm/lru_gen/enabled"), 16) & 1)
    except (OSError, ValueError):
        return False
