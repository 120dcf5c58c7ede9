"""What ``perf script`` prints, understood: its own fields, the default ones, other events, and garbage."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.helpers.waiting import GENEROUS_S

from pydamon.errors import RequestError
from pydamon.linux.online_cpus import nodes_of_cpus
from pydamon.ops.reported.sources.base import Block
from pydamon.ops.reported.sources.perf_script import FIELDS, PerfScript, open_script

# Fields as asked for; fields as perf prints them by default (from mails to linux-kernel); threads with spaces in names.
ASKED = b"""\
           redis 712/714   [003]  6618.271331: cpu/mem-loads,ldlat=30/P:     7f8a01766b70     68100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A  7
           redis 712/712   [000]  6618.271337: cpu/mem-stores/P:     7f8a0177fe06      5080144 |OP STORE|LVL L1 hit|SNP N/A|TLB N/A|LCK N/A  0
  Web Content #2 712/715   [001]  6618.271341: cpu/mem-loads,ldlat=30/P:     7f8a0177ea80     68100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No  5
"""  # noqa: E501
DEFAULT = b"""\
chromium-browse   46572 [002] 544966.882384:      10000 \tcpu_core/MEM_UOPS_RETIRED.LOAD_LATENCY/: 7ffdf1391b0c     10268100142 |OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK    N/A    5   7    0   7fad7c47425d [unknown] (/usr/lib64/libglib-2.0.so.0.8000.3)
       memstress  3603 [020]   544966.882390:          1            l1d-miss:     ffff9ab0ee38       8688000842 |OP LOAD|LVL L3 or L3 hit|SNP N/A|TLB Walker hit|LCK No|BLK  N/A               aaaac17c3e88 [unknown] (/home/ubuntu/memstress)
              ls 12135  544966.882391: page-faults:u:     7f8a0177fe06 _rtld_global     7f8a017677ad _dl_start
              ls 12135  544966.882392:          1 page-faults:u:     7f8a01766b70
"""  # noqa: E501
CYCLES = b"""\
              ls 12151  6619.461443:     250000 cpu-clock:      7fa1df52e69e handle_amd+0x7e (/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2)
              ls 12151  6619.461699:     250000 cpu-clock:  ffffffff815f1581 do_mmap+0xb1 ([kernel.kallsyms])
              ls 12151/12151  6619.461699: cycles:P:      7fa1df52e69e
    kdamond.0    58 [001]   103.201908: damon:damon_aggregated: target_id=0 nr_regions=19 4194304-12091392: 1 12
