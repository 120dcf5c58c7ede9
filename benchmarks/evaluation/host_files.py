"""Idle pages of a file, which `reclaim files=only` takes without swap, beside hot ones, which stay.

A process maps a file of 400 MiB and reads all of it once, and another of 40 MiB, which it reads again and again.
`pydamon record PID` runs with the module and default intervals. What is in the page cache is asked of ``fincore``
(util-linux), what the hot file lost of the process's major faults. Aim: at most 10 % of the idle file is left
``min_age`` + 30 s after it was read last, and nothing of the hot one was taken.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, spread, verdict
from pydamon.spec.units import parse_time_us

MIB = 1 << 20
IDLE_MIB, HOT_MIB = 400, 40
GRACE_S = 30
_READER = """
import mmap, sys, time
files = [open(name, "rb") for name in sys.argv[1:3]]
idle, hot = (mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in files)
for at in range(0, len(idle), 4096): idle[at]
print("ready", flush=True)
while True:
    for at in range(0, len(hot), 4096): hot[at]
    time.sleep(0.05)
"""


@dataclass(frozen=True)
class Outcome:
    """One run: seconds until a tenth of the idle file was left (None: never), its share that was left at the end,
    the least share of the hot file that was there, the major faults of the process, and pydamon's share of a CPU."""

    gone_s: float | None
    left: float
    hot: float
    faults: int
    cpu: float


def cached(path: Path) -> int:
    """Bytes of a file in the page cache, by fincore(1)."""
    said = subprocess.run(["fincore", "-bnro", "RES", path], check=True, capture_output=True, text=True)
    return int(said.stdout)


def major_faults(pid: int) -> int:
    """Of proc_pid_stat(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[9])


@contextmanager
def having_read(program: str, sizes_mib: Mapping[Path, int], *others: Path) -> Iterator[int]:
    """A process of that program, when it has read the files, which are made as large as that; its pid.

    Its arguments are the files, and ``others``.
    """
    for path, mib in sizes_mib.items():
        with open(path, "wb") as file:
            for _ in range(mib):
                file.write(b"x" * MIB)
    subprocess.run(["sync", *sizes_mib], check=True)  # what is dirty is written first, not taken
    command = [sys.executable, "-c", program, *map(str, (*sizes_mib, *others))]
    with ready(command) as process:
        yield process.pid


@contextmanager
def ready(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of that command, from when it says that it is ready to the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("evaluation: the process that reads the files failed")
            yield process
        finally:
            process.kill()


def make_random(path: Path, mib: int) -> None:
    """Make a file of so many MiB of random bytes (the same MiB again and again), of which none is in the page cache."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # large folios of the writing go


def mapped_pages(path: str) -> NDArray[Any]:
    """A byte of each page of the file, which is mapped and has been read once; says that it is `ready`."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # a fault brings back its page, and no others
    pages = np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE]
    np.bitwise_or.reduce(pages)
    print("ready", flush=True)
    return pages


def reading(folder: Path, idle_mib: int, hot_mib: int) -> AbstractContextManager[int]:
    """The process, when it has read both files, ``idle`` and ``hot`` in the folder; its pid."""
    return having_read(_READER, {folder / "idle": idle_mib, folder / "hot": hot_mib})


def run(folder: Path, module: str, min_age_s: float) -> Outcome:
    """One recording with the module."""
    with reading(folder, IDLE_MIB, HOT_MIB) as pid:
        read_s, faults = time.monotonic(), major_faults(pid)
        gone_s, hot = None, 1.0
        with recording(pid, module, folder) as spent_s:
            while (now_s := time.monotonic() - read_s) < min_age_s + GRACE_S:
                hot = min(hot, cached(folder / "hot") / (HOT_MIB * MIB))
                if gone_s is None and cached(folder / "idle") <= IDLE_MIB * MIB // 10:
                    gone_s = now_s
                spent_s()
                time.sleep(0.5)
            left = cached(folder / "idle") / (IDLE_MIB * MIB)
            cpu = spent_s() / now_s
        return Outcome(gone_s, left, hot, major_faults(pid) - faults, cpu)


def main() -> None:
    """Print a line for each run, and the figures of all."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--min-age", default="30s", help="the module's knob (default: 30s)")
    parser.add_argument("--dir", help="a folder on a disk, where the files are made (default: the temporary one)")
    options = parser.parse_args()
    if shutil.which("fincore") is None:
        raise SystemExit("evaluation: fincore is not here; install util-linux's extra programs (util-linux-extra)")
    module = f"reclaim min_age={options.min_age} files=only watermarks=off"
    min_age_s = parse_time_us(options.min_age) / 1e6
    print(f"host-files: {module}; {IDLE_MIB} MiB idle, {HOT_MIB} MiB hot; {options.runs} runs\n{machine()}")
    outcomes = []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            found = run(Path(folder), module, min_age_s)
        outcomes.append(found)
        gone = "never" if found.gone_s is None else f"{found.gone_s:.0f} s"
        print(f"run {number + 1}: 90% gone after {gone}, {found.left:.1%} left", flush=True)
    reached = all(found.left <= 0.1 for found in outcomes)
    stayed = all(found.hot == 1 and found.faults == 0 for found in outcomes)
    print(f"idle file: left after min_age + {GRACE_S} s {spread([100 * o.left for o in outcomes], '%')}: ", end="")
    print(f"{verdict(reached)} (at most 10%)")
    print(f"hot file: in memory at least {spread([100 * o.hot for o in outcomes], '%')}, major faults ", end="")
    print(f"{spread([o.faults for o in outcomes], digits=0)}: {verdict(stayed)} (nothing taken)")
    print(f"pydamon: {spread([100 * o.cpu for o in outcomes], '% of a CPU', 2)}, its start included")


if __name__ == "__main__":
    main()
