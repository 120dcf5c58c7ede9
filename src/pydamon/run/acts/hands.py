"""The hands of controllers on this machine: what they see of it, and how a decision is carried out through `linux`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from pydamon.errors import MachineError
from pydamon.linux import compaction, psi
from pydamon.linux.bandwidth import Bandwidth
from pydamon.linux.memcg_control import NO_LIMIT, Cgroup, Usage
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.refaults import Refaults
from pydamon.linux.swap import swap_bytes, swap_free_bytes
from pydamon.linux.zram import Zram
from pydamon.modules.controller import (
    Compact,
    Decision,
    Observations,
    Pressure,
    ReclaimBytes,
    SetMemoryLow,
    ZramWriteback,
)
from pydamon.run.acts.left import Ledger, Low, WritebackLimit, undo_left
from pydamon.run.acts.stalls import Stalls

_BATCH = 32 << 20  # bytes that the kernel is asked for at once: in between it can be told to stop


class Hands(Protocol):
    """Sees and acts, on this machine or a simulated one."""

    def observe(self, now_ns: int) -> Observations:
        """What there is to see but snapshots. Raises MachineError when the target is gone."""
        ...

    def do(self, decision: Decision, now_ns: int) -> int | None:
        """Carry it out; the bytes that this has brought about (0 where it is not about bytes). Raises MachineError.

        None: it is not yet time for it.
        """
        ...

    def finish(self) -> list[str]:
        """Put back what was set, and give back what is held; lines of what was."""
        ...


class MachineHands:
    """Those on this machine. ``cgroup`` is that of the target, or the root's for physical memory; None of a process.

    ``counters`` tell what came back. ``stopped`` cuts what takes long short. ``below`` (the mounts of cgroup v2) is for
    tests.
    """

    def __init__(
        self,
        cgroup: Cgroup | None,
        *,
        counters: Callable[[], Refaults] = Refaults,
        stopped: Callable[[], bool] = lambda: False,
        below: tuple[Path, ...] | None = None,
    ) -> None:
        self._cgroup = cgroup
        self._counters = counters
        self._is_root = cgroup is not None and cgroup.is_root
        self._stopped = stopped
        self._below = below
        self._bandwidth = _bandwidth()
        self._stalls = Stalls(lambda: _pressure("memory", None))
        self._ledger = Ledger()
        self._marked_ns: dict[str, int] = {}  # when all of a device of zram was marked idle

    def observe(self, now_ns: int) -> Observations:
        """Pressure, usage and swap: of the cgroup where there is one, else of the machine."""
        own = self._cgroup if not self._is_root else None
        if own is not None and own.gone():
            raise MachineError("was removed", where=str(own.directory))
        free_bytes, machine_bytes = MachineMetrics().memory_bytes() or (None, None)
        if own is not None:
            usage = own.usage()
        elif self._cgroup is not None and free_bytes is not None and machine_bytes is not None:
            usage = Usage(current_bytes=machine_bytes - free_bytes)
        else:
            usage = Usage()
        total, free = swap_bytes(), swap_free_bytes()
        most = usage.swap_max_bytes
        if most is not None and most != NO_LIMIT:
            left = max(most - (usage.swap_bytes or 0), 0)
            total = most if total is None else min(total, most)
            free = left if free is None else min(free, left)
        directory = None if own is None else own.directory
        return Observations(
            now_ns=now_ns,
            # A cgroup's own pressure is of its tasks: ours are in none that we take from.
            memory=self._stalls.observe(now_ns) if own is None else _pressure("memory", directory),
            io=_pressure("io", directory),
            current_bytes=usage.current_bytes,
            swap_total_bytes=total,
            swap_free_bytes=free,
            floor_bytes=usage.min_bytes or 0,
            back_bytes=self._counters().back_bytes,
            machine_bytes=machine_bytes,
            free_bytes=free_bytes,
            whole_free_bytes=None if (told := compaction.free()) is None else told.whole_bytes,
            cpu=_pressure("cpu", None),
            bandwidth_permil=None if self._bandwidth is None else self._bandwidth.permil(now_ns),
        )

    def do(self, decision: Decision, now_ns: int) -> int | None:
        """Carry it out; raises MachineError where that cannot be."""
        if isinstance(decision, ReclaimBytes):
            with self._stalls.ours():
                return self._reclaim(decision)
        if isinstance(decision, SetMemoryLow):
            self._set_low(decision.bytes)
        elif isinstance(decision, Compact):
            with self._stalls.ours():
                compaction.compact()
        elif isinstance(decision, ZramWriteback):
            return self._write_back(decision, now_ns)
        return 0

    def _reclaim(self, decision: ReclaimBytes) -> int:
        """The kernel does not say how much it took: by how much less the cgroup uses, never more than asked for."""
        cgroup = self._need_cgroup()
        before, left = cgroup.usage().current_bytes, decision.bytes
        while left > 0 and not self._stopped():
            if not cgroup.reclaim(min(left, _BATCH), decision.swappiness):
                break
            left -= _BATCH
        after = cgroup.usage().current_bytes
        if before is None or after is None:
            return decision.bytes - max(left, 0)
        return min(max(before - after, 0), decision.bytes)

    def _set_low(self, low_bytes: int) -> None:
        cgroup = self._need_cgroup()
        key = str(cgroup.directory)
        known = self._ledger.things.get(key)
        if known is None:
            undo_left(key, self._below)  # of one that was killed: before it was what is to be kept
            known = Low(key, cgroup.inode, cgroup.low(), ())
        assert isinstance(known, Low)
        now = cgroup.low()
        if known.written and now not in known.written:
            raise MachineError(f"was set to {now} by somebody else; it stays", where=f"{key}/memory.low")
        value = str(low_bytes)
        self._ledger.note(key, msgspec.structs.replace(known, written=(*known.written[-1:], value)))
        cgroup.set_low(value)

    def _write_back(self, decision: ZramWriteback, now_ns: int) -> int | None:
        zram, device = Zram(decision.device), decision.device
        zram.require_writeback()
        if decision.idle_age_s is not None and not self._idle(zram, device, decision.idle_age_s, now_ns):
            return None
        if decision.limit_bytes is not None:
            if device not in self._ledger.things:
                undo_left(device)
                self._ledger.note(device, WritebackLimit(device, zram.limit()))
            zram.limit_writeback(decision.limit_bytes)
        before = zram.written_bytes()
        zram.write_back(decision.kind)
        return zram.written_bytes() - before

    def _idle(self, zram: Zram, device: str, age_s: int, now_ns: int) -> bool:
        """Whether what is marked idle now is so for that long.

        Where the kernel does not know since when, all is marked, and what is not used until the age is over stays so.
        """
        if zram.mark_idle(age_s):
            return True
        marked_ns = self._marked_ns.get(device)
        if marked_ns is not None and now_ns - marked_ns >= age_s * 1_000_000_000:
            del self._marked_ns[device]
            return True
        if marked_ns is None:
            zram.mark_idle(None)
            self._marked_ns[device] = now_ns
        return False

    def _need_cgroup(self) -> Cgroup:
        if self._cgroup is None:
            raise MachineError("needs a cgroup as the target")
        return self._cgroup

    def finish(self) -> list[str]:
        """Put back what was set."""
        lines = self._ledger.undo(self._below)
        if self._cgroup is not None:
            self._cgroup.close()
        return lines


def _bandwidth() -> Bandwidth | None:
    try:
        return Bandwidth()
    except MachineError:
        return None


def _pressure(resource: psi.Resource, cgroup: Path | None) -> Pressure | None:
    try:
        told = psi.read(resource, cgroup)
    except MachineError:
        return None
    return Pressure(total_us=told.total_us, avg10_percent=told.avg10_percent, avg60_percent=told.avg60_percent)
