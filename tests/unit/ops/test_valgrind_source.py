"""Traces of valgrind's lackey: parsed exactly, whatever comes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.ops.reported.sources import base
from pydamon.ops.reported.sources.valgrind import LackeyTrace, launch, open_trace

HEAD = b"""==11477== Lackey, an example Valgrind tool
==11477== Command: /bin/true
==11477==
"""
needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


def trace_of(tmp_path: Path, data: bytes, **options: object) -> LackeyTrace:
    path = tmp_path / "trace"
    path.write_bytes(data)
    return open_trace(str(path), **options)  # type: ignore[arg-type]


def rows_of(trace: LackeyTrace) -> list[tuple[int, int, int, bool, int]]:
    rows = []
    while (block := trace.read()) is not None:
        assert block.thread is not None
        columns = (block.address, block.size, block.when_ns, block.is_write, block.thread)
        rows += list(zip(*(column.tolist() for column in columns), strict=True))
        assert all(when <= block.end_ns for when in block.when_ns.tolist())
    trace.close()
    return rows


def test_every_kind_of_line(tmp_path: Path) -> None:
    lines = b"I  0401ab70,3\n L 1ffefff778,8\nI  0401ab73,15\n S 04,128\n M 0123456789abcdef,4\n"
    trace = trace_of(tmp_path, HEAD + lines)
    assert rows_of(trace) == [
        (0x0401AB70, 3, 0, False, -1),
        (0x1FFEFFF778, 8, 0, False, -1),
        (0x0401AB73, 15, 1, False, -1),
        (0x04, 128, 1, True, -1),
        (0x0123456789ABCDEF, 4, 1, True, -1),
    ]
    assert (trace.counts.accesses, trace.counts.skipped, trace.counts.garbage) == (5, 3, 0)
    assert trace.instructions == 2


def test_time_and_what_is_fetched_can_be_left_out(tmp_path: Path) -> None:
    lines = b" L 00001000,4\nI  0401ab70,3\nI  0401ab70,3\n L 00002000,4\nI  0401ab70,3\n S 00003000,4\n"
    trace = trace_of(tmp_path, lines, ns_per_instruction=100, fetches=False)
    assert [(row[0], row[2]) for row in rows_of(trace)] == [(0x1000, 0), (0x2000, 100), (0x3000, 200)]
    with pytest.raises(RequestError, match="ns_per_instruction"):
        trace_of(tmp_path, b"", ns_per_instruction=0)


def test_threads_are_those_that_hold_valgrinds_lock(tmp_path: Path) -> None:
    lines = (
        b"--7--   SCHED[1]:  acquired lock (thread_wrapper(starting new thread))\n"
        b" L 00001000,4\n"
        b"--7--   SCHED[1]: releasing lock (VG_(scheduler):timeslice) -> VgTs_Yielding\n"
        b"--7--   SCHED[2]:  acquired lock (VG_(scheduler):timeslice)\n"
        b" L 00002000,4\n"
    )
    assert [(row[0], row[4]) for row in rows_of(trace_of(tmp_path, lines))] == [(0x1000, 1), (0x2000, 2)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"I",
        b"I  ",
        b" L ",
        b" L ,4",
        b" L 1234",
        b" L 1234,",
        b" L 1234,0",
        b" L 1234,x",
        b" L 1234,12345",
        b" L 1234,-1",
        b" L 12 4,4",
        b" L 123G,4",
        b" L 12\xff4,4",
        b" L 11112222333344445,4",
        b" L ffffffffffffffff,4",
        b" X 1234,4",
        b"IL 1234,4",
        b"I  1234,4\r",
        b"\0\0\0\0\0\0\0\0\0",
        b",,,,,,,,,,,,,,,,",
        b"I  1234,4 hello",
    ],
)
def test_garbage_is_counted_and_harms_no_other_line(tmp_path: Path, line: bytes) -> None:
    trace = trace_of(tmp_path, b"I  00001000,4\n" + line + b"\n L 00002000,4\n" + line + b"\n")
    assert [row[0] for row in rows_of(trace)] == [0x1000, 0x2000]
    assert trace.counts.garbage == 2
    assert trace.counts.garbage_example.isprintable()


def test_against_a_second_literal_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(4)
    good = re.compile(rb"(I  | [LSM] )([0-9a-f]{1,16}),(\d{1,4})")
    lines = []
    for _ in range(20_000):
        kind = rng.choice([b"I  ", b" L ", b" S ", b" M "])
        line = b"%s%0*x,%d" % (
            kind,
            rng.choice([1, 8, 8, 8, 16]),
            rng.getrandbits(rng.choice([12, 31, 40, 60])),
            rng.choice([1, 4, 8, 16, 32, 512]),
        )
        if rng.random() < 0.1:
            at = rng.randrange(len(line))
            line = line[:at] + bytes([rng.randrange(256)]) + line[at + rng.randrange(2) :]
        lines.append(line.replace(b"\n", b" "))
    expected, instructions = [], 0
    for line in lines:
        match = good.fullmatch(line)
        if match and int(match[3]):
            instructions += match[1] == b"I  "
            expected.append((int(match[2], 16), int(match[3]), max(instructions - 1, 0), match[1] in (b" S ", b" M ")))
    # In pieces that end anywhere within a line.
    monkeypatch.setattr(base, "BLOCK_BYTES", 1009)
    trace = trace_of(tmp_path, b"\n".join(lines))
    assert [row[:4] for row in rows_of(trace)] == expected
    messages = sum(line[:1] in (b"=", b"-", b"*") for line in lines)
    assert trace.counts.garbage + trace.counts.skipped == len(lines) - len(expected)
    assert trace.counts.skipped == messages


def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, b"I  00001000,4\n" + b"x" * (5 << 20) + b"\n L 00002000,4\n")
    assert [row[0] for row in rows_of(trace)] == [0x1000, 0x2000]
    assert trace.counts.garbage == 1
    assert len(trace._reader._rest) <= base.MAX_LINE_BYTES


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        open_trace(str(tmp_path / "none"))
    with pytest.raises(RequestError, match="cannot be read"):
        open_trace("a\0b")


def test_without_valgrind_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MachineError, match="apt-get install valgrind"):
        launch(["true"])


@needs_valgrind
def test_a_command_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"no-such-program: cannot be run"):
        launch(["no-such-program"])
    with pytest.raises(RequestError, match="is not a command"):
        launch([])


@needs_valgrind
@pytest.mark.usefixtures("processes")
def test_a_real_command() -> None:
    trace = launch(["sh", "-c", "exit 3"])
    rows = rows_of(trace)
    assert len(rows) > 50_000
    assert trace.instructions > len(rows) / 2
    assert trace.counts.garbage == 0
    assert {row[4] for row in rows} <= {-1, 1}
    assert trace.process is not None
    assert trace.process.returncode == 3


@needs_valgrind
@pytest.mark.usefixtures("processes")
def test_a_child_that_stays_behind_does_not_keep_the_trace_open(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    rows = rows_of(launch(["sh", "-c", f"sleep 600 >/dev/null 2>&1 & echo $! >{pid_file}; exit 0"]))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)  # it is there still: nobody has waited for its end
    assert len(rows) > 50_000


@needs_valgrind
@pytest.mark.usefixtures("processes")
def test_closing_ends_the_command() -> None:
    trace = launch(["sh", "-c", "while :; do :; done"])
    while trace.counts.accesses < 1000:
        trace.read()
    trace.close()
    assert trace.process is not None
    assert trace.process.poll() is not None


@needs_valgrind
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.usefixtures("processes")
def test_threads_of_a_real_program(tmp_path: Path) -> None:
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(
        "#include <pthread.h>\n#include <stdio.h>\nstatic volatile char x[1 << 20] __attribute__((aligned(4096)));\n"
        # Both live at the same time: else the second may get the number of the first.
        "static pthread_barrier_t both;\n"
        "static void *f(void *a) { pthread_barrier_wait(&both);\n"
        "for (int i = 0; i < 20000; i++) x[(long)a * 65536]++; return 0; }\n"
        'int main(void) { pthread_t t[2]; printf("%p\\n", (void *)x); fflush(stdout);\n'
        "pthread_barrier_init(&both, 0, 2);\n"
        "for (long i = 0; i < 2; i++) pthread_create(&t[i], 0, f, (void *)(i + 1));\n"
        "for (long i = 0; i < 2; i++) pthread_join(t[i], 0); return 0; }\n"
    )
    subprocess.run(["gcc", "-O1", "-pthread", "-o", program, source], check=True)
    read_fd, write_fd = os.pipe()

    def start(command: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, pass_fds=pass_fds, stdout=write_fd)

    trace = launch([str(program)], start=start)  # type: ignore[arg-type]
    os.close(write_fd)
    rows = rows_of(trace)
    with os.fdopen(read_fd) as file:
        x = int(file.readline(), 16)
    for thread in (1, 2):
        mine = [row for row in rows if row[0] == x + thread * 65536 and row[3]]
        assert len(mine) == 20_000
        assert {row[4] for row in mine} == {thread + 1}
        assert all(np.diff([row[2] for row in mine]) > 0)
