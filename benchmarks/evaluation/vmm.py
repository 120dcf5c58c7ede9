"""A virtual machine's process, reclaimed from the host: no agent in the guest, whose check sums must be right after it.

The lab's guest boots with its memory in files, so that this machine needs no swap. In it a program fills memory, takes
check sums, and sleeps; then it takes them again. Meanwhile `pydamon record PID-of-QEMU` runs with reclaim. Aim:
resident falls by 80 % of what the guest does not use, which is at least what the program has filled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.evaluation.guests import booted
from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, verdict

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
    lab = ["--memory-files", "--memory", "1G", "--nodes", "1", "--timeout", "1500"]
    program = [sys.executable, "-c", _GUEST, options.fill, options.seconds + 15]
    with booted(lab, program) as guest, tempfile.TemporaryDirectory() as folder:
        guest.line(lambda line: line == "idle\n", "it was idle")
        before, idle_s = guest.resident(), time.monotonic()
        least = before
        with recording(guest.pid, module, Path(folder)) as spent_s:
            while (now_s := time.monotonic() - idle_s) < options.seconds:
                least = min(least, guest.resident())
                spent_s()
                time.sleep(1)
            cpu = spent_s() / now_s
        right = guest.line(lambda line: line in ("right\n", "WRONG\n"), "its check sums") == "right\n"
        again = guest.resident()
    fell, unused = before - least, options.fill * MIB
    print(f"resident: {before / MIB:.0f} MiB when it went idle, {least / MIB:.0f} MiB at the least,")
    print(f"{again / MIB:.0f} MiB when it had read its memory again; ", end="")
    print(f"it fell by {fell / unused:.0%} of what was filled: {verdict(fell >= 0.8 * unused)} (80%)")
    print(f"the guest's check sums: {'right' if right else 'WRONG'}; pydamon: {cpu:.1%} of a CPU, its start included")


if __name__ == "__main__":
    main()
