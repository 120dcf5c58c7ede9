"""The client of the evaluation asks by the law that it names, and understands both protocols."""

from __future__ import annotations

import io

import numpy as np
import pytest
from benchmarks.evaluation.zipf import PROTOCOLS, Zipf


@pytest.mark.parametrize("exponent", [0.99, 1])
def test_ranks_follow_the_law(exponent: float) -> None:
    keys, count = 1000, 200_000
    shares = np.bincount(Zipf(keys, np.random.default_rng(3), exponent).draw(count), minlength=keys) / count
    law = np.array([k**-exponent for k in range(1, keys + 1)])
    law /= law.sum()
    off = np.abs(shares - law) / np.sqrt(law * (1 - law) / count)
    assert off[:20].max() < 4
    assert (off < 3).mean() > 0.99


ANSWERS = {
    "redis": b"$3\r\nxyz\r\n$1\r\nq\r\n+PONG",
    "memcached": b"VALUE 7 0 3\r\nxyz\r\nEND\r\nVALUE 8 0 1\r\nq\r\nEND\r\n+PONG",
}


@pytest.mark.parametrize(("kind", "answers"), ANSWERS.items())
def test_each_answer_is_read_to_its_end(kind: str, answers: bytes) -> None:
    stream = io.BytesIO(answers)
    PROTOCOLS[kind][2](stream)
    PROTOCOLS[kind][2](stream)
    assert stream.read() == b"+PONG"


def test_a_key_that_memcached_lost_is_an_error() -> None:
    with pytest.raises(SystemExit, match="lost"):
        PROTOCOLS["memcached"][2](io.BytesIO(b"END\r\n"))
