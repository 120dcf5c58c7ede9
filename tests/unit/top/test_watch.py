"""Many processes at once: what is told of each, and who is asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.helpers.programs import SLEEPS, program
from tests.helpers.waiting import wait_until

from pydamon.primitives import registry
from pydamon.records.joined import open_record
from pydamon.top.listing import Listing, Selection
from pydamon.top.scenes import OfHistory, processes_of
from pydamon.top.watch import Watch
from pydamon.top.writing import write_looks
from pydamon.views.recorded import Recorded

pytestmark = pytest.mark.usefixtures("processes")
OBSTACLE = registry.obstacle("bpf")
asks_pages = pytest.mark.skipif(OBSTACLE is not None, reason=f"bpf primitive: {OBSTACLE}")

MIB = 1 << 20
HOT = """
memory = bytearray(32 << 20)
memory[::4096] = b'x' * (32 << 8)
print('ready', flush=True)
import time
while True:
    memory[: 16 << 20 : 4096] = b'y' * (16 << 8)
    time.sleep(0.2)
"""
COLD = f"memory = bytearray(32 << 20)\nmemory[::4096] = b'x' * (32 << 8)\n{SLEEPS}"


@asks_pages
def test_hot_and_cold_memory_is_told_with_its_error_and_can_be_written(tmp_path: Path) -> None:
    with program(HOT, "-S") as hot, program(COLD, "-S") as cold:
        began = time.monotonic()
        watch = Watch(Listing(Selection(parent=os.getpid()), lambda: [os.getpid(), hot, cold]))
        watch.left_out = {known.key for known in watch.listing.refresh() if known.stat.pid == os.getpid()}
        try:
            rows = {}

            def known() -> bool:
                rows.update({row.pid: row for row in watch.step().processes})
                found = [rows[pid].used for pid in (hot, cold)]
                return all(used is not None and not used.at_least for used in found)

            wait_until(known, every_s=1)
            used, unused = rows[hot].used, rows[cold].used
            assert used is not None
            assert unused is not None
            # 16 MiB of data, and what the interpreter needs: a few MiB; the interval holds it
            assert used.low_bytes < 22 * MIB
            assert used.high_bytes > 16 * MIB
            assert 0 < used.error_bytes < 4 * MIB
            assert unused.bytes < MIB
            assert rows[cold].idle is None or time.monotonic() - began > 60  # until a minute is over
            assert rows[hot].resident_bytes > 32 * MIB
            assert rows[hot].through == "bpf"
            assert rows[hot].pages > 500
            assert len(rows[hot].trend) >= 2
            path = tmp_path / "list.damon"
            said = write_looks(str(path), watch.through, watch.looked())
            assert said.startswith(f"{path}: 2 processes, ")
            with open_record(str(path)) as reader:
                seen = OfHistory(Recorded(reader)).latest()
                assert seen is not None
                told = {row.pid: row for row in processes_of(seen.live).processes}
                assert set(told) == {hot, cold}
                assert told[hot].used == used
                assert seen.live.targets[0].regions == 1
            assert (rows[os.getpid()].through, rows[os.getpid()].why_not) == ("", "looked at by itself")
        finally:
            watch.close()


@asks_pages
def test_who_ends_or_is_left_out_is_not_asked_any_more() -> None:
    with program(COLD, "-S") as stays:
        with program(COLD, "-S") as goes:
            watch = Watch(Listing(Selection(), lambda: [stays, goes]))
            assert {row.pid: row.through for row in watch.step().processes} == {stays: "bpf", goes: "bpf"}
        try:
            wait_until(lambda: [row.pid for row in watch.step().processes] == [stays])
            (row,) = watch.step().processes
            watch.left_out = {(row.pid, row.start_ticks)}
            (row,) = watch.step().processes
            assert (row.through, row.why_not) == ("", "looked at by itself")
            watch.left_out = set()
            assert watch.step().processes[0].through == "bpf"
        finally:
            watch.close()


def test_where_no_pages_can_be_asked_it_tells_what_is_resident_and_why_no_more() -> None:
    with program(COLD, "-S") as pid:
        watch = Watch(Listing(Selection(), lambda: [pid]), primitive="smaps")
        try:
            seen = watch.step()
            assert seen.processes[0].resident_bytes > 32 * MIB
            assert (seen.processes[0].used, seen.processes[0].through) == (None, "")
            assert seen.notices == ["only what is resident is told: no primitive asks single pages here (asked for)"]
        finally:
            watch.close()
