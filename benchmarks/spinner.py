"""A process that sweeps a hot set without pause and tells how far it is: what monitoring takes from it can be seen.

``python -m benchmarks.spinner FILE HOT_MIB COLD_MIB read|write`` keeps two integers in FILE: sweeps done, and its own
CPU time in ns.
"""

from __future__ import annotations

import math
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

MIB = 1 << 20
PAGE = 4096


def spin(path: str, hot_mib: int, cold_mib: int, mode: str) -> None:
    """Sweep for ever; one access per page. Prints the address of the hot set first."""
    with open(path, "r+b") as file:
        counters = np.frombuffer(mmap.mmap(file.fileno(), PAGE), np.int64, 2)
    area = mmap.mmap(-1, (hot_mib + cold_mib + 2) * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    memory = np.frombuffer(area, np.uint8)
    memory[::PAGE] = 1
    hot = memory[: hot_mib * MIB : PAGE]
    print(hot.ctypes.data, flush=True)
    # Several sweeps of a small set between two looks at the clock.
    turns = range(max(64 // hot_mib, 1))
    while True:
        for _ in turns:
            if mode == "write":
                hot.fill(1)
            else:
                np.bitwise_or.reduce(hot)
        counters[0] += len(turns)
        counters[1] = time.process_time_ns()


def entering(cgroup: Path, command: list[str]) -> list[str]:
    """That command in a cgroup, which its process enters before it has memory."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *command]


class Counted:
    """A program of ours that counts what it has done and its own CPU time, on one CPU; as a context manager.

    It is run as ``python -m MODULE FILE *arguments``, keeps two integers in FILE, and prints a line (``said``) once it
    is set up. In ``cgroup``, if there is one, from the beginning (`entering`).
    """

    def __init__(self, module: str, *arguments: str, cpu: int = 0, cgroup: Path | None = None) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._file.truncate(PAGE)
        self._mapped = mmap.mmap(self._file.fileno(), PAGE)
        self._counters = np.frombuffer(self._mapped, np.int64, 4)
        command = [sys.executable, "-m", module, self._file.name, *arguments]
        if cgroup is not None:
            command = entering(cgroup, command)
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | one_thread)
        self.pid = self._process.pid
        os.sched_setaffinity(self.pid, {cpu})
        assert self._process.stdout
        self.said = self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self._process.stdout
        self._process.stdout.close()
        self._file.close()

    def rate(self, work: Callable[[], object], seconds: float) -> float:
        """Pieces of work per second of its own CPU time while ``work`` is done again and again for that long."""
        before = self._counters.copy()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work()
        done, cpu_ns = (self._counters - before).tolist()[:2]
        return done / max(cpu_ns, 1) * 1e9

    def rate_in_rounds(self, work: Callable[[], object], seconds: float) -> float:
        """Rounds per second of its own CPU time, of a program that counts them: whole ones, for at least that long.

        ``work`` is to be short: a round that ends meanwhile is seen after it. Nothing is counted until a round ends, so
        the first one is not.
        """
        began = self._next_round(work)
        end = time.monotonic() + seconds
        ended = self._next_round(work)
        while time.monotonic() < end:
            ended = self._next_round(work)
        return (ended[0] - began[0]) / (ended[1] - began[1]) * 1e9

    def _next_round(self, work: Callable[[], object]) -> tuple[int, int]:
        before = int(self._counters[2])
        while int(self._counters[2]) == before:
            if self._process.poll() is not None:
                raise ChildProcessError("the program ended")
            work()
        return int(self._counters[2]), int(self._counters[3])

    @property
    def done(self) -> int:
        """Pieces of work so far."""
        return int(self._counters[0])

    def lost(
        self, disturb: Callable[[], object], leave_alone: Callable[[], object], *, seconds: float = 0.5, pairs: int = 12
    ) -> tuple[float, float]:
        """`lost` of this."""
        return lost(self.rate, disturb, leave_alone, seconds=seconds, pairs=pairs)


def lost(
    rate: Callable[[Callable[[], object], float], float],
    disturb: Callable[[], object],
    leave_alone: Callable[[], object],
    *,
    seconds: float,
    pairs: int,
) -> tuple[float, float]:
    """Median of `shares_lost`, and their spread: half the distance between the quartiles."""
    shares = shares_lost(rate, disturb, leave_alone, seconds=seconds, pairs=pairs)
    low, median, high = statistics.quantiles(shares, n=4)
    return median, (high - low) / 2


def shares_lost(
    rate: Callable[[Callable[[], object], float], float],
    disturb: Callable[[], object],
    leave_alone: Callable[[], object],
    *,
    seconds: float,
    pairs: int,
) -> list[float]:
    """Share of its speed that something loses to ``disturb``, once for each pair of windows.

    ``rate(work, seconds)`` is its speed while ``work`` is done again and again for that long. Each window with is
    compared with the windows without before and after it, so that a drift of the machine's speed cancels out.
    """
    without = rate(leave_alone, seconds)
    shares = []
    for _ in range(pairs):
        disturbed = rate(disturb, seconds)
        after = rate(leave_alone, seconds)
        shares.append(1 - disturbed / ((without + after) / 2))
        without = after
    return shares


def of_the_median(values: list[float]) -> tuple[float, float]:
    """Between which two of the values their distribution's median lies in 95 of 100 cases (sign test); of five or
    fewer, the lowest and the highest, which is less certain.
    """
    count, inside, cut = len(values), 1.0, 0
    while cut < count // 2 and (inside := inside - 2 * math.comb(count, cut) / 2**count) >= 0.95:
        cut += 1
    ordered = sorted(values)
    cut = max(cut - 1, 0)
    return ordered[cut], ordered[-1 - cut]


class Spinner(Counted):
    """A process that sweeps a hot set."""

    def __init__(
        self, hot_mib: int, cold_mib: int = 0, mode: str = "read", cpu: int = 0, cgroup: Path | None = None
    ) -> None:
        super().__init__("benchmarks.spinner", str(hot_mib), str(cold_mib), mode, cpu=cpu, cgroup=cgroup)
        self.pages = hot_mib * MIB // PAGE
        self.hot_at = int(self.said)

    def addresses(self, count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
        """Random pages of the hot set."""
        return np.uint64(self.hot_at) + rng.integers(0, self.pages, count).astype(np.uint64) * np.uint64(PAGE)


if __name__ == "__main__":
    spin(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
