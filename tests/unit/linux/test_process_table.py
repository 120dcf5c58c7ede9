"""What /proc says of processes, whatever they call themselves."""

from __future__ import annotations

import os

import pytest
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.linux import process_table
from pydamon.linux.process import Process

pytestmark = pytest.mark.usefixtures("processes")

NAMED = """
import ctypes, threading, time
ctypes.CDLL(None).prctl(15, b"a) R [red] \\x1b(", 0, 0, 0)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print('ready', flush=True)
time.sleep(1000)
"""


def test_a_process_is_as_proc_says_whatever_its_name() -> None:
    with program(NAMED, "-S") as pid:
        assert pid in process_table.process_ids()
        stat = process_table.stat_of(pid)
        assert stat is not None
        process = Process(pid)
        assert (stat.pid, stat.start_ticks) == (pid, process.start_ticks)
        process.close()
        assert stat.name == "a) R [red] \x1b("
        assert (stat.ppid, stat.ended, stat.kernel, stat.threads) == (os.getpid(), False, False, 2)
        assert 1 << 20 < stat.resident_bytes < 1 << 30
        assert process_table.owner_of(pid) == os.getuid()
        assert process_table.command_line(pid).endswith("time.sleep(1000)")
        first = process_table.run_time_ns(pid)
        assert first is not None
        wait_until(lambda: process_table.run_time_ns(pid) == process_table.run_time_ns(pid))


def test_what_is_gone_is_told_as_nothing() -> None:
    with program(NAMED, "-S") as pid:
        pass
    wait_until(lambda: process_table.stat_of(pid) is None)
    assert process_table.owner_of(pid) is None
    assert process_table.command_line(pid) == ""
    assert process_table.cgroup_of(pid) == ""
    assert process_table.run_time_ns(pid) is None


def test_the_processor_time_grows() -> None:
    with program("print('ready', flush=True)\nwhile True: pass") as pid:
        before, ran = process_table.stat_of(pid), process_table.run_time_ns(pid)
        assert before is not None
        assert ran is not None

        def more() -> bool:
            now, runs = process_table.stat_of(pid), process_table.run_time_ns(pid)
            return now is not None and now.cpu_ns > before.cpu_ns and runs is not None and runs > ran

        wait_until(more)
