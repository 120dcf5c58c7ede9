"""`reclaim driver=refaults files=only` beside a fixed `min_age=120s` on this machine, which needs no swap for it.

A process maps a file of 192 MiB, has touched all of it once, and reads bytes of the pages in its first third by Zipf's
law, the n-th page n times more seldom than the first one; the rest it never uses again. It is no redis, but what a
database does that maps its file (`guest-refaults` has redis). Both modules run side by side, each on a process and a
file of its own. What comes back is the process's major faults; the working set is what pydamon has seen used within two
minutes; what is in memory is told by ``fincore``. Aim: in the last half of the time per minute 0.2 % of the working set
comes back, within × 1.5.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.evaluation.guest_refaults import MIB, Outcome, of_modules
from benchmarks.evaluation.host_files import cached, major_faults, make_random, mapped_pages, ready
from benchmarks.evaluation.report import machine
from benchmarks.evaluation.zipf_client import at_rate
from benchmarks.kernel_damon import cpu_seconds

PAGE = mmap.PAGESIZE
MODULES = {
    "0.2% a minute": "reclaim driver=refaults refaults=0.2% files=only watermarks=off",
    "fixed 120 s": "reclaim min_age=120s files=only watermarks=off",
}


def read(path: str, used: int, per_second: int) -> None:
    """What the process does: touch all pages of the file, then use the first ``used`` ones for ever."""
    pages = mapped_pages(path)
    at_rate(lambda drawn: pages[drawn].sum(), used, per_second, 1)


@dataclass
class Side:
    """A process with its file, and a recording of it with one module; what was seen of it as (s, bytes, faults)."""

    name: str
    folder: Path
    reader: subprocess.Popen[str]
    recorder: subprocess.Popen[bytes]
    looks: list[tuple[float, int, int]] = field(default_factory=list)

    def look(self, at_s: float) -> None:
        """Look now."""
        if self.recorder.poll() is not None:
            raise SystemExit(f"evaluation: pydamon ended with exit status {self.recorder.returncode}")
        self.looks.append((at_s, cached(self.folder / "file"), major_faults(self.reader.pid)))

    def end(self, seconds: float) -> Outcome:
        """End both processes; the figures of ``seconds``."""
        cpu_s = cpu_seconds(self.recorder.pid)
        self.recorder.terminate()
        self.recorder.wait()
        self.reader.kill()
        assert self.reader.stdout is not None
        requests = statistics.median(map(float, self.reader.stdout.read().split()))
        half = [look for look in self.looks if look[0] >= seconds / 2]
        working_set, ages = of_modules(self.folder / "record")
        back = (half[-1][2] - half[0][2]) * PAGE
        rate = back / ((half[-1][0] - half[0][0]) / 60) / working_set
        saved = self.looks[0][1] - statistics.mean(used for _, used, _ in half)
        return Outcome(rate, saved / MIB, working_set / MIB, ages, requests, 100 * cpu_s / seconds)


def begun(name: str, module: str, folder: Path, options: argparse.Namespace, stack: ExitStack) -> Side:
    """A side, of which both processes end with ``stack``."""
    path = folder / "file"
    make_random(path, options.size)
    script = (
        f"from benchmarks.evaluation.host_refaults import read; read({str(path)!r}, {options.used}, {options.rate})"
    )
    reader = stack.enter_context(ready([sys.executable, "-c", script]))
    command = [sys.executable, "-m", "pydamon", "record", str(reader.pid), "-o", str(folder / "record")]
    recorder = stack.enter_context(subprocess.Popen([*command, "--module", module], stderr=subprocess.DEVNULL))
    stack.callback(recorder.terminate)
    return Side(name, folder, reader, recorder)


def main() -> None:
    """Print a line for each module, and the verdict."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long it lasts (default: 600)")
    parser.add_argument("--size", type=int, default=192, metavar="MIB", help="of each file (default: 192)")
    parser.add_argument("--used", type=int, default=16384, help="pages that are ever read again (default: 16384)")
    parser.add_argument("--rate", type=int, default=200, help="reads per second (default: 200)")
    parser.add_argument("--dir", help="a folder on a disk, where the files are made (default: the temporary one)")
    options = parser.parse_args()
    print(f"host-refaults: {options.size} MiB, {options.used * PAGE / MIB:g} MiB of them used, ", end="")
    print(f"{options.rate} reads a second, {options.seconds} s\n{machine()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as text, ExitStack() as stack:
        sides = []
        for number, (name, module) in enumerate(MODULES.items()):
            folder = Path(text, str(number))
            folder.mkdir()
            sides.append(begun(name, module, folder, options, stack))
        began = time.monotonic()
        while (at_s := time.monotonic() - began) < options.seconds:
            for side in sides:
                side.look(at_s)
            time.sleep(5)
        for side in sides:
            found = side.end(options.seconds)
            print(found.line(side.name, "reads"))
            if "refaults" in MODULES[side.name]:
                print(found.beside_the_limit())


if __name__ == "__main__":
    main()
