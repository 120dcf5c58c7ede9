"""The processes that match patterns of names or of cgroups, as a membership: new ones join, wherever they come from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import iglob
from itertools import islice
from pathlib import Path

from pydamon.linux.footprint import resident_pages
from pydamon.linux.mounts import mounts
from pydamon.linux.named import names_of
from pydamon.linux.texts import read_bytes
from pydamon.ops.membership import Membership, Stat, read_stat
from pydamon.spec.model import Match

_MAX_CGROUPS = 4096  # looked through in one update
_MAX_PROCESSES = 32768


class Matching(Membership):
    """The processes that ``match`` says; of more than it lets in, the largest come first.

    A process belongs as long as its cgroup matches, and once its name has. Those that are of this user's pydamon
    beside us (children of our own parent, where that supervises) are left out. ``below`` (the mounts of cgroup v2) is
    for tests. It waits for processes that do not exist yet, and so never ends by itself.
    """

    def __init__(self, match: Match, min_age_ns: int = 100_000_000, *, below: Sequence[Path] | None = None) -> None:
        super().__init__(min_age_ns)
        self.most = match.most
        self.what = f"what matches {', '.join((*match.names, *match.cgroups))}"
        self._names, self._cgroups = match.names, match.cgroups
        self._below = tuple(mounts("cgroup2") if below is None else below) if match.cgroups else ()
        if match.cgroups and not self._below:
            self.say("no cgroups", "no cgroup v2 is mounted on this machine: patterns of cgroups match nothing")
        self._judged: dict[int, tuple[bytes, bool]] = {}  # pid → name of its main thread, and whether it matches
        self._in_cgroups: set[int] = set()

    def may_grow(self) -> bool:
        """Always: others may come."""
        return True

    def _still_belongs(self, pid: int) -> bool:
        return pid in self._in_cgroups or self._judged.get(pid, (b"", False))[1]

    def _belonging(self) -> dict[int, Stat]:
        self._in_cgroups = set(islice(self._listed(), _MAX_PROCESSES))
        pids = self._in_cgroups | (set(self._by_name()) if self._names else set())
        new = [(pid, stat) for pid in pids - self.members.keys() if (stat := read_stat(pid)) is not None]
        if len(new) + len(self.members) > self.most:
            new.sort(key=lambda each: -resident_pages(each[0]))
        supervisor = os.getppid()  # who is adopted by init has none
        return {pid: stat for pid, stat in new if supervisor == 1 or supervisor not in (pid, stat.ppid)}

    def _by_name(self) -> Iterator[int]:
        """The processes whose names match; each is asked again where its main thread was renamed, as by exec."""
        judged, self._judged = self._judged, {}
        for entry in islice(os.listdir("/proc"), 2 * _MAX_PROCESSES):
            if not (entry.isascii() and entry.isdigit()):
                continue
            pid = int(entry)
            with contextlib.suppress(OSError):
                comm = read_bytes(f"/proc/{pid}/comm")
                before, matched = judged.get(pid, (None, False))
                matches = matched if comm == before else (matched and pid in self.members) or self._matches(pid)
                self._judged[pid] = (comm, matches)
                if matches:
                    yield pid

    def _matches(self, pid: int) -> bool:
        return any(fnmatchcase(name, pattern) for name in names_of(pid) for pattern in self._names)

    def _listed(self) -> Iterator[int]:
        """The processes in the cgroups that match, and below them."""
        seen: set[str] = set()
        for mount in self._below:
            for pattern in self._cgroups:
                for found in islice(iglob(pattern.strip("/"), root_dir=mount, recursive=True), _MAX_CGROUPS):
                    yield from self._below_of(mount / found, seen)

    def _below_of(self, top: Path, seen: set[str]) -> Iterator[int]:
        for folder, _, files in os.walk(top):
            if folder in seen:
                continue
            if len(seen) >= _MAX_CGROUPS:
                self.say("cgroups", f"{self.what}: more than {_MAX_CGROUPS} cgroups; not all are looked at")
                return
            seen.add(folder)
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):  # removed, or a threaded one
                    yield from (pid for pid in map(int, read_bytes(f"{folder}/cgroup.procs").split()) if pid)
