"""Where the intervals settle that pydamon chooses by itself, under a light, a normal and a heavy load.

The three programs have 256 MiB. *light* reads 1 MiB of it once in two seconds, *normal* 16 MiB twenty times a second
and 60 MiB more each five seconds, *heavy* sweeps half of it without pause. Each is recorded with default settings, and
simulated as a masim file with the same accesses; in the lab (`--lab`, a kernel from 6.17 on) the kernel's own tuner
gets the same goal. Printed is the aggregation interval at the end of the recording, and the monitor's share of a CPU
in its second half.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.answers_programs import Running, python
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.report import machine
from benchmarks.kernel_damon import is_guest
from pydamon.records.joined import open_record

PUBLISHED = {"light": "4 to 5 s", "normal": "370 ms", "heavy": "-"}
PROGRAM = """
import mmap, sys, time
whole = mmap.mmap(-1, 256 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
whole.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(whole)[::4096]
view[:] = b"x" * len(view)
print("ready", flush=True)
often, pause, seldom = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
due = time.monotonic()
while True:
    bytes(view[: often * 256])
    if seldom and time.monotonic() >= due:
        bytes(view[often * 256 : (often + seldom) * 256])
        due += 5
    time.sleep(pause)
"""
# masim: the regions, and phases in ms of: region, random, stride, probability.
MASIM = {
    "light": "used, 1 MiB\nrest, 255 MiB\n\nuse\n20\nused, 0, 4096, 1\n\npause\n1980\nused, 0, 4096, 0\n",
    "normal": "used, 16 MiB\nseldom, 60 MiB\nrest, 180 MiB\n\nboth\n50\nused, 0, 4096, 1\nseldom, 0, 4096, 4\n\n"
    "use\n4950\nused, 0, 4096, 1\n",
    "heavy": "used, 128 MiB\nrest, 128 MiB\n\nuse\n1000\nused, 0, 4096, 1\n",
}

Way = Callable[[str, float], tuple[float, float | None]]


@dataclass(frozen=True)
class Load:
    """MiB that are read, the pause after each time in s, and MiB that are read each five seconds besides."""

    often_mib: int
    pause_s: float
    seldom_mib: int = 0

    def program(self) -> AbstractContextManager[Running]:
        """The process."""
        return python(PROGRAM, str(self.often_mib), str(self.pause_s), str(self.seldom_mib))


LOADS = {"light": Load(1, 2), "normal": Load(16, 0.05, 60), "heavy": Load(128, 0)}


def recorded(words: list[str], seconds: float) -> tuple[float, float | None]:
    """Of a recording with these words: the aggregation interval at its end in s, and the CPU share of its second half
    (None where time is virtual)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r")
        command = [
            sys.executable,
            "-m",
            "pydamon",
            "record",
            *words,
            "--intervals",
            "auto",
            "--duration",
            f"{seconds}s",
            "-o",
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"evaluation: a recording failed: {done.stderr.strip()}")
        with open_record(str(path)) as reader:
            ends = np.unique(np.concatenate([batch.end_ns for batch in reader.batches()]))
            rows = [(row["time_ns"], row["cpu_ns"]) for row in reader.table_rows("cost")]
    rows = rows[len(rows) // 2 :]
    share = (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]) if len(rows) > 1 else None
    return float(np.diff(ends)[-2]) / 1e9, share  # the last snapshot may have been cut short


def of_process(load: str, seconds: float, *words: str) -> tuple[float, float | None]:
    """The program, recorded."""
    with LOADS[load].program() as running:
        return recorded([str(running.pids[0]), *words], seconds)


def simulated(load: str, seconds: float) -> tuple[float, float | None]:
    """The masim file, played for ever."""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(MASIM[load])
        file.flush()
        return recorded(["--ops", "sim", "--workload", file.name], seconds)


def cell(aggregation_s: float, cpu: float | None) -> str:
    """As it is printed."""
    return f"{1000 * aggregation_s:.0f} ms" + ("" if cpu is None else f", {cpu:.2%}")


def main() -> None:
    """Print a line for each load."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long each is recorded (default: 120)")
    parser.add_argument("--lab", action="store_true", help="in the lab's guest, beside the kernel's own tuner")
    parser.add_argument("--kernel", default="7.3", help="of the lab (default: 7.3)")
    options = parser.parse_args()
    if options.lab and not is_guest():
        run_in_lab("intervals", "--kernel", options.kernel, "--timeout", "7200")
    ways: dict[str, Way] = {"pydamon": of_process, "simulated": simulated}
    if is_guest():
        ways["kernel"] = lambda load, seconds: of_process(load, seconds, "--engine", "kernel")
    print(f"intervals: {options.seconds:g} s each\n{machine()}")
    print(f"{'':<8}" + "".join(f"{name:>18}" for name in ways) + f"{'published':>12}")
    for load in LOADS:
        cells = [f"{cell(*way(load, options.seconds)):>18}" for way in ways.values()]
        print(f"{load:<8}" + "".join(cells) + f"{PUBLISHED[load]:>12}", flush=True)


if __name__ == "__main__":
    main()
