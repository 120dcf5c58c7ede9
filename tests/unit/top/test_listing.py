"""Which processes are listed."""

from __future__ import annotations

import os

import pytest
from tests.helpers.programs import SLEEPS, program
from tests.helpers.waiting import wait_until

from pydamon.top.listing import Listing, Selection

pytestmark = pytest.mark.usefixtures("processes")


def pids(selection: Selection, ids: list[int]) -> set[int]:
    return {known.stat.pid for known in Listing(selection, lambda: ids).refresh()}


def test_each_condition_narrows_the_list() -> None:
    with program(f"# first\n{SLEEPS}") as one, program(f"# second\n{SLEEPS}") as two:
        everyone = [os.getpid(), one, two]
        assert pids(Selection(), everyone) == set(everyone)
        assert pids(Selection(parent=os.getpid()), [*everyone, os.getppid()]) == set(everyone)
        assert pids(Selection(parent=one), everyone) == {one}
        assert pids(Selection(words="SECOND", parent=os.getpid()), everyone) == {two}
        assert pids(Selection(uid=os.getuid()), everyone) == set(everyone)
        assert pids(Selection(uid=os.getuid() + 1), everyone) == set()


def test_threads_of_the_kernel_and_what_has_ended_are_left_out() -> None:
    listing = Listing(Selection(), lambda: [2, os.getpid(), child])
    with program(SLEEPS) as child:
        assert child in {known.stat.pid for known in listing.refresh()}
    wait_until(lambda: {known.stat.pid for known in listing.refresh()} == {os.getpid()})


def test_who_is_seen_is_read_each_time_and_the_rest_in_turn() -> None:
    with program(SLEEPS) as one, program(SLEEPS) as two:
        listing = Listing(Selection(), lambda: [one, two])
        before = {known.stat.pid: known.stat for known in listing.refresh()}
        after = {known.stat.pid: known.stat for known in listing.refresh(seen=[one])}
        assert after[one] is not before[one]
        reads = [after[two]]
        for _ in range(5):
            reads += [known.stat for known in listing.refresh() if known.stat.pid == two]
        assert len(set(map(id, reads))) == 2  # once in five times
