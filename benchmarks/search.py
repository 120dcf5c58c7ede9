"""What searching three knobs on a recording of an hour takes: screening them, and, apart, playing the best few again.

The recording is made by the simulator (1 s aggregations, 200 regions, a page panel) unless one is given.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from pydamon.cli import main as pydamon
from pydamon.library.search import Found, search
from pydamon.records.joined import open_record

AIM_S = 60
_WORKLOAD = """#regions
hot, 64 MiB
six, 48 MiB
minute, 96 MiB
four, 64 MiB
rare, 64 MiB
cold, 96 MiB

day
{}
hot, 0, 4096, 49997300
six, 0, 4096, 2048
minute, 0, 4096, 501
four, 0, 4096, 68
rare, 1, 4096, 160
"""
TEXT = "reclaim min_age=5s..5min quota=1M..1G/1s..1min"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks search", description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--search", default=TEXT)
    parser.add_argument("--limit", default="slowdown=2%")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = options.record or made(Path(directory), options.seconds)
        before = _cpu_s()
        with open_record(str(path)) as reader:
            print(f"\n== search of {options.search!r} on a recording of {reader.rows:,} rows")
            began = time.monotonic()
            found = search(reader, options.search, (options.limit,))
        report(found, time.monotonic() - began, _cpu_s() - before)


def made(directory: Path, seconds: int) -> Path:
    """A recording of patterns that are used always, swept every 6 s, 49 s and 4 min, accessed at random, and never."""
    text, path = directory / "mix.masim", directory / "mix.damon"
    text.write_text(_WORKLOAD.format(seconds * 1000))
    times = ["--sample", "100ms", "--aggr", "1s", "--max-regions", "200"]
    assert pydamon(["record", "--ops", "sim", "--workload", str(text), "-o", str(path), *times]) == 0
    return path


def report(found: Found, elapsed_s: float, cpu_s: float) -> None:
    """Print the times, and what was found."""
    played = len(found.verified) + (found.usual is not None)
    print(f"screening    {found.screened:6,} settings  {found.screening_s:6.1f} s  (aim {AIM_S} s on two cores)")
    print(f"verification {played:6,} plays     {found.playing_s:6.1f} s")
    print(f"all of it    {elapsed_s:6.1f} s, {cpu_s:6.1f} s of CPU time")
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    sizes = [resource.getrusage(kind).ru_maxrss / 1024 for kind in kinds]
    print(f"memory at most {sizes[0]:.0f} MB, of each process that plays {sizes[1]:.0f} MB")
    best = found.nearest
    print(f"{best.candidate.text}: foretold {best.candidate.foretold.tuned}, played {best.tuned}, rest {best.rest}")


def _cpu_s() -> float:
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
