"""A client that asks redis or memcached for keys by a zipf law, without pause, and counts what was answered.

``python -m benchmarks.evaluation.zipf COUNTERS redis|memcached SOCKET KEYS BYTES`` stores so many keys of so many
bytes, prints ``ready``, and then asks; in the file COUNTERS it keeps two integers: answers, and its own CPU time in ns.
The key of rank k is asked for in proportion to k ** -0.99 (the constant of YCSB); which keys are hot is shuffled.
"""

from __future__ import annotations

import mmap
import socket
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

EXPONENT = 0.99
AT_ONCE = 50


class Zipf:
    """Draws of ranks, from 0: the n-th is drawn in proportion to n ** -exponent; exact, by the inverse distribution."""

    def __init__(self, things: int, rng: np.random.Generator, exponent: float) -> None:
        self._rng = rng
        self._edges = np.cumsum(np.arange(1.0, things + 1) ** -exponent)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Ranks of so many draws."""
        drawn = self._rng.random(count) * self._edges[-1]
        return np.searchsorted(self._edges, drawn, side="right").astype(np.int64)


def redis_words(*words: bytes) -> bytes:
    """A request in redis's protocol (RESP)."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _redis_set(key: int, value: bytes) -> bytes:
    return redis_words(b"SET", b"%d" % key, value)


def _redis_get(key: int) -> bytes:
    return redis_words(b"GET", b"%d" % key)


def _redis_answer(stream: BinaryIO) -> None:
    stream.read(int(stream.readline()[1:]) + 2)


def _memcached_set(key: int, value: bytes) -> bytes:
    return b"set %d 0 0 %d\r\n%s\r\n" % (key, len(value), value)


def _memcached_get(key: int) -> bytes:
    return b"get %d\r\n" % key


def _memcached_answer(stream: BinaryIO) -> None:
    head = stream.readline()
    if not head.startswith(b"VALUE "):
        raise SystemExit(f"zipf: memcached has lost a key: {head!r}")
    stream.read(int(head.split()[3]) + len("\r\nEND\r\n"))


PROTOCOLS: dict[str, tuple[Callable[[int, bytes], bytes], Callable[[int], bytes], Callable[[BinaryIO], None]]] = {
    "redis": (_redis_set, _redis_get, _redis_answer),
    "memcached": (_memcached_set, _memcached_get, _memcached_answer),
}


def ask(path: str, kind: str, where: str, keys: int, size: int) -> None:
    """Store and ask, for ever."""
    with open(path, "r+b") as file:
        counters = np.frombuffer(mmap.mmap(file.fileno(), 4096), np.int64, 2)
    store, get, answer = PROTOCOLS[kind]
    rng = np.random.default_rng(1)
    zipf, order = Zipf(keys, rng, EXPONENT), rng.permutation(keys)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(where)
        stream = server.makefile("rb")
        for first in range(0, keys, AT_ONCE):
            some = range(first, min(first + AT_ONCE, keys))
            server.sendall(b"".join(store(key, b"x" * size) for key in some))
            for _ in some:
                stream.readline()
        print("ready", flush=True)
        while True:
            for asked in order[zipf.draw(200 * AT_ONCE)].reshape(-1, AT_ONCE).tolist():
                server.sendall(b"".join(map(get, asked)))
                for _ in asked:
                    answer(stream)
                counters[0] += len(asked)
                counters[1] = time.process_time_ns()


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
