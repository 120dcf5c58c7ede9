"""What a sample costs in CPU time, beside another checkout of the project: the same recordings, in turns.

``python -m benchmarks older --older DIR``: needs root and the `bpf` primitive; DIR is a checkout (or worktree) of the
commit to compare with. Each row is a workload that both record; both run whole `pydamon record` processes at 5 ms and
100 ms, first the one, then the other, `--rounds` times. The cost is what the record's own account says between its
first and its last row (starting up and ending are not in it), divided by the number of samples in between. *pace* is
the mean interval between samples of the newer one, divided by what was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pydamon.records.joined import open_record

MIB = 1 << 20
SAMPLE_US, AGGR_US = 5_000, 100_000
PLACE = 0x6000_0000_0000  # where the swept memory lies in each process
HERE = Path(__file__).resolve().parents[1]

SWEEPER = """
import ctypes, sys, time
place, size, share, stripes = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), 16
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
READ_WRITE, PRIVATE_ANONYMOUS_FIXED, NOHUGEPAGE = 3, 0x100022, 15
assert libc.mmap(place, size, READ_WRITE, PRIVATE_ANONYMOUS_FIXED, -1, 0) == place
libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), NOHUGEPAGE)
view = memoryview((ctypes.c_char * size).from_address(place)).cast("B")
for at in range(0, size, 4096):
    view[at] = 1
print("ready", flush=True)
stripe = size // stripes
hot = int(stripe * share) & -4096
while True:
    for at in range(0, size if hot else 0, stripe):
        bytes(view[at : at + hot : 4096])
    time.sleep(0.002)
"""


RECORD = """
import json, sys, pydamon
from pydamon.spec import from_builtins
with pydamon.Monitor(from_builtins(json.loads(sys.argv[1])), duration=sys.argv[2]) as monitor:
    monitor.record(sys.argv[3])
"""


@dataclass(frozen=True)
class Row:
    """A workload and how it is recorded; ``sweepers`` processes of ``size`` bytes of which ``hot`` is swept.

    Recorded is that memory alone, if not ``whole``: then the interpreter and its libraries as well. No sweeper: the
    demo. ``regions``: exactly so many.
    """

    name: str
    aim: float
    sweepers: int = 1
    size: int = 256 * MIB
    hot: float = 0.1
    regions: int | None = None
    faithful: bool = True
    whole: bool = False


ROWS = (
    *(Row(f"{n} regions, {hot:.0%} hot", 0.35, hot=hot, regions=n) for n in (10, 130) for hot in (0, 0.1, 0.25)),
    *(Row(f"1000 regions, {hot:.0%} hot", aim, hot=hot, regions=1000) for hot, aim in ((0, 0.55), (0.25, 0.45))),
    Row("demo (stairs)", 0.35, sweepers=0, faithful=False),
    *(Row(f"{n} targets", aim, sweepers=n, size=16 * MIB) for n, aim in ((5, 1 / 6), (20, 1 / 8))),
    *(Row(f"{n} processes, whole", aim, sweepers=n, size=16 * MIB, whole=True) for n, aim in ((5, 1 / 6), (20, 1 / 8))),
    Row("130 regions, 10% hot, all on", 0.35, regions=130, faithful=False),
)


@contextmanager
def sweeping(row: Row) -> Iterator[list[int]]:
    """The row's processes, whose memory lies at PLACE; ended afterwards."""
    with ExitStack() as stack:
        found = []
        for _ in range(row.sweepers):
            command = [sys.executable, "-c", SWEEPER, str(PLACE), str(row.size), str(row.hot)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
            found.append(process.pid)
        yield found


def spec(row: Row, targets: list[int]) -> dict[str, Any]:
    """What both checkouts are to do, in words that both know."""
    memory = {} if row.whole else {"regions": [{"start": PLACE, "end": PLACE + row.size}]}
    context: dict[str, Any] = {
        "ops": "vaddr" if row.whole else "fvaddr",
        "primitive": "bpf",
        "faithful": row.faithful,
        "targets": [{"pid": pid, **memory} for pid in targets],
        "intervals": {"sample_us": SAMPLE_US, "aggr_us": AGGR_US},
    }
    if row.regions:
        context["nr_regions"] = {"min": row.regions, "max": row.regions}
    return {"kdamonds": [{"contexts": [context]}]}


def cost(checkout: Path, row: Row, targets: list[int], seconds: float) -> tuple[float, float]:
    """CPU time per sample in µs, and µs between samples, of one recording by the code in ``checkout``."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.damon"
        if targets:
            command = [sys.executable, "-c", RECORD, json.dumps(spec(row, targets)), f"{seconds}s", str(path)]
        else:
            workload = [sys.executable, "-m", "pydamon", "workload", "stairs", "--time-scale", str(seconds / 50)]
            command = [sys.executable, "-m", "pydamon", "record", "-o", str(path), "--sample", f"{SAMPLE_US}us"]
            command += ["--aggr", f"{AGGR_US}us", "--primitive", "bpf", "--", *workload]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        run = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(f"benchmarks: a recording failed (exit status {run.returncode}): {run.stderr.strip()}")
        return account(path)


def account(path: Path) -> tuple[float, float]:
    """What `cost` returns, from the record: the rows of its side table of costs, and its snapshots between them."""
    with open_record(str(path)) as reader:
        rows = [(row["time_ns"], row["cpu_ns"]) for row in reader.table_rows("cost")]
        ends = np.unique(np.concatenate([batch.end_ns for batch in reader.batches()]))
    (began_ns, before_ns), (ended_ns, after_ns) = rows[0], rows[-1]
    between = ends[(ends > began_ns) & (ends <= ended_ns)]
    each = AGGR_US // SAMPLE_US
    pace_us = int(between[-1] - between[0]) / 1000 / ((len(between) - 1) * each)
    return (after_ns - before_ns) / 1000 / (len(between) * each), pace_us


def main() -> None:
    """Print a line for each row: medians, and the median of the ratios of neighbours."""
    parser = argparse.ArgumentParser(prog="benchmarks older", description=__doc__)
    parser.add_argument("--older", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="recordings of each by each (default: 5)")
    parser.add_argument("--seconds", type=float, default=10, help="how long each lasts (default: 10)")
    parser.add_argument("--row", action="append", help="only rows whose name begins so; repeatable")
    arguments = parser.parse_args()
    if not (arguments.older / "src/pydamon").is_dir():
        raise SystemExit(f"benchmarks: --older {arguments.older}: no src/pydamon in it")
    print(f"older: CPU per sample at 5 ms, medians of {arguments.rounds} recordings of {arguments.seconds:g} s each")
    print(f"{'':<30} {'older':>9} {'this':>9} {'ratio':>6} {'aim':>6} {'pace':>6}")
    for row in ROWS:
        if arguments.row and not row.name.startswith(tuple(arguments.row)):
            continue
        older, this, pace = [], [], []
        with sweeping(row) as targets:
            for _ in range(arguments.rounds):
                older.append(cost(arguments.older.resolve(), row, targets, arguments.seconds)[0])
                found, interval = cost(HERE, row, targets, arguments.seconds)
                this.append(found)
                pace.append(interval / SAMPLE_US)
        ratio = statistics.median(new / old for old, new in zip(older, this, strict=True))
        middle = [statistics.median(each) for each in (older, this, pace)]
        print(
            f"{row.name:<30} {middle[0]:>6.0f} us {middle[1]:>6.0f} us {ratio:>6.2f} {row.aim:>6.2f} {middle[2]:>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
