"""A client of redis: ``python -m benchmarks.evaluation.zipf_client SOCKET load|use KEYS [PER_SECOND [SEED]]``.

``load`` sets so many keys to 4,000 bytes each, which is a page with redis's head. ``use`` asks for the first bytes of
keys for ever, by Zipf's law with exponent 1: the n-th key n times more seldom than the first one. It prints the
requests per second that it got through, every ten seconds.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.zipf import Zipf, redis_words

_VALUE = 4000
_BATCH = 8
_SAID_EVERY_S = 10.0


def ask(connection: socket.socket, requests: Sequence[bytes], answer_bytes: int) -> None:
    """Send them all, and wait for their answers, each of which has so many bytes."""
    connection.sendall(b"".join(requests))
    left = answer_bytes * len(requests)
    while left > 0:
        got = connection.recv(min(left, 1 << 16))
        if not got:
            raise SystemExit("zipf_client: redis has closed the connection")
        left -= len(got)


def load(connection: socket.socket, keys: int) -> None:
    """Set ``keys`` keys; of each value one half compresses."""
    for first in range(0, keys, _BATCH):
        batch = range(first, min(first + _BATCH, keys))
        values = [os.urandom(_VALUE // 2) + bytes(_VALUE // 2) for _ in batch]
        ask(connection, [redis_words(b"SET", b"%08d" % at, value) for at, value in zip(batch, values, strict=True)], 5)


def at_rate(use: Callable[[NDArray[np.int64]], object], things: int, per_second: int, seed: int) -> None:
    """Use things, numbered from 0 on, for ever, at most so often, by Zipf's law; what is late is not made up for."""
    zipf = Zipf(things, np.random.default_rng(seed), 1)
    due = said = time.monotonic()
    done = 0
    while True:
        use(zipf.draw(_BATCH))
        done += _BATCH
        now = time.monotonic()
        if now - said >= _SAID_EVERY_S:
            print(f"{done / (now - said):.0f}", flush=True)
            said, done = now, 0
        due = max(due + _BATCH / per_second, now)
        time.sleep(due - now)


def main() -> None:
    """Load, or use."""
    path, verb, keys, *more = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        if verb == "load":
            load(connection, int(keys))
        else:
            per_second, seed = (*map(int, more), 1)[:2]

            def ask_for(drawn: NDArray[np.int64]) -> None:
                ask(connection, [redis_words(b"GETRANGE", b"%08d" % at, b"0", b"7") for at in drawn.tolist()], 14)

            at_rate(ask_for, int(keys), per_second, seed)


if __name__ == "__main__":
    main()
