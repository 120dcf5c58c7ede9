"""Ten kernels of ours with the access patterns of the field's suites, for want of those suites themselves.

Each is a generator made of a size in bytes and a random generator: it yields None after a bounded piece of work, and
its result where it has one (tests hold those against a second way of computing the same), and begins again, for ever.
``python -m benchmarks.evaluation.kernels COUNTERS NAME MIB`` plays one: it prints ``ready`` once its memory is set up,
and keeps four integers in the file COUNTERS: pieces done, and its own CPU time in ns; rounds done, and the CPU time at
the end of the last one. The pieces of a round may differ by far (`lu` ends with next to no work), rounds do not.

| kernel | pattern of | what it does to memory |
|---|---|---|
| `fft` | fft, SPLASH | sweeps of all data with strides that halve at each stage |
| `lu` | lu, SPLASH | the part that is worked on shrinks to nothing, then all again |
| `stencil` | ocean, SPLASH | two grids swept densely, in turns |
| `radix` | radix, SPLASH | one array read in order, another written in 256 places at once |
| `mining` | freqmine, PARSEC | walks up to the root of a prefix tree: few hot nodes, many that are touched once |
| `graph` | random graphs | edges read in order, vertices gathered by a power law |
| `boosting` | gradient boosting | columns of features read by ever fewer rows, all again for the next tree |
| `aggregation` | hash aggregation | a table hit at random places, some far more often |
| `clustering` | streamcluster, PARSEC | all points read in order, again and again |
| `pricing` | swaptions, PARSEC | a small array used hard, beside a large one of which little is read |
"""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

MIB = 1 << 20
BLOCK = 1 << 16
Random = np.random.Generator
Pieces = Iterator["NDArray[np.generic] | None"]


