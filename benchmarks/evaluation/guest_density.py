"""How many guests fit into a host's memory: several at once, without and with `autoscale` in each.

Each guest of 1 GiB, with a balloon and free page reporting, writes a file, fills anonymous memory, and then is idle but
for 16 MiB. *has* is what they have of this machine's memory together (Rss of the mappings that they are) by the second
since all were idle; the guests are called denser by how much more of them fit at the end. pydamon runs within the
guests, so its memory is in the figure. Emulated guests share this machine's CPUs: two at a time is what two CPUs bear.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from benchmarks.evaluation.autoscale import LAB, MIB
from benchmarks.evaluation.guests import booted
from benchmarks.evaluation.report import machine

_GUEST = """
import mmap, os, subprocess, sys, time
mib, idle_s, words = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
hot, cold = mmap.mmap(-1, 16 << 20), mmap.mmap(-1, mib << 20)
with open("/mnt/file", "wb") as file:
    for _ in range(mib // 2): file.write(b"x" * (1 << 20))
    os.fsync(file.fileno())
for at in range(0, len(cold), 4096): cold[at] = at & 255 | 1
watcher = None
if words:
    command = [sys.executable, "-m", "pydamon", "record", "--ops", "paddr", "-o", "/tmp/record", "--module", *words]
    watcher = subprocess.Popen(command, stderr=subprocess.DEVNULL)
print("idle ", flush=True)
until = time.monotonic() + idle_s
while time.monotonic() < until:
    for at in range(0, len(hot), 4096): hot[at] = 1
    time.sleep(0.5)
ended = watcher and watcher.poll()
print("ended", ended, all(cold[at] == at & 255 | 1 for at in range(0, len(cold), 4096)), flush=True)
"""
_LOOKS = 5


def together(guests: int, fill_mib: int, idle_s: int, module: list[str]) -> float:
    """Print what so many guests have while they are idle; what they have in the end, in MiB."""
    with contextlib.ExitStack() as stack:
        program = [sys.executable, "-c", _GUEST, fill_mib, idle_s + 30, *module]
        running = [stack.enter_context(booted(LAB, program)) for _ in range(guests)]
        for guest in running:
            guest.words("idle", "it was idle")
        began, has = time.monotonic(), []
        for look in range(_LOOKS + 1):
            time.sleep(max(began + idle_s * look / _LOOKS - time.monotonic(), 0))
            has.append(sum(guest.resident() for guest in running) / MIB)
        for guest in running:
            _, ended, right = guest.words("ended", "it had looked at its memory again")
            if ended != "None" or right != "True":
                raise SystemExit(f"evaluation: in a guest pydamon ended ({ended}), or its memory was wrong ({right})")
    print(f"{module[0] if module else 'nothing':<44} has {', '.join(f'{mib:.0f}' for mib in has)} MiB", flush=True)
    return has[-1]


def main() -> None:
    """Print both, and by how much more guests fit."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--guests", type=int, default=2, help="at once (default: 2)")
    parser.add_argument("--fill", type=int, default=256, metavar="MIB", help="anonymous memory (default: 256)")
    parser.add_argument("--idle", type=int, default=120, metavar="SECONDS", help="how long (default: 120)")
    parser.add_argument("--module", default="autoscale cold_min_age=15s quota=500ms/1s", help="(default: %(default)s)")
    parser.add_argument("--intervals", default="100ms/2s", help="to sample, and to aggregate (default: %(default)s)")
    options = parser.parse_args()
    print(f"guest-density: {options.guests} guests of 1 GiB, {options.fill} MiB filled, idle for {options.idle} s")
    print(machine(), flush=True)
    sample, _, aggr = options.intervals.partition("/")
    fixed = [options.module, "--sample", sample, "--aggr", aggr]
    without, with_it = (together(options.guests, options.fill, options.idle, module) for module in ([], fixed))
    fit, fitted = (options.guests * 1024 / mib for mib in (with_it, without))
    print(f"denser by {fit / fitted:.2f}: {fit:.2f} GiB of guests per GiB, and {fitted:.2f} without it")


if __name__ == "__main__":
    main()
