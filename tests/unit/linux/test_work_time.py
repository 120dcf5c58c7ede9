"""How long a thread works: what passes less what it waits for a CPU; numbers of schedstat are made up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pydamon.linux.work_time import WorkTime


def test_waiting_for_a_cpu_is_no_work(tmp_path: Path) -> None:
    told = tmp_path / "schedstat"
    told.write_text("5000000 1000000 7\n")
    before_ns = time.perf_counter_ns()
    work = WorkTime(str(told))
    began_ns = time.perf_counter_ns()
    while time.perf_counter_ns() - began_ns < 30_000_000:
        pass
    told.write_text("6000000 21000000 9\n")  # 20 ms of the 30 or more were others'
    least_ns = time.perf_counter_ns() - began_ns
    spent_ns = work.spent_ns()
    most_ns = time.perf_counter_ns() - before_ns
    assert least_ns - 20_000_000 <= spent_ns <= most_ns - 20_000_000
    told.write_text("6000000 900000000000 9\n")
    assert work.spent_ns() == 0


@pytest.mark.parametrize("text", [None, "", "no numbers at all", "1"])
def test_all_that_passes_is_work_where_the_kernel_tells_no_more(tmp_path: Path, text: str | None) -> None:
    told = tmp_path / "schedstat"
    if text is not None:
        told.write_text(text)
    work = WorkTime(str(told))
    began_ns = time.perf_counter_ns()
    while time.perf_counter_ns() - began_ns < 2_000_000:
        pass
    assert work.spent_ns() >= 2_000_000


@pytest.mark.usefixtures("processes")
def test_on_one_cpu_that_many_want_only_own_work_counts() -> None:
    """Other processes on this thread's CPU do not make its work longer."""
    found: list[tuple[int, int]] = []
    cpu = min(os.sched_getaffinity(0))

    def work() -> None:
        os.sched_setaffinity(0, {cpu})
        measured, began_ns, cpu_ns = WorkTime(), time.perf_counter_ns(), time.thread_time_ns()
        while time.thread_time_ns() - cpu_ns < 100_000_000:
            pass
        found.append((measured.spent_ns(), time.perf_counter_ns() - began_ns))

    text = f"import os; os.sched_setaffinity(0, {{{cpu}}}); print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-S", "-c", text], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        for other in others:
            other.kill()
            other.communicate()
    spent_ns, passed_ns = found[0]
    assert passed_ns > 200_000_000  # three others had their turns
    assert 90_000_000 < spent_ns < passed_ns // 2 + 50_000_000
