"""The text of the kernel's trace event, as the benchmark beside its DAMON reads it."""

from __future__ import annotations

import pytest
from benchmarks.kernel_damon import KernelDamon, parse_trace

from pydamon.errors import MachineError

# As ftrace prints them with trace_clock mono (Documentation/trace/ftrace.rst); the numbers are made up.
TRACE = """\
# tracer: nop
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
         kdamond.0-95      [001] .....    12.100000: damon_aggregated: target_id=0 nr_regions=1 4096-8192: 3 0
         kdamond.0-95      [001] .....    13.100000: damon_aggregated: target_id=0 nr_regions=2 4096-8192: 20 1
         kdamond.0-95      [001] .....    13.100009: damon_aggregated: target_id=0 nr_regions=2 8192-20480: 0 7
         kdamond.0-95      [001] .....    14.200000: damon_aggregated: target_id=0 nr_regions=2 4096-8192: 19 2
"""


def test_snapshots_begin_where_the_one_before_ended() -> None:
    # The first has no beginning, the last one lacks a line.
    (snapshot,) = parse_trace(TRACE, 50_000, 1_000_000)
    assert (snapshot.start_ns, snapshot.end_ns) == (12_100_000_000, 13_100_000_000)
    assert snapshot.start.tolist() == [4096, 8192]
    assert snapshot.end.tolist() == [8192, 20480]
    assert snapshot.nr_accesses.tolist() == [20, 0]
    assert snapshot.age.tolist() == [1, 7]
    assert snapshot.max_nr_accesses == 20
    assert parse_trace("", 50_000, 1_000_000) == []


def test_the_hosts_damon_is_never_touched() -> None:
    with open("/proc/cmdline") as file:
        if "pydamon.lab=1" in file.read():
            pytest.skip("this is the guest lab")
    with pytest.raises(MachineError, match="guest lab only"):
        KernelDamon(1, 5000, 100_000, 10, 1000)
