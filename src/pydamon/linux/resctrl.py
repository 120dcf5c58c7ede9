"""Cache occupancy and memory bandwidth through the kernel's resctrl file system (Intel CMT and MBM, AMD QoS).

The processor counts for monitoring groups, not for processes: what is read for a process is what its group has, and
says something about the process alone only if the group holds nothing else. Looking is read-only; `OwnGroup` makes a
group for one process, where that was asked for. Format: the kernel's ``Documentation/filesystems/resctrl.rst``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydamon.errors import MachineError, RequestError
from pydamon.linux.mounts import mounts
from pydamon.linux.texts import read_text

_WHERE = "resctrl"
_EVENTS = ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes")
_COUNTERS = _EVENTS[1:]
_MODULUS = 1 << 64
_OWN_GROUP = re.compile(r"pydamon-(\d+)-\d+")  # of the pydamon, of the process in it


class Reading(NamedTuple):
    """What one group has in one domain (usually: the processors of one L3 cache); None where it is not told."""

    domain: int
    llc_occupancy: int | None
    mbm_total_bytes: int | None
    mbm_local_bytes: int | None


def probe(mountinfo: str | None = None, filesystems: str | None = None) -> Path:
    """Where resctrl is mounted. Raises MachineError with the reason if there is nothing to read; changes nothing."""
    found = mounts("resctrl", mountinfo)
    if not found:
        known = read_text("/proc/filesystems") if filesystems is None else filesystems
        if "resctrl" not in known.split():
            raise MachineError(
                "neither this processor nor a hypervisor offers it, or the kernel lacks it", where=_WHERE
            )
        raise MachineError("is not mounted; as root: mount -t resctrl resctrl /sys/fs/resctrl", where=_WHERE)
    mount = found[0]
    if not (mount / "info" / "L3_MON").is_dir():
        raise MachineError(f"{mount} has no info/L3_MON: this processor can allocate, but not monitor", where=_WHERE)
    if not os.access(mount / "mon_data", os.R_OK | os.X_OK):
        raise MachineError(f"no permission to read {mount}/mon_data; run as root", where=_WHERE)
    return mount


def group_of(pid: int, mount: Path, proc: Path = Path("/proc")) -> Path | None:
    """The directory of the monitoring group that the process (its main thread) is in; None if it has ended.

    From ``/proc/PID/cpu_resctrl_groups`` where the kernel has it, else from the groups' ``tasks`` files.
    """
    try:
        text = read_text(proc / str(pid) / "cpu_resctrl_groups")
    except OSError:
        return _search(pid, mount)
    named = dict(line.split(":", 1) for line in text.split("\n") if ":" in line)
    control = named.get("res", "")
    if not control:
        return None
    group = mount if control == "/" else mount / control
    return group / "mon_groups" / named["mon"] if named.get("mon") else group


def _search(pid: int, mount: Path) -> Path | None:
    # A thread in a monitoring group is listed in the control group above it, too: the smaller groups come first.
    controls = [*control_groups(mount), mount]
    groups = [group for control in controls for group in _directories(control / "mon_groups")] + controls
    return next((group for group in groups if pid in _tasks(group)), None)


def control_groups(mount: Path) -> list[Path]:
    """The directories of the control groups below the default one, which is ``mount``."""
    return _directories(mount, leave_out=("info", "mon_groups", "mon_data"))


def _directories(path: Path, leave_out: tuple[str, ...] = ()) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.name not in leave_out and entry.is_dir())
    except OSError:
        return []


def _tasks(group: Path) -> set[int]:
    try:
        return {int(line) for line in read_text(group / "tasks").split()}
    except (OSError, ValueError):
        return set()


def read_group(group: Path) -> list[Reading]:
    """What the group has in each domain, in the order of their numbers; empty if the group is gone.

    ``Unavailable`` (no count yet), ``Error`` and ``Unassigned`` (no counter) read as None.
    """
    found = []
    for path in _directories(group / "mon_data"):
        # mon_L3_00, mon_L3_01, ...; other resources have other events.
        kind, _, number = path.name.rpartition("_")
        if kind == "mon_L3" and number.isdigit():
            found.append(Reading(int(number), *(_value(path / event) for event in _EVENTS)))
    return sorted(found)


def _value(path: Path) -> int | None:
    try:
        text = read_text(path).strip()
    except OSError:  # an event that this processor does not count
        return None
    return int(text) if text.isascii() and text.isdigit() else None


class Resctrl:
    """Reads the groups of the targets; keeps what is needed to have counters that only grow.

    ``notices`` are lines for the user, each given once.
    """

    def __init__(self, mount: Path | None = None, proc: Path = Path("/proc")) -> None:
        self.mount = probe() if mount is None else mount
        self.notices: list[str] = []
        self._proc = proc
        self._shared: set[Path] = set()
        self._group: dict[int, Path] = {}  # target → its group at the last reading
        self._last: dict[tuple[int, int, str], int] = {}  # (target, domain, counter) → what the file said last
        self._total: dict[tuple[int, int, str], int] = {}

    def rows(self, time_ns: int, pids: Mapping[int, int]) -> list[dict[str, Any]]:
        """Rows of the table, one per target and domain; ``pids`` by target.

        ``llc_occupancy_bytes`` is now; the bandwidth counters are bytes since the target's first row, and only grow: a
        counter that started over, or another group, does not take back what was counted.
        """
        for target in self._group.keys() - pids.keys():
            self._forget(target)
        rows = []
        readings: dict[Path, list[Reading]] = {}
        for target, pid in pids.items():
            group = group_of(pid, self.mount, self._proc)
            if group is None:
                continue
            if group not in readings:
                readings[group] = read_group(group)
            if self._group.get(target, group) != group:
                self._forget_counts(target)
            self._group[target] = group
            self._note_shared(group, pid)
            for reading in readings[group]:
                total, local = (self._grown(target, reading, counter) for counter in _COUNTERS)
                rows.append(
                    {
                        "time_ns": time_ns,
                        "target": target,
                        "group": "/" if group == self.mount else str(group.relative_to(self.mount)),
                        "domain": reading.domain,
                        "llc_occupancy_bytes": reading.llc_occupancy,
                        "mbm_total_bytes": total,
                        "mbm_local_bytes": local,
                    }
                )
        return rows

    def _grown(self, target: int, reading: Reading, counter: str) -> int | None:
        now: int | None = getattr(reading, counter)
        if now is None:
            return None
        key = (target, reading.domain, counter)
        last = self._last.get(key, now)
        self._last[key] = now
        grown = now - last
        if grown < 0:
            # The kernel makes 64 bits of what the processor counts: past the end it wraps, else it started over.
            grown = grown + _MODULUS if last >= _MODULUS // 2 else now
        self._total[key] = self._total.get(key, 0) + grown
        return self._total[key]

    def _forget_counts(self, target: int) -> None:
        for key in [key for key in self._last if key[0] == target]:
            del self._last[key]

    def _forget(self, target: int) -> None:
        self._forget_counts(target)
        del self._group[target]
        for key in [key for key in self._total if key[0] == target]:
            del self._total[key]

    def _note_shared(self, group: Path, pid: int) -> None:
        """Say so if the group's numbers are not the process's alone; looked at when a process is first seen in it."""
        if group in self._shared:
            return
        self._shared.add(group)
        own = {int(name) for name in _names(self._proc / str(pid) / "task")} | {pid}
        others = len(_tasks(group) - own)
        if others:
            name = "the default group" if group == self.mount else f"the group {group.relative_to(self.mount)}"
            self.notices.append(
                f"resctrl: process {pid} is in {name} with {others} threads of others, which its numbers include"
            )


def _names(path: Path) -> list[str]:
    try:
        return [name for name in os.listdir(path) if name.isdigit()]
    except OSError:
        return []


def _move_threads(fd: int, pid: int, proc: Path) -> None:
    """Write the other threads into the open ``tasks`` file; those that they start from then on are in the group."""
    moved = {str(pid)}
    for _ in range(4):  # one that was not moved yet may have started another one meanwhile
        new = set(_names(proc / str(pid) / "task")) - moved
        if not new:
            return
        for thread in new:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.write(fd, f"{thread}\n".encode())
        moved |= new


def _remove_left(groups: Path, proc: Path) -> None:
    """Remove the groups of pydamons that were killed; what is in them goes back to the group above."""
    for group in _directories(groups):
        made = _OWN_GROUP.fullmatch(group.name)
        if made is not None and not (proc / made[1]).exists():
            with contextlib.suppress(OSError):
                os.rmdir(group)


class OwnGroup:
    """A monitoring group for one process and what it starts from then on; taken away by `close`.

    To be made only where the user asked for it: it changes the machine. The threads that the process has already come
    along; children that it has already stay where they are. Raises MachineError if there is no free group or no
    permission, RequestError if the process has ended.
    """

    def __init__(self, pid: int, mount: Path | None = None, proc: Path = Path("/proc")) -> None:
        mount = probe() if mount is None else mount
        # Within the control group that the process is in: its share of cache and bandwidth stays as it is.
        group = group_of(pid, mount) or mount
        if group.parent.name == "mon_groups":
            group = group.parent.parent
        self.path = group / "mon_groups" / f"pydamon-{os.getpid()}-{pid}"
        _remove_left(group / "mon_groups", proc)
        try:
            self.path.mkdir()
        except OSError as error:
            reason = "there is no free monitoring group" if error.errno == errno.ENOSPC else error.strerror
            raise MachineError(f"cannot make {self.path}: {reason}", where=_WHERE) from None
        try:
            fd = os.open(self.path / "tasks", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"%d\n" % pid)
                _move_threads(fd, pid, proc)
            finally:
                os.close(fd)
        except OSError as error:
            self.close()
            if error.errno == errno.ESRCH:
                raise RequestError(f"process {pid} has ended", where="pid") from None
            raise MachineError(f"cannot put process {pid} into {self.path}: {error.strerror}", where=_WHERE) from None

    def close(self) -> None:
        """Remove the group; what is still in it goes back to the group above. Closing again does nothing."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise MachineError(f"cannot remove {self.path}: {error.strerror}", where=_WHERE) from None
