"""An idle guest's memory goes back to the host, and comes again under load: `autoscale` in the lab's guest.

The guest has 1 GiB and a balloon with free page reporting. In each cycle a program there writes a file, fills
anonymous memory, and frees a part of it in pieces; then it is idle but for 16 MiB, and after IDLE seconds this side
looks how much memory the guest has here: Rss of the mapping that it is. Before the next cycle the program fills more
than was there. *used* is MemTotal - MemFree in the guest, pydamon's own memory included; *free in pieces* is what is
free in blocks below 2 MiB, which the balloon does not report. Aim: Rss at most 1.15 times what is used and 64 MiB.
*cold* is what the program left idle when it began to be; *back* is by how much Rss fell since then.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.evaluation.guests import booted
from benchmarks.evaluation.report import machine, spread, verdict

MIB = 1 << 20
LAB = ["--balloon", "--memory", "1G", "--nodes", "1", "--disk", "1G", "--timeout", "3000"]
_GUEST = """
import mmap, os, subprocess, sys, time
mib, idle_s, cycles, module, record = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
def used():
    told = dict(line.split(":") for line in open("/proc/meminfo"))
    return int(told["MemTotal"].split()[0]) - int(told["MemFree"].split()[0])
def private(mib):
    return mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def own():
    told = dict(line.split(":") for line in open(f"/proc/{watcher.pid}/status") if ":" in line)
    return int(told.get("VmRSS", "0").split()[0])
def pieces_kb():
    counts = [[int(count) for count in line.split()[4:]] for line in open("/proc/buddyinfo")]
    return sum(count << order + 2 for zone in counts for order, count in enumerate(zone) if order < 9)
def idle(hot):
    until = time.monotonic() + idle_s
    while time.monotonic() < until:
        for at in range(0, len(hot), 4096): hot[at] = 1
        time.sleep(0.5)
hot = private(16)
command = [sys.executable, "-m", "pydamon", "record", "--ops", "paddr", "-o", record, "--module", module, *sys.argv[6:]]
watcher = subprocess.Popen(command, stderr=open("/tmp/said", "w"))
for cycle in range(cycles):
    with open("/mnt/file", "wb") as file:
        for _ in range(mib // 2): file.write(b"x" * (1 << 20))
        os.fsync(file.fileno())
    cold = private(mib)
    for at in range(0, len(cold), 4096): cold[at] = at & 255 | 1
    pieces = private(mib // 2)
    for at in range(0, len(pieces), 4096): pieces[at] = 1
    for at in range(0, len(pieces), 16384): pieces.madvise(mmap.MADV_DONTNEED, at, 12288)
    print("idle", used(), flush=True)
    idle(hot)
    print("looked", used(), watcher.poll(), own(), pieces_kb(), flush=True)
    right = all(cold[at] == at & 255 | 1 for at in range(0, len(cold), 4096))
    cold.close()
    pieces.close()
    load = private(mib * 2)
    for at in range(0, len(load), 4096): load[at] = 1
    print("loaded", used(), right, flush=True)
    load.close()
watcher.terminate()
watcher.wait()
print(open("/tmp/said").read(), flush=True)
command = [sys.executable, "-m", "pydamon", "report", "modules", record]
print(subprocess.run(command, capture_output=True, text=True).stdout, flush=True)
print("killed", subprocess.run(["dmesg"], capture_output=True, text=True).stdout.count("Out of memory"), flush=True)
"""


def main() -> None:
    """Print, of each cycle, what the guest uses and what it has here."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--fill", type=int, default=256, metavar="MIB", help="anonymous memory (default: 256)")
    parser.add_argument("--idle", type=int, default=120, metavar="SECONDS", help="how long (default: 120)")
    parser.add_argument("--cycles", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--module", default="autoscale cold_min_age=15s quota=500ms/1s", help="(default: %(default)s)")
    parser.add_argument("--intervals", help="fixed, like 100ms/2s: to sample, and to aggregate (default: tuned)")
    options = parser.parse_args()
    sample, _, aggr = (options.intervals or "").partition("/")
    fixed = ["--sample", sample, "--aggr", aggr] if sample else []
    print(f"autoscale: {options.module}; intervals: {options.intervals or 'tuned'}")
    print(f"1 GiB, {options.fill} MiB filled, looked at after {options.idle} s")
    print(machine(), flush=True)
    words = [options.fill, options.idle, options.cycles, options.module, "/tmp/record", *fixed]
    held, shares = [], []
    with booted(LAB, [sys.executable, "-c", _GUEST, *words]) as guest:
        for cycle in range(options.cycles):
            guest.words("idle", "it was idle")
            before = guest.resident()
            line = guest.words("looked", "it was looked at")
            used, after = int(line[1]) * 1024, guest.resident()
            if line[2] != "None":
                raise SystemExit(f"evaluation: pydamon ended in the guest with exit status {line[2]}")
            loaded = guest.words("loaded", "it was loaded again")
            held.append(after <= 1.15 * used + 64 * MIB)
            cold = options.fill * 2 * MIB - options.fill * 3 * MIB // 8
            shares.append((before - after) / cold)
            print(f"cycle {cycle + 1}: Rss {before / MIB:.0f} MiB when it went idle,", end=" ")
            print(f"{after / MIB:.0f} MiB then, used {used / MIB:.0f} MiB, pydamon {int(line[3]) / 1024:.0f},", end=" ")
            print(f"free in pieces {int(line[4]) / 1024:.0f}; back {shares[-1]:.0%} of what was cold;", end=" ")
            print(f"under load {int(loaded[1]) / 1024:.0f} MiB, memory {'right' if loaded[2] == 'True' else 'WRONG'}")
            sys.stdout.flush()
        for line_of in guest.lines():
            print(f"  {line_of}" if not line_of.startswith("killed") else f"out of memory: {line_of}", end="")
    print(f"given back {spread([100 * share for share in shares], '%', 0)} of what was cold")
    print(f"Rss at most 1.15 x used + 64 MiB: {verdict(all(held))}, kept in {sum(held)} of {len(held)}")


if __name__ == "__main__":
    main()
