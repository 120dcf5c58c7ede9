"""SIGKILL while recording, at random moments: what is on the disk is whole, and at most a second of it is missing."""

from __future__ import annotations

import os
import random
import re
import select
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.robustness_tally import PYDAMON, SEED, Tally, simulated
from pydamon.errors import PydamonError
from pydamon.records.joined import open_record
from pydamon.records.reader import RecordReader
from pydamon.records.verify import verify

FULL = 150
AGGR_NS = 100_000_000
_LONGEST_S = 4.0
_PROMISED_NS = 1_000_000_000
_BUSY_NS = 200_000_000  # by how much an aggregation may be late where other work goes on
_TARGET = "m = bytearray(1 << 24)\nwhile True:\n for i in range(0, len(m), 4096): m[i] = 1"


def kills(scale: float, folder: Path) -> list[Tally]:
    """One file, and one in parts of a second, in turn."""
    chance = random.Random(SEED)
    tally = Tally("SIGKILL while recording")
    worst_ns = 0
    with subprocess.Popen([sys.executable, "-c", f"import time\n{_TARGET}; time.sleep(.01)"]) as target:
        try:
            for number in range(max(round(FULL * scale), 2)):
                place = folder / f"kill{number}"
                place.mkdir()
                missing_ns, failure = _one(place, target.pid, chance.uniform(0.0, _LONGEST_S), rotate=number % 2 == 1)
                worst_ns = max(worst_ns, missing_ns)
                tally.add(failure and f"#{number}: {failure}")
        finally:
            target.kill()
    tally.note = f"the end of the last snapshot was up to {worst_ns / 1e9:.2f} s before the kill"
    return [tally]


def _one(folder: Path, pid: int, seconds: float, *, rotate: bool) -> tuple[int, str]:
    """Record, kill after so many seconds of monitoring (or 0 to 1 s after the start); (ns missing, what failed)."""
    parts = ["--rotate", "1s"] if rotate else []
    command = ["record", "--sample", "5ms", "--aggr", f"{AGGR_NS // 1000}us", "-o", "r.damon", *parts, str(pid)]
    with subprocess.Popen([*PYDAMON, *command], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        begun_ns, killed_ns = _kill(run, seconds)
    found = sorted(name for name in os.listdir(folder) if name.startswith("r."))
    missing_ns, failure = 0, ""
    if found:
        missing_ns, failure = _read(folder, found, begun_ns, killed_ns)
    elif begun_ns and killed_ns - begun_ns > _BUSY_NS:
        failure = "monitoring had begun, and there is no file"
    return missing_ns, failure or _left_over(folder)


def _kill(run: subprocess.Popen[bytes], seconds: float) -> tuple[int, int]:
    """Kill it so long after it says that it monitors, or (one time in four) while it starts; (begun, killed), in ns."""
    assert run.stderr is not None
    starting = seconds > _LONGEST_S * 3 / 4
    begun_ns = 0
    deadline = time.monotonic() + (seconds - _LONGEST_S * 3 / 4 if starting else 60)
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([] if begun_ns else [run.stderr], [], [], left)
        if ready and (line := os.read(run.stderr.fileno(), 1 << 16)):
            if b"monitoring" not in line:
                raise RuntimeError(line.decode("utf-8", "replace"))
            begun_ns = time.monotonic_ns()
            if not starting:
                deadline = time.monotonic() + seconds
        elif ready:
            raise RuntimeError("it ended by itself")
    killed_ns = time.monotonic_ns()
    run.kill()
    run.wait()
    return begun_ns, killed_ns


def _read(folder: Path, names: list[str], begun_ns: int, killed_ns: int) -> tuple[int, str]:
    try:
        for name in names:
            with RecordReader(folder / name) as part:
                if damage := [line for line in verify(part).damage if "not closed" not in line]:
                    return 0, f"{name}: {damage}"
        with open_record(str(folder / ("r.*.damon" if len(names) > 1 else names[0]))) as reader:
            ends = [one.end_ns for one in reader.snapshots()]
    except PydamonError as error:
        return 0, f"cannot be read: {error}"
    if ends != sorted(set(ends)):
        return 0, "snapshots out of order"
    # A snapshot is taken at the end of an aggregation; before the first one there is nothing to miss.
    missing_ns = killed_ns - (ends[-1] if ends else begun_ns or killed_ns)
    most_ns = AGGR_NS + _BUSY_NS + (_PROMISED_NS if ends else 0)
    return missing_ns, f"{missing_ns / 1e9:.2f} s are missing" if missing_ns > most_ns else ""


def _left_over(folder: Path) -> str:
    simulated(folder, "next.damon", "200ms")
    left = [name for name in os.listdir(folder) if re.match(r"\.pydamon-", name)]
    return f"after the next run there still are {left}" if left else ""
