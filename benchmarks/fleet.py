"""What a simulated fleet of 1,000 hosts, 50 cgroups on each, takes on a day: to write, to compact, to ask.

Cold memory by age and service is asked of minutes and of roll-ups, and held against the truth of the simulation; then a
task of much CPU time by one and by two workers of Dask. Each question in a process of its own, for its memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from pydamon.fleet.asking import Data
from pydamon.fleet.compact import compact
from pydamon.fleet.engine import Means
from pydamon.fleet.measures import MEASURES
from pydamon.fleet.query import Query
from pydamon.fleet.questions.memory import cold
from pydamon.fleet.simulated.hosts import Fleet
from pydamon.fleet.simulated.write import TRUTH, simulate

AIM_WRITE_S, AIM_RAW_S, AIM_HOURS_S, AIM_RATIO, AIM_BYTES = 300, 30, 2, 1.5, 1 << 30
_FIRST = 1_795_564_800 // 86_400 * 86_400  # a midnight in November 2026
_HEAVY = Query(("host", "cgroup"), tuple(MEASURES))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--cgroups", type=int, default=50)
    parser.add_argument("--minutes", type=int, default=1440)
    parser.add_argument("--directory", help="where 7 GB fit twice")
    parser.add_argument("--data", help="a compacted fleet of `fleet simulate`, to be asked only")
    parser.add_argument("--no-dask", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        root = Path(options.data or Path(directory) / "fleet")
        if options.data is None:
            _made(root, Fleet(options.hosts, options.cgroups, options.minutes, _FIRST, 7))
        _questions(root)
        if not options.no_dask:
            _workers(str(root))


def _made(root: Path, fleet: Fleet) -> None:
    began, before = time.monotonic(), _cpu_s()
    done = simulate(root, fleet, pieces=2)
    took = time.monotonic() - began
    print(f"\n== {done.rows:,} rows of {fleet.hosts:,} hosts; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print(f"written    {took:7.1f} s {_cpu_s() - before:7.1f} s CPU  (aim {AIM_WRITE_S} s)  {_size(done.bytes)}")
    began, before = time.monotonic(), _cpu_s()
    found = compact(str(root))
    took = time.monotonic() - began
    about = f"{found.files_before} files became {found.files_after}"
    print(f"compacted  {took:7.1f} s {_cpu_s() - before:7.1f} s CPU  {about}; {_size(_children())} a process at most")
    for table in ("minutes", "hours"):
        size = sum(path.stat().st_size for path in (root / table).rglob("*.parquet"))
        print(f"{table:10} {_size(size)}, {size / done.rows:.1f} bytes a row of minutes")


def _questions(root: Path) -> None:
    truth = json.loads((root / TRUTH).read_text())
    for name, raw, aim in (("minutes", True, AIM_RAW_S), ("roll-ups", False, AIM_HOURS_S)):
        told = _apart(_cold, str(root), raw)
        worst = _worst(told["rows"], truth)
        line = f"{told['took']:7.1f} s {told['cpu']:7.1f} s CPU  (aim {aim} s)  {_size(told['scanned'])} read"
        print(f"{name:10} {line}; memory {_size(told['memory'])} (aim {_size(AIM_BYTES)}); off the truth {worst:.4%}")


def _cold(path: str, raw: bool) -> dict[str, Any]:
    began = time.monotonic()
    rows, found = cold(Data(path, raw))
    took = time.monotonic() - began
    return {"took": took, "rows": {row.name: row.cold for row in rows}, "scanned": found.bytes_scanned}


def _worst(rows: dict[str, dict[int, float]], truth: dict[str, Any]) -> float:
    """The largest relative error of all services and ages."""
    return max(
        abs(size / truth["services"][name]["cold_bytes"][str(age)] - 1)
        for name, sizes in rows.items() for age, size in sizes.items()
    )  # fmt: skip


def _workers(path: str) -> None:
    """All measures of each cgroup, from minutes."""
    took = {}
    answers = []
    for workers in (1, 2):
        told = _apart(_heavy, path, workers)
        took[workers] = told["took"]
        answers.append(told["rows"])
        print(f"{workers} of Dask  {told['took']:7.1f} s  load {os.getloadavg()[0]:.1f}; {told['rows'][0]:,} groups")
    ratio = took[1] / took[2]
    print(f"two workers are {ratio:.2f} × as fast as one (aim {AIM_RATIO}); same answers: {answers[0] == answers[1]}")


def _heavy(path: str, workers: int) -> dict[str, Any]:
    from pydamon.fleet import cluster, inventory
    from pydamon.fleet.where import Where

    columns = {"minutes": _HEAVY.columns("minutes"), "hours": _HEAVY.columns("hours")}
    stock = inventory.inventory(Path(path), Where(), columns, roll_ups=False)
    # Without the time that it takes to start the workers.
    with cluster.client_of(workers, None) as client:
        client.wait_for_workers(workers)
        began = time.monotonic()
        table, _ = cluster.ask_client(client, stock.jobs, _HEAVY, Means(threads=1), shared=True)
        took = time.monotonic() - began
    order = [(name, "ascending") for name in _HEAVY.keys]
    return {"took": took, "rows": (table.num_rows, hash(str(table.sort_by(order).to_pylist())))}


def _apart(work: Any, *given: Any) -> dict[str, Any]:
    """What the work gives in a process of its own, with its memory and CPU time."""
    ours, theirs = multiprocessing.Pipe(False)
    child = multiprocessing.get_context("fork").Process(target=_there, args=(theirs, work, given))
    child.start()
    theirs.close()  # so that its end is seen, however it ends
    told: dict[str, Any] = ours.recv()
    child.join()
    return told


def _there(pipe: Any, work: Any, given: tuple[Any, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    told = work(*given)
    after = resource.getrusage(resource.RUSAGE_SELF)
    told["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told["memory"] = after.ru_maxrss * 1024
    pipe.send(told)


def _cpu_s() -> float:
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _children() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
