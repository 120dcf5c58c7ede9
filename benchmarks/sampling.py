"""CPU per sample of the sampler and of the primitive it replaces, on the same target, interleaved.

`python -m benchmarks.sampling [--samples N] [--rounds N]`: needs root and the `bpf` primitive. A child sweeps a share
of its 256 MiB every 2 ms. One row per number of regions and hot share: medians of the rounds, in µs of this process's
CPU per sample of 5 ms, sleeping and clearing included, and their ratio. Compare columns; the absolute figures depend on
what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

from pydamon.linux.process import Process
from pydamon.primitives.base import ACCESSED
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_sampler import BpfSampler
from pydamon.primitives.bpf_sampler_loaded import Watched

_SIZE = 256 << 20
_PAGE = 4096
_SAMPLE = 0.005
_REPLACEMENTS = 2  # as in the operations set

_CHILD = """
import ctypes, mmap, sys, time
size, share = int(sys.argv[1]), float(sys.argv[2])
area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, size, 4096):
    area[at] = 1
view = memoryview(area)
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
hot = int(size * share)
while True:
    if hot:
        bytes(view[:hot:4096])
    time.sleep(0.002)
"""


class _Pace:
    """Sleeps to the next multiple of the interval, but half of it at least (as `Kdamond` does)."""

    def __init__(self) -> None:
        self._due = time.perf_counter()

    def sleep(self) -> bool:
        now = time.perf_counter()
        self._due = min(max(self._due + _SAMPLE, now + _SAMPLE / 2), now + _SAMPLE)
        time.sleep(self._due - now)
        return True


def _old(primitive: BpfPrimitive, edges: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    start, pages = edges[:-1], (edges[1:] - edges[:-1]) // np.uint64(_PAGE)
    counts, pace = np.zeros(len(start), np.int64), _Pace()

    def draw(index: np.ndarray) -> np.ndarray:
        picked = (rng.random(len(index)) * pages[index]).astype(np.uint64)
        return start[index] + picked * np.uint64(_PAGE)

    for _ in range(samples):
        usable = primitive.prepare(draw(np.arange(len(start))))
        for _ in range(_REPLACEMENTS):
            if usable.all():
                break
            index = np.flatnonzero(~usable)
            usable[index] = primitive.replace(index, draw(index))
        pace.sleep()
        counts += primitive.check() == ACCESSED
    return counts


def _new(sampler: BpfSampler, primitive: BpfPrimitive, edges: np.ndarray, samples: int) -> np.ndarray:
    counts, pace = np.zeros(len(edges) - 1, np.int64), _Pace()
    while samples > 0:
        batch = min(samples, 20)
        sampler.load([Watched(primitive, edges[:-1], edges[1:])])
        sampler.sample(batch, pace.sleep)
        counts += sampler.accessed(0)
        samples -= batch
    return counts


def _measure(regions: int, share: float, samples: int, rounds: int) -> str:
    command = [sys.executable, "-c", _CHILD, str(_SIZE), str(share)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            at, process = int(child.stdout.readline()), Process(child.pid)
            walk = PageTableWalk()
            primitive, sampler = BpfPrimitive(process, walk), BpfSampler(walk, 1)
            primitive.begin()
            edges = np.uint64(at) + np.linspace(0, _SIZE // _PAGE, regions + 1).astype(np.uint64) * np.uint64(_PAGE)
            rng = np.random.default_rng(1)
            cost: dict[str, list[float]] = {"old": [], "new": []}
            found = {}
            for _ in range(rounds):
                for name in ("old", "new"):
                    began = time.process_time()
                    if name == "old":
                        found[name] = _old(primitive, edges, samples, rng)
                    else:
                        found[name] = _new(sampler, primitive, edges, samples)
                    cost[name].append((time.process_time() - began) / samples * 1e6)
            old, new = (statistics.median(cost[name]) for name in ("old", "new"))
            seen = " ".join(f"{found[name].mean() / samples:.3f}" for name in ("old", "new"))
            return f"{regions:5} {share:5.0%} {old:8.0f} {new:8.0f} {new / old:6.2f}   accessed {seen}"
        finally:
            child.kill()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("regions   hot      old      new  ratio")
    for regions in (10, 130, 1000):
        for share in (0, 0.1, 0.25):
            print(_measure(regions, share, options.samples, options.rounds), flush=True)


if __name__ == "__main__":
    main()
