"""A virtual machine's process, reclaimed from the host: no agent in the guest, whose check sums must be right after it.

The lab's guest boots with its memory in files, so that this machine needs no swap. In it a program fills memory, takes
check sums, and sleeps; then it takes them again. Meanwhile `pydamon record PID-of-QEMU` runs with reclaim. Aim:
resident falls by 80 % of what the guest does not use, which is at least what the program has filled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.host_memory import resident_kib

from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, verdict
from benchmarks.kernel import ROOT

MIB = 1 << 20
_GUEST = """
import sys, time, zlib
mib, idle_s = int(sys.argv[1]), float(sys.argv[2])
blocks = [(b"%016d" % at) * 65536 for at in range(mib)]
def sums(): return [zlib.crc32(block) for block in blocks]
before = sums()
print("idle", flush=True)
time.sleep(idle_s)
print("right" if sums() == before else "WRONG", flush=True)
"""


def resident(pid: int) -> int:
    """Bytes of the guest's memory that are resident in the process."""
    return resident_kib(Path(f"/proc/{pid}/smaps").read_text().splitlines()) * 1024


def await_line(process: subprocess.Popen[str], wanted: Callable[[str], bool], what: str) -> str:
    """The first line of its output for which that is so; SystemExit if it ends before."""
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(line):
            return line
    raise SystemExit(f"evaluation: the guest ended before {what}")


def main() -> None:
    """Print what was resident before and after, and whether the guest's memory is what it was."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--fill", type=int, default=256, metavar="MIB", help="what the guest fills (default: 256)")
    parser.add_argument("--min-age", type=int, default=20, metavar="SECONDS", help="the module's (default: 20)")
    parser.add_argument("--seconds", type=int, default=90, help="how long to reclaim (default: 90)")
    parser.add_argument("--quota", default="50ms+128MiB/1s", help="the module's (default: 50ms+128MiB/1s)")
    options = parser.parse_args()
    module = f"reclaim min_age={options.min_age}s files=only watermarks=off quota={options.quota}"
    print(f"vmm: {module}; a guest of 1 GiB fills {options.fill} MiB\n{machine()}", flush=True)
    command = [ROOT / "lab/run", "--memory-files", "--memory", "1G", "--nodes", "1", "--timeout", "1500", "--"]
    guest = [sys.executable, "-c", _GUEST, str(options.fill), str(options.seconds + 15)]
    with (
        subprocess.Popen(
            [*map(str, command), *guest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as lab,
        tempfile.TemporaryDirectory() as folder,
    ):
        try:
            logs = await_line(lab, lambda line: "logs: " in line, "it booted").split("logs: ")[1].strip()
            await_line(lab, lambda line: line == "idle\n", "it was idle")
            pid = int((Path(logs) / "qemu.pid").read_text())
            before, idle_s = resident(pid), time.monotonic()
            least = before
            with recording(pid, module, Path(folder)) as spent_s:
                while (now_s := time.monotonic() - idle_s) < options.seconds:
                    least = min(least, resident(pid))
                    spent_s()
                    time.sleep(1)
                cpu = spent_s() / now_s
            right = await_line(lab, lambda line: line in ("right\n", "WRONG\n"), "its check sums") == "right\n"
            again = resident(pid)
        finally:
            lab.terminate()
    fell, unused = before - least, options.fill * MIB
    print(f"resident: {before / MIB:.0f} MiB when it went idle, {least / MIB:.0f} MiB at the least,")
    print(f"{again / MIB:.0f} MiB when it had read its memory again; ", end="")
    print(f"it fell by {fell / unused:.0%} of what was filled: {verdict(fell >= 0.8 * unused)} (80%)")
    print(f"the guest's check sums: {'right' if right else 'WRONG'}; pydamon: {cpu:.1%} of a CPU, its start included")


if __name__ == "__main__":
    main()
