"""Two ways to ask how much memory processes use: a recording of pydamon, and the kernel's own account.

The kernel's account is ``Referenced`` of ``/proc/PID/smaps`` some time after the accessed bits were cleared. Clearing
takes the bits from whoever else reads them, so it is asked when nobody records. Of mapped files it is an upper bound: a
page of a file is referenced, too, if another process read it, or ended after it had used it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydamon.linux.clear_refs import clear

KIB = 1024


@dataclass(frozen=True)
class Account:
    """Bytes of processes together, memory that they share counted once; ``file_bytes``: of that, of private files."""

    bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Span:
    """What surely was used, and what was used at most, in bytes."""

    low: int
    high: int


def resident(pids: Sequence[int]) -> int:
    """What is resident, hugetlb included."""
    return _account(pids, ("Rss", "Private_Hugetlb", "Shared_Hugetlb")).bytes


def referenced(pids: Sequence[int], window_s: float, rounds: int) -> Span:
    """What was used within windows of that length, means: without what is mapped from files, and with that."""
    found = []
    for _ in range(rounds):
        for pid in pids:
            _clear(pid)
        time.sleep(window_s)
        found.append(_account(pids, ("Referenced",)))
    high = sum(one.bytes for one in found) // rounds
    return Span(high - sum(one.file_bytes for one in found) // rounds, high)


def _clear(pid: int) -> None:
    fd = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY)
    try:
        clear(fd)
    finally:
        os.close(fd)


def _account(pids: Sequence[int], names: tuple[str, ...]) -> Account:
    """The sum of those fields over all mappings; of a mapping that several processes share, the most of any."""
    own = files = 0
    shared: dict[tuple[str, ...], int] = {}
    for pid in pids:
        is_file, key = False, None
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                is_file = words[4] != "0" and words[1][3] == "p"
                key = None if words[1][3] == "p" else (words[2], words[3], words[4])
                sizes = 0
            elif words[0][:-1] in names:
                size = int(words[1]) * KIB
                if key is None:
                    own += size
                    files += size * is_file
                else:
                    sizes += size
                    shared[key] = max(shared.get(key, 0), sizes)
    return Account(own + sum(shared.values()), files)


@dataclass(frozen=True)
class Recorded:
    """A recording: its file, what it wrote to standard error, and what all of it took: CPU, time, memory at most."""

    path: str
    said: str
    cpu_share: float
    elapsed_s: float
    peak_bytes: int

    def answer(self, *report: str) -> Any:
        """The JSON that a report prints."""
        command = [sys.executable, "-m", "pydamon", "report", *report, "--json", "-i", self.path]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def record(pids: Sequence[int], path: str, seconds: float, *options: str) -> Recorded:
    """Record with these options, from the start of the command to its end."""
    command = [sys.executable, "-m", "pydamon", "record", "-o", path, "--duration", f"{seconds}s", *options]
    began = time.monotonic()
    with open(f"{path}.said", "w+") as said:
        process = subprocess.Popen([*command, *map(str, pids)], stdout=subprocess.DEVNULL, stderr=said)
        peak, done = 0, 0
        while not done:
            peak = max(peak, _peak_bytes(process.pid))
            time.sleep(0.05)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        elapsed = time.monotonic() - began
        said.seek(0)
        words = said.read()
    if process.returncode:
        raise RuntimeError(f"pydamon record: {words}")
    cpu_share = (usage.ru_utime + usage.ru_stime) / elapsed
    return Recorded(path, words, cpu_share, elapsed, peak)


def _peak_bytes(pid: int) -> int:
    """The most that was resident. (What wait4 tells counts what the caller had when it forked.)"""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith("VmHWM:")), 0)


@dataclass(frozen=True)
class Used:
    """What a record's page panel says of all targets together: used bytes by window in s, (estimate, low, high)."""

    resident: int
    windows: dict[int, tuple[int, int, int] | None]


def used(recorded: Recorded) -> Used:
    """Read it from ``report wss --over window``."""
    answer = recorded.answer("wss", "--over", "window")
    one = answer.get("total") or answer["targets"][0]
    windows = {
        row["window_s"]: None if row["bytes"] is None else (row["bytes"], row["low_bytes"], row["high_bytes"])
        for row in one["windows"]
    }
    return Used(one["resident_bytes"], windows)
