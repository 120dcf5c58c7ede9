"""A kernel with DAMON in a directory: files that behave like those below /sys/kernel/mm/damon/admin, and a /proc.

Writing ``nr_*`` makes directories as the kernel does, the state commands do what they say; a thread "runs" as long as
its ``stat`` is there. ``level`` is the kernel version whose files there are (6.12 as in the lab, 6.18 as on a machine
that was looked at).
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

from pydamon.linux.damon_sysfs import Roots, Tree

PID = 4242
BOOT = "0f0e0d0c-boot"
_ACTIONS = {"willneed", "cold", "pageout", "hugepage", "nohugepage", "lru_prio", "lru_deprio", "migrate_hot",
            "migrate_cold", "stat"}  # fmt: skip
_FILTERS = {"anon", "memcg", "young", "addr", "target"}
_NEW_FILTERS = _FILTERS | {"active", "hugepage_size", "unmapped"}
_GOAL = {"target_metric": "user_input", "target_value": "0", "current_value": "0"}
_FILTER = {"type": "anon", "matching": "N", "memcg_path": "", "addr_start": "0", "addr_end": "0",
           "damon_target_idx": "0"}  # fmt: skip
_STATS = ("nr_tried", "sz_tried", "nr_applied", "sz_applied", "qt_exceeds")


def make_roots(base: Path) -> Roots:
    """The directories of a machine without tracefs, whose DAMON nobody uses."""
    roots = Roots(*(str(base / name) for name in ("damon", "module", "tracing", "proc")))
    for path in (roots.damon, roots.modules, roots.proc):
        os.makedirs(path)
    boot = Path(roots.proc, "sys/kernel/random")
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text(BOOT)
    os.makedirs(f"{roots.damon}/kdamonds")
    Path(roots.damon, "kdamonds/nr_kdamonds").write_text("0\n")
    return roots


def start_thread(roots: Roots, pid: int, name: str = "kdamond.0", start_ticks: int = 777, kthread: bool = True) -> None:
    """A (kernel) thread in /proc, as in proc_pid_stat(5): field 9 is the flags, 14 and 15 CPU time, 22 the start."""
    fields = ["S", "2", "0", "0", "0", "-1", str(0x00208040 if kthread else 0), *["0"] * 4, "30", "12", *["0"] * 6]
    fields.append(str(start_ticks))
    path = Path(roots.proc, str(pid))
    path.mkdir(exist_ok=True)
    (path / "stat").write_text(f"{pid} ({name}) {' '.join(fields)} 0 0\n")
    (path / "comm").write_text(f"{name}\n")


class FakeTree(Tree):
    """The tree of a kernel of some level. ``regions`` are what a scheme's tried regions are made of."""

    def __init__(self, roots: Roots, level: tuple[int, int] = (6, 12)) -> None:
        super().__init__(roots.damon)
        self.roots = roots
        self.level = level
        self.commands: list[str] = []
        self._lock = threading.Lock()
        self.refuse: dict[str, int] = {}  # command → error number
        self.regions: dict[int, list[tuple[int, int, int, int]]] = {0: [(4096, 8192, 3, 5), (8192, 65536, 0, 9)]}
        self.running: list[int] = []  # the pids of the targets of what runs
        self.hits: list[list[int]] = []  # of each probe, of each region
        self.start_ticks = 777
        self.busy: set[str] = set()  # these files say EBUSY to readers

    def _read(self, name: str) -> str:
        if name in self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return super()._read(name)

    def _put(self, name: str, text: str, mode: int = 0o600) -> None:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # In one step: who reads meanwhile sees the one or the other. Another thread may write, too: a name of its own.
        new = Path(f"{self.root}.new.{threading.get_ident()}")
        new.write_text(f"{text}\n")
        new.chmod(mode)
        new.replace(path)

    def _write(self, name: str, value: str) -> None:
        with self._lock:  # as in the kernel, one at a time
            self._write_alone(name, value)

    def _write_alone(self, name: str, value: str) -> None:
        path = Path(self.path(name))
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        here, _, file = name.rpartition("/")
        if file == "state":
            self._command(here, value)
            return
        parent = here.rpartition("/")[2]
        known = {"action": _ACTIONS, "type": _NEW_FILTERS if self.level >= (6, 15) else _FILTERS}.get(file)
        if file == "type" and "/probes/" in name:
            known = {"anon", "memcg"}
        if file == "target_metric" and self.level < (6, 16):
            known = {"user_input", "some_mem_psi_us"}
        if known is not None and value not in known:
            raise OSError(errno.EINVAL, "Invalid argument")
        if file == f"nr_{parent}" or (parent.endswith("filters") and file == "nr_filters"):
            self._resize(here, int(value), parent)
        self._put(name, value)

    def _resize(self, here: str, count: int, parent: str) -> None:
        for child in Path(self.path(here)).iterdir():
            if child.name.isdigit():
                shutil.rmtree(child)
        make = {
            "kdamonds": self._kdamond, "contexts": self._context, "targets": self._target, "regions": self._region,
            "schemes": self._scheme, "goals": self._goal, "dests": self._dest, "probes": self._probe,
        }.get(parent, self._filter)  # fmt: skip
        for number in range(count):
            make(f"{here}/{number}")

    def _kdamond(self, here: str) -> None:
        self._put(f"{here}/state", "off")
        self._put(f"{here}/pid", "-1", 0o400)
        if self.level >= (6, 17):
            self._put(f"{here}/refresh_ms", "0")
        self._put(f"{here}/contexts/nr_contexts", "0")

    def _context(self, here: str) -> None:
        self._put(f"{here}/avail_operations", "vaddr\nfvaddr\npaddr", 0o400)
        self._put(f"{here}/operations", "vaddr")
        if self.level >= (6, 18):
            self._put(f"{here}/addr_unit", "1")
        for name, value in (("sample_us", 5000), ("aggr_us", 100000), ("update_us", 60000000)):
            self._put(f"{here}/monitoring_attrs/intervals/{name}", str(value))
        if self.level >= (6, 15):
            for name in ("access_bp", "aggrs", "min_sample_us", "max_sample_us"):
                self._put(f"{here}/monitoring_attrs/intervals/intervals_goal/{name}", "0")
        self._put(f"{here}/monitoring_attrs/nr_regions/min", "10")
        self._put(f"{here}/monitoring_attrs/nr_regions/max", "1000")
        if self.level >= (7, 2):
            self._put(f"{here}/monitoring_attrs/probes/nr_probes", "0")
            self._put(f"{here}/pause", "N")
        self._put(f"{here}/targets/nr_targets", "0")
        self._put(f"{here}/schemes/nr_schemes", "0")

    def _probe(self, here: str) -> None:
        self._put(f"{here}/filters/nr_filters", "0")
        if self.level >= (7, 3):
            self._put(f"{here}/weight", "0")

    def _target(self, here: str) -> None:
        self._put(f"{here}/pid_target", "0")
        if self.level >= (6, 19):
            self._put(f"{here}/obsolete_target", "N")
        self._put(f"{here}/regions/nr_regions", "0")

    def _region(self, here: str) -> None:
        self._put(f"{here}/start", "0")
        self._put(f"{here}/end", "0")

    def _scheme(self, here: str) -> None:
        self._put(f"{here}/action", "stat")
        for name in ("sz", "nr_accesses", "age"):
            self._put(f"{here}/access_pattern/{name}/min", "0")
            self._put(f"{here}/access_pattern/{name}/max", "0")
        for name, value in (("apply_interval_us", "0"), ("target_nid", "-1"), ("quotas/ms", "0"), ("quotas/bytes", "0"),
                            ("quotas/reset_interval_ms", "0"), ("quotas/weights/sz_permil", "0"),
                            ("quotas/weights/nr_accesses_permil", "0"), ("quotas/weights/age_permil", "0"),
                            ("quotas/goals/nr_goals", "0"), ("watermarks/metric", "none"),
                            ("watermarks/interval_us", "0"), ("watermarks/high", "0"), ("watermarks/mid", "0"),
                            ("watermarks/low", "0"), ("filters/nr_filters", "0")):  # fmt: skip
            self._put(f"{here}/{name}", value)
        if self.level >= (6, 15):
            self._put(f"{here}/core_filters/nr_filters", "0")
            self._put(f"{here}/ops_filters/nr_filters", "0")
        if self.level >= (6, 17):
            self._put(f"{here}/dests/nr_dests", "0")
        self._put(f"{here}/quotas/effective_bytes", "0", 0o400)
        for name in _STATS:
            self._put(f"{here}/stats/{name}", "0", 0o400)
        self._put(f"{here}/tried_regions/total_bytes", "0", 0o400)

    def _goal(self, here: str) -> None:
        for name, value in {**_GOAL, **({"nid": "0"} if self.level >= (6, 16) else {})}.items():
            self._put(f"{here}/{name}", value)

    def _dest(self, here: str) -> None:
        self._put(f"{here}/id", "0")
        self._put(f"{here}/weight", "0")

    def _filter(self, here: str) -> None:
        if "/probes/" in here:
            for name, value in {"type": "anon", "matching": "N", "allow": "N", "path": ""}.items():
                self._put(f"{here}/{name}", value)
            return
        new = {"allow": "N", "min": "0", "max": "0"} if self.level >= (6, 15) else {}
        for name, value in {**_FILTER, **new}.items():
            self._put(f"{here}/{name}", value)

    # -- the state file -----------------------------------------------------------------------------------------------

    def _command(self, here: str, command: str) -> None:
        self.commands.append(command)
        if command in self.refuse:
            raise OSError(self.refuse[command], os.strerror(self.refuse[command]))
        if command == "on":
            start_thread(self.roots, PID, start_ticks=self.start_ticks)
            self._put(f"{here}/pid", str(PID), 0o400)
            self._put(f"{here}/state", "on")
            self.running = []
            self._commit_targets(f"{here}/contexts/0/targets")
        elif command == "commit" and super()._read(f"{here}/state") == "on":
            self._commit_targets(f"{here}/contexts/0/targets")
        elif super()._read(f"{here}/state") != "on":
            raise OSError(errno.EINVAL, "Invalid argument")
        elif command == "off":
            self.stop(here)
        elif command == "update_schemes_tried_regions":
            self._try(f"{here}/contexts/0/schemes")
        elif command == "update_schemes_stats":
            self._count(f"{here}/contexts/0/schemes")

    def _commit_targets(self, here: str) -> None:
        """Directories pair with what runs by their order; what is obsolete goes, what has no partner is added."""
        left = []
        for place in range(self.read_int(f"{here}/nr_targets")):
            obsolete = self.level >= (6, 19) and self._read(f"{here}/{place}/obsolete_target").strip() == "Y"
            if obsolete and place >= len(self.running):
                raise OSError(errno.EINVAL, "Invalid argument")
            if not obsolete:
                left.append(self.running[place] if place < len(self.running)
                            else self.read_int(f"{here}/{place}/pid_target"))  # fmt: skip
        self.running = left

    def stop(self, here: str = "kdamonds/0") -> None:
        """The kdamond ends."""
        shutil.rmtree(Path(self.roots.proc, str(PID)), ignore_errors=True)
        self._put(f"{here}/pid", "-1", 0o400)
        self._put(f"{here}/state", "off")

    def _try(self, here: str) -> None:
        for number in range(self.read_int(f"{here}/nr_schemes")):
            filters = "core_filters" if self.read_int(f"{here}/{number}/core_filters/nr_filters") else "filters"
            target = self.read_int(f"{here}/{number}/{filters}/0/damon_target_idx")
            for place, values in enumerate(self.regions.get(target, [])):
                for name, value in zip(("start", "end", "nr_accesses", "age"), values, strict=True):
                    self._put(f"{here}/{number}/tried_regions/{place}/{name}", str(value), 0o400)
                for probe, hits in enumerate(self.hits):
                    self._put(f"{here}/{number}/tried_regions/{place}/probes/{probe}/hits", str(hits[place]), 0o400)

    def _count(self, here: str) -> None:
        for number in range(self.read_int(f"{here}/nr_schemes")):
            for place, name in enumerate(_STATS):
                path = f"{here}/{number}/stats/{name}"
                self._put(path, str(self.read_int(path) + 1 + place), 0o400)
