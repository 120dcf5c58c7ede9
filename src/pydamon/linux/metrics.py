"""Metrics of the machine that DAMOS quotas and watermarks go by, with the kernel's definitions (mm/damon/core.c)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pydamon.errors import MachineError
from pydamon.linux import memcg
from pydamon.linux.causes import cause
from pydamon.linux.refaults import Refaults
from pydamon.linux.texts import read_text

_LINE = re.compile(r"^(?:Node \d+ )?(\w+(?:\(\w+\))?): +(\d+) kB$", re.MULTILINE)
_SOME = re.compile(r"^some .*\btotal=(\d+)$", re.MULTILINE)
BP = 10_000


def _read(path: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise MachineError("does not exist on this machine", where=path) from None
    except OSError as error:
        raise MachineError(f"cannot be read: {cause(error)}", where=path) from None


class MachineMetrics:
    """Reads the metrics anew with each call; each raises MachineError with the reason where it is not available.

    ``counters`` tell what came back of the targets' memory. ``read`` and ``below`` (the mounts of cgroup v2) are for
    tests.
    """

    def __init__(
        self,
        *,
        counters: Callable[[], Refaults] = Refaults,
        read: Callable[[str], str] = _read,
        below: Sequence[Path] | None = None,
    ) -> None:
        self._counters = counters
        self._read = read
        self._below = below

    def measure(self, metric: str, nid: int, memcg_path: str) -> int:
        """The metric in its unit, of the NUMA node and the cgroup if it is of one."""
        return MEASURED[metric](self, nid, memcg_path)

    def refaulted_bytes(self) -> int:
        """What has come back of the targets' memory so far."""
        found = self._counters().back_bytes
        if found is None:
            raise MachineError("nothing counts here what comes back: it needs cgroup v2 with memory.stat, or processes")
        return found

    def free_mem_permil(self) -> int:
        """Free memory in 1/1000 of all; the page cache is not free (free_mem_rate: freeram of totalram)."""
        values = self._kib("/proc/meminfo", ("MemFree", "MemTotal"))
        return values[0] * 1000 // values[1]

    def memory_bytes(self) -> tuple[int, int] | None:
        """Free memory, and all of it, in bytes; None where that is not told."""
        try:
            free, total = self._kib("/proc/meminfo", ("MemFree", "MemTotal"))
        except MachineError:
            return None
        return free * 1024, total * 1024

    def available_bytes(self) -> int | None:
        """Memory that can be had without paging anybody out; None where that is not told."""
        try:
            (available,) = self._kib("/proc/meminfo", ("MemAvailable",))
        except MachineError:
            return None
        return available * 1024

    def some_mem_psi_us(self) -> int:
        """Time in us, since the boot, in which some task waited for memory."""
        return self._some_psi_us("memory")

    def some_io_psi_us(self) -> int:
        """Time in us, since the boot, in which some task waited for io."""
        return self._some_psi_us("io")

    def _some_psi_us(self, resource: str) -> int:
        path = f"/proc/pressure/{resource}"
        try:
            found = _SOME.search(self._read(path))
        except MachineError as error:
            raise MachineError(f"{error.message}; it needs CONFIG_PSI (and psi=1 at boot)", where=path) from None
        if found is None:
            raise MachineError("names no total of 'some'", where=path)
        return int(found[1])

    def node_mem_bp(self, nid: int, *, used: bool) -> int:
        """Used (all that is not free) or free memory of a NUMA node in 1/10,000 of its memory."""
        free, total = self._node(nid)
        return (total - free if used else free) * BP // total

    def node_bytes(self, nid: int) -> int:
        """All memory of a NUMA node."""
        return self._node(nid)[1] * 1024

    def node_memcg_bp(self, nid: int, path: str, *, used: bool) -> int:
        """What the cgroup ``path`` uses of a NUMA node, or what it leaves of it, in 1/10,000 of the node's memory.

        Used is what the cgroup and those below it have on the node's active and inactive lists.
        """
        total = self._node(nid)[1] * 1024
        mine = min(memcg.lru_bytes_by_node(path, self._below).get(nid, 0), total)
        return (mine if used else total - mine) * BP // total

    def active_bp(self, *, active: bool) -> int:
        """Active or inactive memory, anonymous and of files, in 1/10,000 of both together."""
        names = ("Active(anon)", "Active(file)", "Inactive(anon)", "Inactive(file)")
        values = self._kib("/proc/meminfo", names, zero=True)
        mine = sum(values[:2] if active else values[2:])
        return mine * BP // max(sum(values), 1)

    def hugepage_bp(self) -> int:
        """Anonymous, shared and file memory in transparent huge pages, in 1/10,000 of all that is not free."""
        names = ("AnonHugePages", "ShmemHugePages", "FileHugePages", "MemFree", "MemTotal")
        *huge, free, total = self._kib("/proc/meminfo", names)
        return min(sum(huge) * BP // (total - free), BP) if total > free else BP

    def _node(self, nid: int) -> tuple[int, int]:
        path = f"/sys/devices/system/node/node{nid}/meminfo"
        try:
            free, total = self._kib(path, ("MemFree", "MemTotal"))
        except MachineError as error:
            reason = f"NUMA node {nid} has no memory here, or the kernel lacks CONFIG_NUMA ({error.message})"
            raise MachineError(reason, where=path) from None
        return free, total

    def _kib(self, path: str, names: tuple[str, ...], *, zero: bool = False) -> list[int]:
        told = {name: int(value) for name, value in _LINE.findall(self._read(path))}
        missing = [name for name in names if name not in told]
        if missing:
            raise MachineError(f"does not name {missing[0]}", where=path)
        values = [told[name] for name in names]
        if not zero and not values[-1]:
            raise MachineError(f"says {names[-1]} is 0", where=path)
        return values


# How each metric of the machine is measured, by its name in `pydamon.spec.metrics`; of a node and a cgroup.
MEASURED: dict[str, Callable[[MachineMetrics, int, str], int]] = {
    "some_mem_psi_us": lambda machine, nid, path: machine.some_mem_psi_us(),
    "io_psi_us": lambda machine, nid, path: machine.some_io_psi_us(),
    "node_mem_used_bp": lambda machine, nid, path: machine.node_mem_bp(nid, used=True),
    "node_mem_free_bp": lambda machine, nid, path: machine.node_mem_bp(nid, used=False),
    "node_memcg_used_bp": lambda machine, nid, path: machine.node_memcg_bp(nid, path, used=True),
    "node_memcg_free_bp": lambda machine, nid, path: machine.node_memcg_bp(nid, path, used=False),
    "active_mem_bp": lambda machine, nid, path: machine.active_bp(active=True),
    "inactive_mem_bp": lambda machine, nid, path: machine.active_bp(active=False),
    "hugepage_mem_bp": lambda machine, nid, path: machine.hugepage_bp(),
}
