"""What a user asks of a running program, beside what the program knows and what the kernel says of the same windows.

The programs are those of `benchmarks answers`. Recordings are short and the machine may be busy: intervals are widened
by 3 % of what is resident, and of mapped files, which others use as well, only the upper bound is believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from benchmarks import answers_programs as programs
from benchmarks.answers_asked import Recorded, record, referenced, resident, used
from benchmarks.answers_programs import MIB, Running

from pydamon.engines.user.choose import offers

_OBSTACLE = next(offer.obstacle for offer in offers() if offer.name == "bpf")
pytestmark = pytest.mark.skipif(_OBSTACLE is not None, reason=f"primitive bpf: {_OBSTACLE}")

SLACK = 0.03  # of what is resident
FIT = ("--intervals", "auto")
Start = Callable[[], AbstractContextManager[Running]]


def never_above_what_is_resident(recorded: Recorded, there: int) -> None:
    """By regions and by the panel; the program may have grown by a little after the last look."""
    answer = recorded.answer("wss")
    sizes = answer.get("total") or answer["targets"][0]
    assert 0 < sizes["percentiles"]["100"] <= there * (1 + SLACK)
    for told in used(recorded).windows.values():
        assert told is None or told[0] <= there * (1 + SLACK)


@pytest.mark.parametrize(
    "start",
    [
        partial(programs.python, programs.THREADS),
        partial(programs.python, programs.EIGHTH, known={1: 64 * MIB}),
    ],
    ids=["200 threads", "one page in eight"],
)
def test_used_within_a_second_is_what_the_kernel_says(start: Start, tmp_path: Path) -> None:
    with start() as running:
        truth = referenced(running.pids, 1, 3)
        recorded = record(running.pids, str(tmp_path / "r"), 5, *FIT)
        there = resident(running.pids)
    answer = used(recorded)
    told = answer.windows[1]
    assert told is not None
    _, low, high = told
    slack = round(SLACK * there)
    assert low - slack <= truth.high
    assert high + slack >= max(truth.low, running.known.get(1, 0))
    assert (high - low) / 2 <= 0.035 * answer.resident
    never_above_what_is_resident(recorded, there)


def test_memory_that_is_used_every_five_seconds_is_in_the_window_of_six(tmp_path: Path) -> None:
    with programs.python(programs.SERVICE) as running:
        recorded = record(running.pids, str(tmp_path / "r"), 10, *FIT)
        there = resident(running.pids)
    answer = used(recorded)
    second, six = answer.windows[1], answer.windows[6]
    assert second is not None
    assert six is not None
    slack = round(SLACK * there)
    assert six[1] - slack <= 76 * MIB + 10 * MIB  # what the interpreter and its libraries have
    assert six[2] + slack >= 76 * MIB
    assert second[0] < six[0]
    assert abs((answer.resident - six[0]) - 300 * MIB) <= 0.1 * 300 * MIB
    never_above_what_is_resident(recorded, there)


def test_memory_that_workers_share_counts_once(tmp_path: Path) -> None:
    with programs.workers() as running:
        recorded = record(running.pids, str(tmp_path / "r"), 6, *FIT, "--include-children")
    answer = recorded.answer("wss", "--window", "1s")
    assert len(answer["targets"]) == 5
    total = answer["total"]
    slack = round(SLACK * total["resident_bytes"])
    known = running.known[1]
    assert total["low_bytes"] - slack <= known + 10 * MIB  # what the interpreters and their libraries have
    assert total["high_bytes"] + slack >= known
    assert sum(one["bytes"] for one in answer["targets"]) > 2 * known  # each has the 32 MiB that they share


def test_a_dry_run_tells_of_no_more_than_there_is_and_takes_nothing(tmp_path: Path) -> None:
    with programs.python(programs.SERVICE) as running:
        before = resident(running.pids)
        scheme = ("--dry-run", "--scheme", "pageout rate=0% age>=1s")
        recorded = record(running.pids, str(tmp_path / "r"), 7, *FIT, *scheme)
        assert resident(running.pids) >= before
    statistics = recorded.answer("schemes")["statistics"]
    assert 200 * MIB < statistics[-1]["sz_applied"] <= before


def test_a_quota_is_spent_on_memory_not_on_the_addresses_between(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(40 * MIB))
    with data.open() as file:
        os.fsync(file.fileno())  # only what is written to the disk can go
    with programs.python(programs.FAR_APART, str(data)) as running:
        before = resident(running.pids)
        scheme = ("--scheme", "pageout rate=0% age>=1s quota=16M/1s filter=anon")
        record(running.pids, str(tmp_path / "r"), 10, *scheme)
        gone = before - resident(running.pids)
    assert gone >= 20 * MIB


def test_hot_hugetlb_memory_is_never_idle(tmp_path: Path) -> None:
    try:
        program = programs.hugetlb()
    except programs.Missing as reason:
        pytest.skip(str(reason))
    with program as running:
        recorded = record(running.pids, str(tmp_path / "r"), 5)
    told = recorded.answer("wss")["targets"][0]
    assert told["unknown_bytes"] >= 32 * MIB or told["percentiles"]["50"] >= 0.9 * 32 * MIB
    assert "cannot be watched" in recorded.said or not told["unknown_bytes"]