"""  # noqa: E501


def source_of(tmp_path: Path, data: bytes, **options: object) -> PerfScript:
    path = tmp_path / "script"
    path.write_bytes(data)
    return open_script(str(path), **options)  # type: ignore[arg-type]


def blocks(source: PerfScript) -> list[Block]:
    found = []
    while (block := source.read()) is not None:
        found.append(block)
    source.close()
    return [block for block in found if len(block.address)]


def only_block(source: PerfScript) -> Block:
    (block,) = blocks(source)
    return block


def listed(column: object) -> list[int]:
    return column.tolist()  # type: ignore[attr-defined]


def test_the_fields_that_are_asked_for(tmp_path: Path) -> None:
    source = source_of(tmp_path, ASKED)
    block = only_block(source)
    assert listed(block.address) == [0x7F8A01766B70, 0x7F8A0177FE06, 0x7F8A0177EA80]
    assert listed(block.when_ns) == [6618271331000, 6618271337000, 6618271341000]
    assert listed(block.is_write) == [False, True, False]
    assert listed(block.thread) == [714, 712, 715]
    assert listed(block.cpu) == [3, 0, 1]
    assert listed(block.target) == [0, 0, 0]
    assert block.end_ns == 6618271341000
    assert (source.counts.accesses, source.counts.garbage, source.counts.skipped) == (3, 0, 0)


def test_perfs_default_fields_and_addresses_of_other_events(tmp_path: Path) -> None:
    source = source_of(tmp_path, DEFAULT)
    block = only_block(source)
    assert listed(block.address) == [0x7FFDF1391B0C, 0xFFFF9AB0EE38, 0x7F8A0177FE06, 0x7F8A01766B70]
    assert listed(block.thread) == [46572, 3603, 12135, 12135]
    assert listed(block.cpu) == [2, 20, -1, -1]
    assert source.counts.garbage == 0


@pytest.mark.parametrize("data", [CYCLES, *(line + b"\n" for line in CYCLES.splitlines())])
def test_samples_of_another_event_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    source = source_of(tmp_path, data)
    with pytest.raises(RequestError, match="carry no data address; record with perf mem record") as caught:
        blocks(source)
    assert "\n" not in str(caught.value)


def test_other_events_among_ours_are_skipped(tmp_path: Path) -> None:
    source = source_of(tmp_path, CYCLES + ASKED)
    assert len(only_block(source).address) == 3
    assert source.counts.skipped == 4


def test_only_the_event_that_is_named(tmp_path: Path) -> None:
    assert listed(only_block(source_of(tmp_path, ASKED, event="mem-stores")).address) == [0x7F8A0177FE06]
    with pytest.raises(RequestError, match="'cpu/mem-loads"):
        blocks(source_of(tmp_path, ASKED, event="ibs"))
    with pytest.raises(RequestError, match="regular expression"):
        source_of(tmp_path, ASKED, event="(")


def test_processes_are_targets(tmp_path: Path) -> None:
    data = ASKED + ASKED.replace(b" 712/", b" 99/")
    block = only_block(source_of(tmp_path, data, pids=[99, 712]))
    assert sorted(zip(listed(block.target), listed(block.address), strict=True)) == sorted(
        (target, address) for target in (0, 1) for address in (0x7F8A01766B70, 0x7F8A0177FE06, 0x7F8A0177EA80)
    )
    source = source_of(tmp_path, data)  # without a choice: the first one
    assert len(only_block(source).address) == 3
    assert source.counts.skipped == 3
    with pytest.raises(RequestError, match="shows no process ids"):
        blocks(source_of(tmp_path, DEFAULT, pids=[46572]))


def test_the_kernels_addresses_and_none_are_no_addresses(tmp_path: Path) -> None:
    line = b" a 1/1 [0] 1.000001: mem-loads: %s 5 |OP LOAD| 1\n"
    source = source_of(tmp_path, b"".join(line % a for a in (b"0", b"ffffffff81000000", b"4000", b"7")))
    assert listed(only_block(source).address) == [0x4000]
    assert (source.without_address, source.counts.skipped) == (3, 3)


def test_garbage_is_counted_and_one_damaged_time_makes_nothing_late(tmp_path: Path) -> None:
    line = b" a 1/1 [0] %s: mem-loads: 4000\n"
    data = (
        b"# a comment\n\nhello\n\0\xff\n" + line % b"100.5" + line % b"999999999.5" + line % b"100.4" + line % b"101.0"
    )
    data += b" a 1/1 [0] 9999999999999.5: mem-loads: 4000\n a 1/1 [0] 1.5: mem-loads: 12345678901234567\n"
    source = source_of(tmp_path, data + line % b"0.5")
    block = only_block(source)
    assert listed(block.when_ns) == [500000000, 100400000000, 100500000000, 101000000000]
    assert source.counts.garbage == 4
    assert source.counts.garbage_example == "hello"


@pytest.mark.parametrize("line", [b" ", b"a ", b"1 ", b"a 1/1 ", b"a 1 1.1: ", b"a:", b"a 1 1.1: e: g "])
def test_hostile_lines_take_no_time(tmp_path: Path, line: bytes) -> None:
    source = source_of(tmp_path, ((line * 60_000)[:60_000] + b"\n") * 10 + ASKED)
    began = time.process_time()
    assert len(only_block(source).address) == 3
    assert time.process_time() - began < 20


def test_nodes_are_those_of_the_cpus(tmp_path: Path) -> None:
    for node, cpus in (("node0", "0-1,8\n"), ("node1", "2-3\n"), ("node2", "\n")):
        (tmp_path / "sys" / node).mkdir(parents=True)
        (tmp_path / "sys" / node / "cpulist").write_text(cpus)
    nodes = nodes_of_cpus(tmp_path / "sys")
    assert nodes == {0: 0, 1: 0, 8: 0, 2: 1, 3: 1}
    (tmp_path / "script").write_bytes(ASKED)
    fd = os.open(tmp_path / "script", os.O_RDONLY)
    assert listed(only_block(PerfScript(fd, nodes_of_cpus=nodes)).node) == [1, 0, 0]
    assert nodes_of_cpus(tmp_path / "none") == {}


def test_a_live_pipe_is_read_as_it_comes() -> None:
    read_fd, write_fd = os.pipe()
    source = PerfScript(read_fd)
    began = time.monotonic()
    first = source.read()
    assert first is not None
    assert len(first.address) == 0
    assert time.monotonic() - began < GENEROUS_S  # it does not wait for ever
    os.write(write_fd, ASKED[:-30])
    second = source.read()
    assert second is not None
    assert len(second.address) == 2

    def finish() -> None:
        os.write(write_fd, ASKED[-30:])
        os.close(write_fd)

    threading.Timer(0.05, finish).start()
    assert len(only_block(source).address) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        open_script(str(tmp_path / "none"))


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
@pytest.mark.usefixtures("processes")
def test_what_this_machines_perf_prints(tmp_path: Path) -> None:
    """Page faults have addresses, too, and need no hardware counter."""
    data = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-d", "-e", "page-faults:u", "-c", "1", "-o", str(data), "--", "ls", "/"]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("perf record does not work here")
    for fields in (
        "comm,pid,tid,time,event,addr",
        "comm,tid,time,period,event,addr,ip,sym,dso",
        "comm,tid,time,event,addr,ip",
    ):
        printed = subprocess.run(["perf", "script", "-i", data, "-F", fields], capture_output=True, check=True).stdout
        source = source_of(tmp_path, printed)
        assert len(only_block(source).address) == printed.count(b"\n") > 10
        assert source.counts.garbage == 0
    plain = subprocess.run(["perf", "script", "-i", data], capture_output=True, check=True).stdout
    with pytest.raises(RequestError, match="page-faults"):
        blocks(source_of(tmp_path, plain))
    assert "addr" in FIELDS