def fft(size: int, rng: Random) -> Pieces:
    """Decimation in frequency, in place; the result is in bit-reversed order (`bit_reversed`)."""
    data = np.empty(1 << ((size // 16).bit_length() - 1), np.complex128)
    start = rng.standard_normal(min(len(data), BLOCK))
    while True:
        for at in range(0, len(data), BLOCK):
            data[at : at + BLOCK] = start[: len(data) - at]
        half, done = len(data) // 2, 0
        while half:
            turns = np.exp(-1j * np.pi / half * np.arange(min(half, BLOCK)))
            pairs = data.reshape(-1, 2, half)
            step = max(BLOCK // half, 1)
            for first in range(0, len(pairs), step):
                for at in range(0, half, BLOCK):
                    upper, lower = pairs[first : first + step, :, at : at + BLOCK].transpose(1, 0, 2)
                    factor = turns if at == 0 else turns * np.exp(-1j * np.pi * at / half)
                    difference = (upper - lower) * factor
                    upper += lower
                    lower[:] = difference
                    done += upper.size
                    if done >= 8 * BLOCK:
                        done = 0
                        yield None
            half //= 2
        yield data


def bit_reversed(count: int) -> NDArray[np.int64]:
    """Where each of ``count`` (a power of two) results of `fft` lies."""
    found = np.zeros(1, np.int64)
    while len(found) < count:
        found = np.concatenate([2 * found, 2 * found + 1])
    return found


def lu(size: int, rng: Random) -> Pieces:
    """Factors of a matrix with a heavy diagonal, blocked, right-looking, without pivots; both in one matrix."""
    width = 128
    n = max(int((size / 8) ** 0.5) // width, 1) * width
    matrix = np.empty((n, n))
    while True:
        first = rng.random((width, n))
        for at in range(0, n, width):
            matrix[at : at + width] = np.roll(first, at, axis=1)
        matrix[np.arange(n), np.arange(n)] += n
        yield None
        for at in range(0, n, width):
            end = at + width
            panel = matrix[at:, at:end].copy()
            for k in range(width):
                panel[k + 1 :, k] /= panel[k, k]
                panel[k + 1 :, k + 1 :] -= np.outer(panel[k + 1 :, k], panel[k, k + 1 :])
            matrix[at:, at:end] = panel
            yield None
            lower = np.tril(panel[:width], -1) + np.eye(width)
            matrix[at:end, end:] = np.linalg.solve(lower, matrix[at:end, end:])
            for row in range(end, n, width):
                matrix[row : row + width, end:] -= matrix[row : row + width, at:end] @ matrix[at:end, end:]
                yield None  # in the lab, where all is emulated, this takes a second
        yield matrix


def stencil(size: int, rng: Random) -> Pieces:
    """Each inner point becomes the mean of its four neighbours; the result is the grid written last."""
    n = max(int((size / 16) ** 0.5), 3)
    grids = np.zeros((2, n, n))
    grids[:, 0] = grids[:, -1] = rng.random(n)
    rows = max(BLOCK // n, 1)
    turn = 0
    while True:
        old, new = grids[turn], grids[1 - turn]
        for at in range(1, n - 1, rows):
            end = min(at + rows, n - 1)
            out = new[at:end, 1:-1]
            np.add(old[at - 1 : end - 1, 1:-1], old[at + 1 : end + 1, 1:-1], out=out)
            out += old[at:end, :-2]
            out += old[at:end, 2:]
            out *= 0.25
        turn = 1 - turn
        yield new


def radix(size: int, rng: Random) -> Pieces:
    """Keys of 32 bits, sorted by a byte at a time, the lowest first."""
    count = max(size // 8, 1)
    keys, other = np.empty(count, np.uint32), np.zeros(count, np.uint32)
    while True:
        for at in range(0, count, BLOCK):
            keys[at : at + BLOCK] = rng.integers(0, 1 << 32, min(BLOCK, count - at), np.uint32)
        for shift in (0, 8, 16, 24):
            counts = np.zeros(256, np.int64)
            for at in range(0, count, BLOCK):
                counts += np.bincount((keys[at : at + BLOCK] >> np.uint32(shift)) & 255, minlength=256)
            free = np.cumsum(counts) - counts
            for at in range(0, count, BLOCK):
                chunk = keys[at : at + BLOCK]
                digits = (chunk >> np.uint32(shift)) & 255
                here = np.bincount(digits, minlength=256)
                order = np.argsort(digits, kind="stable")
                places = np.repeat(free - np.cumsum(here) + here, here) + np.arange(len(chunk))
                other[places] = chunk[order]
                free += here
                if at % (16 * BLOCK) == 0:
                    yield None
            keys, other = other, keys
        yield keys


def mining(size: int, rng: Random) -> Pieces:
    """A prefix tree, a cache line to a node (parent, item, -, visits): from each node of an item up to the root.

    Parents are drawn so that nodes made early have most children; the result is the visits after each item.
    """
    count, items = max(size // 64, 2), 200
    nodes = np.zeros((count, 8), np.int64)
    for at in range(1, count, BLOCK):
        own = np.arange(at, min(at + BLOCK, count))
        nodes[own, 0] = (own * rng.random(len(own)) ** 4).astype(np.int64)
        nodes[own, 1] = rng.integers(0, items, len(own))
    while True:
        for item in range(items):
            for at in range(0, count, 16 * BLOCK):
                walk = at + np.flatnonzero(nodes[at : at + 16 * BLOCK, 1] == item)
                walk = walk[walk > 0]
                while len(walk):
                    walk = nodes[walk, 0]
                    np.add.at(nodes[:, 3], walk, 1)
                    walk = walk[walk > 0]
                yield None
            yield nodes[:, [0, 1, 3]]


def graph(size: int, rng: Random) -> Pieces:
    """Turns of PageRank (damping 0.85) on a graph with 16 edges into each vertex; the result is the ranks."""
    degree = 16
    count = max(size // (degree * 4 + 16), 1)
    sources = np.empty((count, degree), np.uint32)
    out = np.zeros(count, np.int64)
    step = BLOCK // degree
    for at in range(0, count, step):
        drawn = (count * rng.random((min(step, count - at), degree)) ** 3).astype(np.uint32)
        sources[at : at + step] = drawn
        out += np.bincount(drawn.ravel(), minlength=count)
    rank = np.full(count, 1 / count)
    while True:
        share = rank / np.maximum(out, 1)
        for at in range(0, count, step):
            rank[at : at + step] = 0.15 / count + 0.85 * share[sources[at : at + step]].sum(axis=1)
            if at % (16 * step) == 0:
                yield None
        yield rank


def boosting(size: int, rng: Random) -> Pieces:
    """Sums of gradients by value of each feature, for nodes of a tree with half as many rows each; six nodes deep."""
    features = 28
    rows = max(size // (features + 4), 64)
    values = np.empty((features, rows), np.uint8)
    gradients = np.empty(rows, np.float32)
    for at in range(0, rows, BLOCK):
        end = min(at + BLOCK, rows)
        values[:, at:end] = rng.integers(0, 256, (features, end - at), np.uint8)
        gradients[at:end] = rng.standard_normal(end - at)
    while True:
        chosen = np.arange(rows)
        for _ in range(6):
            sums = np.zeros((features, 256))
            for feature in range(features):
                for at in range(0, len(chosen), 16 * BLOCK):
                    of = chosen[at : at + 16 * BLOCK]
                    sums[feature] += np.bincount(values[feature, of], gradients[of], minlength=256)
                    yield None
            yield sums
            chosen = chosen[rng.random(len(chosen)) < 0.5]


def aggregation(size: int, rng: Random) -> Pieces:
    """Sums by key in a table of 16 bytes a slot, whose hash maps each key to a slot of its own (`slot_of`).

    Keys are drawn by a power law; the result is the table of (key, sum).
    """
    bits = max(size // 16, 2).bit_length() - 1
    table = np.zeros((1 << bits, 2), np.int64)
    while True:
        for _ in range(64):
            keys = ((1 << bits) * rng.random(BLOCK) ** 8).astype(np.int64)
            slots = slot_of(keys, bits)
            table[slots, 0] = keys
            np.add.at(table[:, 1], slots, 1)
            yield None
        yield table


def slot_of(keys: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Multiplication by an odd number, which no two keys below 2 ** bits share a result of."""
    return (keys * 2654435761) & ((1 << bits) - 1)


def clustering(size: int, rng: Random) -> Pieces:
    """Lloyd's turns over points of 32 floats with 16 centres; the result is the centres, and their cost last."""
    width, centres = 32, 16
    count = max(size // (4 * width), centres)
    points = np.empty((count, width), np.float32)
    step = BLOCK // width
    for at in range(0, count, step):
        points[at : at + step] = rng.random((min(step, count - at), width), np.float32)
    means = points[:centres].astype(np.float64)
    while True:
        sums, members, cost = np.zeros_like(means), np.zeros(centres), 0.0
        for at in range(0, count, step):
            some = points[at : at + step].astype(np.float64)
            far = (some**2).sum(axis=1)[:, None] - 2 * some @ means.T + (means**2).sum(axis=1)
            nearest = far.argmin(axis=1)
            cost += float(far.min(axis=1).sum())
            member = nearest == np.arange(centres)[:, None]
            sums += member.astype(np.float64) @ some
            members += member.sum(axis=1)
            if at % (16 * step) == 0:
                yield None
        yield np.column_stack([means, np.full(centres, cost)])
        means = sums / np.maximum(members, 1)[:, None]


def pricing(size: int, rng: Random) -> Pieces:
    """Prices of calls by simulated paths (100 now, to be bought for 100 in a year, 20 % volatility, 5 % interest).

    The contracts, a page to each, are what is large, and read one after the other; the result is a price and its
    standard error.
    """
    contracts = np.zeros((max(size // 4096, 1), 512))
    contracts[:, 0] = 100
    while True:
        for contract in contracts:
            ends = contract[0] * np.exp(0.05 - 0.02 + 0.2 * rng.standard_normal(BLOCK))
            worth = np.exp(-0.05) * np.maximum(ends - 100, 0)
            yield None
            yield np.array([worth.mean(), worth.std() / len(worth) ** 0.5])


KERNELS: dict[str, Callable[[int, Random], Pieces]] = {
    kernel.__name__: kernel
    for kernel in (fft, lu, stencil, radix, mining, graph, boosting, aggregation, clustering, pricing)
}


_RESULTS_A_ROUND = {"boosting": 6, "pricing": 64}  # a tree; others: 1


def play(path: str, name: str, mib: int) -> None:
    """Play a kernel for ever, the same way each time."""
    with open(path, "r+b") as file:
        counters = np.frombuffer(mmap.mmap(file.fileno(), 4096), np.int64, 4)
    pieces = KERNELS[name](mib * MIB, np.random.default_rng(1))
    next(pieces)
    print("ready", flush=True)
    results, a_round = 0, _RESULTS_A_ROUND.get(name, 1)
    for result in pieces:
        counters[0] += 1
        counters[1] = time.process_time_ns()
        results += result is not None
        if result is not None and results % a_round == 0:
            counters[3] = counters[1]
            counters[2] += 1


if __name__ == "__main__":
    play(sys.argv[1], sys.argv[2], int(sys.argv[3]))
