"""The machine's clock: how its sleeps end."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from pydamon.engines.clock import MachineClock


@pytest.mark.parametrize("many", [False, True])
def test_a_sleep_lasts_and_can_be_cut_short(many: bool) -> None:
    """Also for a program with so many open files that select(2) takes no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if many and hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip(f"the hard limit of open files is {hard}")
    read_end, write_end = os.pipe()
    try:
        if many:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
            os.dup2(read_end, 1900)
            os.close(read_end)
            read_end = 1900
        clock = MachineClock(wake_fd=read_end)
        began = time.monotonic_ns()
        assert clock.sleep_ns(2_500_000)
        assert time.monotonic_ns() - began >= 2_500_000
        threading.Timer(0.05, os.write, (write_end, b"x")).start()
        assert not clock.sleep_ns(60_000_000_000)
        assert clock.sleep_ns(1_000_000)  # what woke it was taken away
    finally:
        os.close(read_end)
        os.close(write_end)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
