"""What `what-if` says of a recording, beside the same policies really run: pages of a file, which need no swap.

A process maps a file and uses a part of it all the time, sweeps two parts again and again (one in 20 s, one in 70 s),
reads single pages of another at random, and never uses the rest. It is recorded once without a policy; some more of it,
each with a file of its own, run beside that with `pageout` of what was not accessed for T. Really saved: what of
the file is not in the page cache (``fincore``), the mean from T on; really back: major faults, likewise. Recorded is
the file's mapping alone: Python's own memory does not go without swap. *slower*: the share of
its time that the process takes longer for its accesses than the one without a policy, beside what is foretold for an
SSD; what is compared is its sign and the order of the policies. Aims: saved bytes and refaults within 15 %; with
`--lab` (the lab's guest, whose TLB hides accesses) within 15 % and 30 %. `--apart`: one after the other, where the
machine has no CPU for each process and each monitor.
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.host_files import cached, major_faults, make_random, mapped_pages, ready
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.recording import until_it_monitors
from benchmarks.evaluation.report import machine, verdict
from benchmarks.kernel_damon import is_guest
from pydamon.linux.process import Process

MIB, PAGE = 1 << 20, mmap.PAGESIZE
PAGES = MIB // PAGE
# Parts of the file, in MiB, in this order; seconds of a sweep, or pages a second.
HOT, OFTEN, SELDOM, SINGLE, NEVER = 32, 96, 96, 64, 160
SIZE_MIB = HOT + OFTEN + SELDOM + SINGLE + NEVER
OFTEN_S, SELDOM_S, SINGLE_PER_S = 20, 70, 20
AGES_S = (10, 30, 50)
_STEP_S = 0.05
_AIM = 0.15
_AIM_OF_REFAULTS_IN_THE_LAB = 0.3
# On emulated CPUs intervals that fit what monitoring may cost come to 10 s: too long for idle times of 10 s.
_EMULATED = ("--sample", "100ms", "--aggr", "2s")
_LAB = ["--memory", "4G", "--disk", "3G", "--timeout", "3600"]


def use(path: str) -> None:
    """What the process does: read all of the file once, then parts of it for ever."""
    pages, worked_s = mapped_pages(path), np.memmap(path + ".worked", np.float64, "w+", shape=(1,))
    often, seldom, single = HOT * PAGES, (HOT + OFTEN) * PAGES, (HOT + OFTEN + SELDOM) * PAGES
    began, before_s, due = time.monotonic(), 0.0, 0.0
    while True:
        now_s = time.monotonic() - began
        np.bitwise_or.reduce(pages[:often])
        for first, size, lasts_s in ((often, OFTEN * PAGES, OFTEN_S), (seldom, SELDOM * PAGES, SELDOM_S)):
            low, high = (int(at_s / lasts_s * size) for at_s in (before_s, now_s))
            np.bitwise_or.reduce(pages[first + np.arange(low, min(high, low + size)) % size], initial=0)
        due += (now_s - before_s) * SINGLE_PER_S
        while due >= 1:
            due -= 1
            pages[single + random.randrange(SINGLE * PAGES)].item()
        before_s = now_s
        worked_s[0] += time.monotonic() - began - now_s
        time.sleep(_STEP_S)


@dataclass
class Side:
    """A process with its file, recorded with a policy for ``age_s`` or without (0).

    Looks are (s, bytes cached, faults, s that it took for its accesses).
    """

    age_s: int
    folder: Path
    pid: int
    recorder: subprocess.Popen[str]
    looks: list[tuple[float, int, int, float]] = field(default_factory=list)

    def look(self, at_s: float) -> None:
        """Look now."""
        if self.recorder.poll() is not None:
            raise SystemExit(f"evaluation: pydamon ended with exit status {self.recorder.returncode}")
        worked_s = float(np.fromfile(self.folder / "file.worked")[0])
        self.looks.append((at_s, cached(self.folder / "file"), major_faults(self.pid), worked_s))

    def worked(self, from_s: float) -> float:
        """The share of the time from then on that it took for its accesses."""
        late = [look for look in self.looks if look[0] >= from_s]
        return (late[-1][3] - late[0][3]) / (late[-1][0] - late[0][0])

    def happened(self) -> tuple[float, float]:
        """Bytes that were out, the mean from ``age_s`` on, and bytes that came back a minute."""
        late = [look for look in self.looks if look[0] >= self.age_s]
        back = (late[-1][2] - late[0][2]) * PAGE
        saved = SIZE_MIB * MIB - statistics.mean(look[1] for look in late)
        return saved, back * 60 / (late[-1][0] - late[0][0])


def mapped_at(pid: int, path: Path) -> str:
    """Where a process has mapped a file, as START-END."""
    process = Process(pid)
    try:
        (mapping,) = (one for one in process.mappings() if one.name == str(path))
    finally:
        process.close()
    return f"{mapping.start:#x}-{mapping.end:#x}"


def begun(age_s: int, folder: Path, stack: ExitStack) -> Side:
    """A side, whose processes end with ``stack``."""
    path = folder / "file"
    make_random(path, SIZE_MIB)
    script = f"from benchmarks.evaluation.host_what_if import use; use({str(path)!r})"
    user = stack.enter_context(ready([sys.executable, "-c", script]))
    command = [sys.executable, "-m", "pydamon", "record", str(user.pid), "-o", str(folder / "record")]
    command += ["--ops", "fvaddr", "--region", mapped_at(user.pid, path), *(_EMULATED if is_guest() else ())]
    command += ["--scheme", f"pageout rate=0% age>={age_s}s"] if age_s else []
    recorder = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    stack.callback(recorder.terminate)
    until_it_monitors(recorder)
    return Side(age_s, folder, user.pid, recorder)


def watched(ages_s: Sequence[int], folder: Path, seconds: float) -> list[Side]:
    """A side for each age, all at once, which lasts that long and has ended."""
    with ExitStack() as stack:
        sides = []
        for age_s in ages_s:
            own = folder / str(age_s)
            own.mkdir()
            sides.append(begun(age_s, own, stack))
        began = time.monotonic()
        while (at_s := time.monotonic() - began) < seconds:
            for side in sides:
                side.look(at_s)
            time.sleep(2)
        for side in sides:
            side.recorder.terminate()
            side.recorder.communicate()
    for side in sides:
        (side.folder / "file").unlink()
    return sides


def foretold(record: Path) -> dict[float, dict[str, Any]]:
    """What `what-if` says of each idle time."""
    command = [sys.executable, "-m", "pydamon", "what-if", str(record), "--json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return {row["idle_s"]: row for row in json.loads(said.stdout)["thresholds"]}


def main() -> None:
    """Print a line for each idle time, and the verdict."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=int, default=420, help="how long it lasts (default: 420)")
    parser.add_argument("--dir", help="a folder on a disk, where the files are made (default: the temporary one)")
    parser.add_argument("--apart", action="store_true", help="one after the other: four times as long")
    parser.add_argument("--lab", action="store_true", help="in the lab's guest")
    options = parser.parse_args()
    if options.lab and not is_guest():
        run_in_lab("host-what-if", *_LAB, words=("--dir", "/mnt"))
    print(f"host-what-if: {HOT} MiB hot, {OFTEN} swept in {OFTEN_S} s, {SELDOM} in {SELDOM_S} s, ", end="")
    print(f"{SINGLE_PER_S} pages a second of {SINGLE}, {NEVER} never; {options.seconds} s", end="")
    print(f"{', apart' * options.apart}\n{machine()}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as text:
        ages_s = (0, *AGES_S)
        together = [[age_s] for age_s in ages_s] if options.apart else [ages_s]
        sides = [side for some in together for side in watched(some, Path(text), options.seconds)]
        rows = foretold(Path(text, "0", "record"))
    errors: list[tuple[float, float]] = []
    slower: list[tuple[float, float]] = []
    for side in sides[1:]:
        row, (saved, back) = rows[float(side.age_s)], side.happened()
        told, refaults = row["saved_bytes"], row["refaults"]
        errors.append((abs(told / saved - 1), abs(refaults["estimate"] / back - 1)))
        slower.append((row["lost"]["ssd"], side.worked(side.age_s) - sides[0].worked(side.age_s)))
        print(f"{side.age_s} s: saved {told / MIB:.0f} MiB foretold, {saved / MIB:.0f} MiB really; ", end="")
        low, middle, high = (refaults[name] / MIB for name in ("low", "estimate", "high"))
        print(
            f"back a minute {middle:.0f} MiB ({low:.0f} to {high:.0f}) foretold, {back / MIB:.0f} MiB really; ", end=""
        )
        print(f"slower by {100 * slower[-1][0]:.2f} % foretold, {100 * slower[-1][1]:.2f} % really")
    aims = (_AIM, _AIM_OF_REFAULTS_IN_THE_LAB if is_guest() else _AIM)
    for name, found, aim in zip(("saved bytes", "refaults"), zip(*errors, strict=True), aims, strict=True):
        middle = statistics.median(found)
        print(f"{name}: off by {100 * middle:.0f} % (median): {verdict(middle <= aim)} (at most {100 * aim:.0f} %)")
    ordered = all(really > 0 for _, really in slower) and all(
        (foretold > other) is (really > another) for foretold, really in slower for other, another in slower
    )
    print(f"slower, in the order that is foretold: {verdict(ordered)}")


if __name__ == "__main__":
    main()
