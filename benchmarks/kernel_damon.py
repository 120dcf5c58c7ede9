"""The kernel's own DAMON on one process, in the guest lab: set up through sysfs, results from its trace event.

Format of both: the kernel's Documentation/admin-guide/mm/damon/usage.rst.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.errors import MachineError

KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
TRACING = Path("/sys/kernel/tracing")
EVENT = TRACING / "events/damon/damon_aggregated/enable"
_TICKS = os.sysconf("SC_CLK_TCK")
_LINE = re.compile(r" (\d+)\.(\d{6}): damon_aggregated: target_id=\d+ nr_regions=(\d+) (\d+)-(\d+): (\d+) (\d+)")


def is_guest() -> bool:
    """Whether this is the guest lab, by the kernel's command line (lab/pytest_guest.py)."""
    return "pydamon.lab=1" in Path("/proc/cmdline").read_text().split()


def require_guest() -> None:
    """Raise MachineError outside of the guest lab: another machine's DAMON is never touched."""
    if not is_guest():
        raise MachineError("is driven in the guest lab only (lab/run)", where="the kernel's DAMON")


def thread_seconds(pid: int) -> float:
    """Time on a CPU of a kernel thread, to the nanosecond (CONFIG_SCHED_DEBUG)."""
    found = re.search(r"se\.sum_exec_runtime\s*:\s*([\d.]+)", Path(f"/proc/{pid}/sched").read_text())
    assert found is not None
    return float(found.group(1)) / 1000


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, or of a kernel thread (10 ms resolution)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def parse_trace(text: str, sample_us: int, aggr_us: int) -> list[Snapshot]:
    """Snapshots in the text of tracefs' ``trace`` with trace_clock mono; each ends when its first line was written.

    The first aggregation is left out, for it is not known when it began; so is one whose lines are not all there.
    """
    found: list[Snapshot] = []
    rows: list[tuple[int, ...]] = []
    before = began = 0
    for line in text.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        seconds, micros, expected, *row = map(int, match.groups())
        if not rows:
            began = seconds * 1_000_000_000 + micros * 1000
        rows.append(tuple(row))
        if len(rows) < expected:
            continue
        if before:
            start, end, nr_accesses, age = np.array(rows, np.uint64).T
            counts, ages = nr_accesses.astype(np.uint32), age.astype(np.uint32)
            found.append(Snapshot(0, before, began, sample_us, aggr_us, start, end, counts, ages))
        before, rows = began, []
    return found


def _read(path: Path) -> str:
    """A sysfs file of DAMON's; while the kernel is carrying out a command it answers EBUSY."""
    while True:
        try:
            return path.read_text().strip()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.01)


class KernelDamon:
    """One kdamond with one context; `start` turns it on, `stop` off. Raises MachineError outside of the guest.

    It monitors the process or, if there are ``spans`` (start, end), these: of the process's addresses with the
    ``operations`` fvaddr, of physical memory with paddr.
    """

    def __init__(
        self,
        pid: int,
        sample_us: int,
        aggr_us: int,
        min_regions: int,
        max_regions: int,
        spans: Sequence[tuple[int, int]] = (),
        operations: str = "vaddr",
    ) -> None:
        require_guest()
        self._intervals = sample_us, aggr_us
        (KDAMONDS / "nr_kdamonds").write_text("1")
        context = KDAMONDS / "0/contexts"
        (context / "nr_contexts").write_text("1")
        context /= "0"
        (context / "operations").write_text(operations)
        attributes = context / "monitoring_attrs"
        for name, value in (("sample", sample_us), ("aggr", aggr_us), ("update", 1_000_000)):
            (attributes / f"intervals/{name}_us").write_text(str(value))
        # Each value must fit the other one at any time: the maximum first.
        (attributes / "nr_regions/max").write_text(str(max_regions))
        (attributes / "nr_regions/min").write_text(str(min_regions))
        (context / "targets/nr_targets").write_text("1")
        if operations != "paddr":
            (context / "targets/0/pid_target").write_text(str(pid))
        (context / "targets/0/regions/nr_regions").write_text(str(len(spans)))
        for at, (start, end) in enumerate(spans):
            (context / f"targets/0/regions/{at}/start").write_text(str(start))
            (context / f"targets/0/regions/{at}/end").write_text(str(end))
        self.pid = 0

    def start(self, cpu: int) -> None:
        """Turn it on, on that CPU."""
        (TRACING / "buffer_size_kb").write_text("32768")
        (TRACING / "trace_clock").write_text("mono")
        (TRACING / "trace").write_text("")
        EVENT.write_text("1")
        self._cpu = cpu
        self.resume()

    def pause(self) -> None:
        """Turn it off for a while."""
        (KDAMONDS / "0/state").write_text("off")

    def resume(self) -> None:
        """Turn it on; it begins anew."""
        (KDAMONDS / "0/state").write_text("on")
        self.pid = 0
        while self.pid <= 0:
            self.pid = int(_read(KDAMONDS / "0/pid"))
            time.sleep(0.01)
        os.sched_setaffinity(self.pid, {self._cpu})

    def cpu_seconds(self) -> float:
        """CPU time of the kdamond so far."""
        return cpu_seconds(self.pid)

    def stop(self) -> list[Snapshot]:
        """Turn it off, if it has not ended with its target; what it found."""
        EVENT.write_text("0")
        if _read(KDAMONDS / "0/state") == "on":
            (KDAMONDS / "0/state").write_text("off")
        (KDAMONDS / "nr_kdamonds").write_text("0")
        return parse_trace((TRACING / "trace").read_text(), *self._intervals)
