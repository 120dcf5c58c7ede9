"""Reported accesses: how many a second the report path, the parser and the whole engine take (wanted: 5 million)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.real import opened
from pydamon.core.clock import VirtualClock
from pydamon.engines.base import Engine
from pydamon.ops.reported.ops import ReportedOps
from pydamon.ops.reported.reports import AccessReports
from pydamon.ops.reported.sources.base import Source
from pydamon.ops.reported.sources.perf_script import open_script
from pydamon.ops.reported.sources.valgrind import launch, open_trace
from pydamon.spec import Context, Intervals, Kdamond, Spec, Target

MIB = 1 << 20
WANTED = 5e6
REGIONS = 1000


def make_spec(sample_us: int, aggr_us: int) -> Spec:
    intervals = Intervals(sample_us=sample_us, aggr_us=aggr_us)
    context = Context(ops="reported", targets=(Target(),), intervals=intervals)
    return Spec(kdamonds=(Kdamond(contexts=(context,)),))


def reading(spec: Spec, source: Source) -> Engine:
    """The engine that reads ``source``."""
    return opened(spec, source=source, seed=0)


def rate(what: str, accesses: int, work: Callable[[], object]) -> None:
    """Run ``work``, which handles that many accesses, and print how fast it was."""
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    verdict = "" if accesses / elapsed >= WANTED else "  (below 5 M/s)"
    print(f"  {what:<52} {accesses / elapsed / 1e6:8.2f} M accesses/s {cpu / accesses * 1e9:7.0f} ns each{verdict}")


def report_path(addresses: np.ndarray, block: int, what: str) -> None:
    """Report in blocks, and check 1000 regions once per 250,000 accesses (5 ms at 50 million a second)."""
    clock = VirtualClock()
    reports = AccessReports(now_ns=clock.now_ns)
    ops = ReportedOps(reports, clock, complete=True)
    low, high = int(addresses.min()) & ~4095, (int(addresses.max()) | 4095) + 1
    cuts = np.linspace(low >> 12, high >> 12, REGIONS + 1).astype(np.uint64) << np.uint64(12)

    def work() -> None:
        ops.prepare_access_checks(0, cuts[:-1], cuts[1:])
        done = 0
        for at in range(0, len(addresses), block):
            reports.report_accesses(0, addresses[at : at + block], 8)
            done += block
            if done >= 250_000:
                done = 0
                clock.sleep_ns(1)
                ops.check_accesses(0)
                ops.prepare_access_checks(0, cuts[:-1], cuts[1:])

    rate(what, len(addresses), work)


def one_by_one(count: int) -> None:
    """The call for single accesses."""
    reports = AccessReports()

    def work() -> None:
        for i in range(count):
            reports.report_access(0, 0x10000 + i, 8)
        reports.take()

    rate("report_access, one by one", count, work)


def write_trace(path: Path, lines: int) -> None:
    """What lackey prints of a loop over 64 MiB with a stack: three fetches per data access."""
    rng = np.random.default_rng(1)
    with path.open("w") as file:
        for at in range(0, lines, 40_000):
            data = 0x5000000 + ((at + np.arange(10_000)) * 64) % (64 * MIB)
            stack = 0x1FFEFFF000 - rng.integers(0, 8192, 10_000)
            for i, (heap, top) in enumerate(zip(data.tolist(), stack.tolist(), strict=True)):
                one = f" L {heap:08x},8\n" if i % 2 else f" S {top:08x},8\n"
                file.write(f"I  {0x401000 + i % 64 * 4:08x},4\nI  00401200,3\nI  00401203,5\n{one}")


def write_samples(path: Path, lines: int) -> None:
    """What perf script prints of 10,000 samples a second."""
    addresses = np.random.default_rng(1).integers(0x7F0000000000, 0x7F0004000000, lines).tolist()
    with path.open("w") as file:
        for i, address in enumerate(addresses):
            when = 100 + i / 10_000
            file.write(f" prog 7/7 [000] {when:.6f}: mem-loads: {address:x} 68100142 |OP LOAD|LVL L1 hit|LCK No 7\n")


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    count = 10_000_000
    print("Reported accesses (1000 regions):")
    loop = (0x5000000 + (np.arange(count) * 64) % (64 * MIB)).astype(np.uint64)
    report_path(loop, 50_000, "report + check, a loop over 64 MiB")
    report_path(rng.integers(0x5000000, 0x5000000 + 64 * MIB, count).astype(np.uint64), 50_000, "… random in 64 MiB")
    report_path(rng.integers(1 << 32, (1 << 32) + (4 << 30), count).astype(np.uint64), 50_000, "… random in 4 GiB")
    report_path(loop[:2_000_000], 500, "… a loop, in blocks of 500")
    one_by_one(300_000)
    with tempfile.TemporaryDirectory() as folder:
        trace, script, lines = Path(folder, "trace"), Path(folder, "script"), 8_000_000
        write_trace(trace, lines)
        source = open_trace(str(trace))

        def parse() -> None:
            while source.read() is not None:
                pass

        rate(f"lackey's trace: parse ({trace.stat().st_size / lines:.0f} bytes a line)", lines, parse)
        for sample_us, aggr_us in ((5000, 100_000), (50, 1000)):
            engine = reading(make_spec(sample_us, aggr_us), open_trace(str(trace)))
            what = f"lackey's trace: record, sampling every {sample_us * 1000:,} instructions"
            rate(what, lines, lambda engine=engine: list(engine.monitor()))  # type: ignore[misc]
        lines = 300_000
        write_samples(script, lines)
        engine = reading(make_spec(50_000, 1_000_000), open_script(str(script)))
        rate("perf script: record, sampling every 50 ms", lines, lambda: list(engine.monitor()))
    if shutil.which("valgrind"):
        live = launch([sys.executable, "-c", "sum(range(300000))"])
        engine = reading(make_spec(50, 1000), live)
        began, user_began = time.perf_counter(), time.process_time()
        list(engine.monitor())
        elapsed = time.perf_counter() - began
        busy = (time.process_time() - user_began) / elapsed
        assert engine.reports is not None
        made = engine.reports.reported / elapsed / 1e6
        print(f"  live: valgrind made {made:.2f} M accesses/s on {os.cpu_count()} CPUs; we were busy {busy:.0%} of it")
