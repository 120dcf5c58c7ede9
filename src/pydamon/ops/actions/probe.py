"""What of schemes this machine lets this user do, for ``pydamon doctor``. Nothing is changed by looking."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydamon.errors import MachineError
from pydamon.linux import memcg, move_pages, page_flags, pagemap
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.mounts import mounts
from pydamon.linux.process import Process
from pydamon.ops.actions import acting
from pydamon.ops.actions.physical import other_process


@dataclass(frozen=True, slots=True)
class Finding:
    """One action, filter or metric: usable if ``obstacle`` (the reason, and what would enable it) is None.

    ``remark`` restricts what is usable.
    """

    name: str
    what: str
    obstacle: str | None = None
    remark: str | None = None


_ACTIONS = {
    "willneed": "read in what is in swap or in the file",
    "cold": "deactivate: the first to go when memory is short",
    "pageout": "page out now",
    "hugepage": "allow huge pages",
    "nohugepage": "forbid huge pages",
    "collapse": "make huge pages of what is in memory",
    "lru_prio": "mark as used on the LRU lists",
    "lru_deprio": "deactivate on the LRU lists",
    "migrate_hot": "move to another NUMA node",
    "migrate_cold": "move to another NUMA node",
    "stat": "count only",
}


def actions() -> list[Finding]:
    """All actions on other processes, tried on one without telling it anything."""
    process = other_process()
    try:
        found = []
        for name, what in _ACTIONS.items():
            remark = None
            if name in ("hugepage", "nohugepage"):
                remark = "on this process itself it can be given"
            elif name == "pageout" and not _has_swap():
                remark = "there is no swap: only memory of files can go"
            obstacle = _obstacle(functools.partial(_try_action, name, process))
            found.append(Finding(name, what, obstacle, remark))
        return found
    finally:
        if process is not None:
            process.close()


def _try_action(name: str, process: Process | None) -> None:
    if name.startswith("migrate"):
        nodes = move_pages.memory_nodes()
        if len(nodes) < 2:
            raise MachineError(f"this machine has one NUMA node with memory ({nodes[0]}); it needs two")
    if process is not None:
        acting.require(name, process)


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

    def of_node() -> None:
        machine.node_mem_bp(move_pages.memory_nodes()[0], used=True)

    def of_cgroup() -> None:
        of_node()
        roots = mounts("cgroup2")
        if not roots:
            raise MachineError("no cgroup v2 is mounted")
        memcg.lru_bytes_by_node(str(roots[0]))

    return [
        Finding("free_mem_rate", "free memory (watermarks)", _obstacle(machine.free_mem_permil)),
        Finding("some_mem_psi_us", "time in which a task waited for memory", _obstacle(machine.some_mem_psi_us)),
        Finding("node_mem_used_bp, node_mem_free_bp", "memory of a NUMA node", _obstacle(of_node)),
        Finding("node_memcg_used_bp, node_memcg_free_bp", "a cgroup's share of a NUMA node", _obstacle(of_cgroup)),
        Finding(
            "active_mem_bp, inactive_mem_bp",
            "share of the LRU lists",
            _obstacle(lambda: machine.active_bp(active=True)),
        ),
    ]


def _obstacle(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except MachineError as error:
        return str(error)
    return None


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False


def _lru_gen() -> bool:
    try:
        # A bit mask; the first bit is the main switch.
        return bool(int(Path("/sys/kernel/mm/lru_gen/enabled").read_text(), 16) & 1)
    except (OSError, ValueError):
        return False
