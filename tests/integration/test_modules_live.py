"""Modules as a user runs them, on real processes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

from benchmarks.evaluation.host_files import major_faults, reading
from tests.helpers.command import pydamon

from pydamon.records.reader import RecordReader

MIB = 1 << 20
_SWEEPS = """
import mmap, time
memory = mmap.mmap(-1, 16 << 20)
while True:
    for at in range(0, len(memory), 4096): memory[at] = 1
    time.sleep(4)
"""


def _resident(pid: int, name: str) -> int:
    """Bytes of the file that the process has in memory (smaps(5))."""
    mine, total = False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mine = line.endswith(name)
        elif mine and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def _cached(path: Path) -> int:
    """Bytes of the file that are in memory at all (mincore(2)): another way to ask than through the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as held,
    ):
        pages = (ctypes.c_ubyte * (len(held) // 4096))()
        view = ctypes.c_char.from_buffer(held)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(len(held)), pages) == 0
        del view
    return sum(flags & 1 for flags in pages) * 4096


def test_idle_file_pages_go_and_hot_ones_stay(tmp_path: Path) -> None:
    """Of 160 MiB of a file that nobody uses nine tenths are gone 30 s after the least age, of 16 MiB that are in use
    nothing: asked of the process (smaps), and of the page cache (mincore)."""
    idle, hot = 160 * MIB, 16 * MIB
    with reading(tmp_path, idle // MIB, hot // MIB) as pid:
        before = major_faults(pid)
        done = pydamon(
            *("record", str(pid), "--duration", "35s", "-o", str(tmp_path / "record")),
            *("--module", "reclaim min_age=5s files=only watermarks=off quota=128MiB/1s"),
        )
        assert done.returncode == 0, done.stderr
        assert _resident(pid, "/idle") <= idle // 10, done.stderr
        assert _cached(tmp_path / "idle") <= idle // 10
        assert _resident(pid, "/hot") == hot
        assert _cached(tmp_path / "hot") == hot
        # What had been taken of it would have been read again, 64 pages at most at a time.
        assert major_faults(pid) - before < hot // 4096 // 64
    with RecordReader(str(tmp_path / "record")) as reader:
        told = {row["number"]: row["values"] for row in reader.table_rows("modules")}
    assert idle * 9 // 10 <= told["taken_bytes"][0] <= idle + hot // 2
    assert told["min_age_us"] == [5_000_000]


def test_a_dry_run_says_at_its_end_what_would_come_back(tmp_path: Path) -> None:
    """16 MiB are used every 4 s, and would all come back of what is taken at an age of 1 s."""
    with subprocess.Popen([sys.executable, "-c", _SWEEPS]) as process:
        try:
            done = pydamon(
                *("record", str(process.pid), "--duration", "15s", "-o", str(tmp_path / "record"), "--dry-run"),
                *("--module", "reclaim min_age=1s watermarks=off"),
            )
        finally:
            process.kill()
    assert done.returncode == 0, done.stderr
    assert "pydamon: scheme reclaim: about " in done.stderr
    assert "pydamon: scheme reclaim: it would thrash: at least " in done.stderr


def test_a_second_module_on_one_target_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as target:
        first = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pydamon",
                "record",
                str(target.pid),
                "--module",
                "reclaim",
                "-o",
                str(tmp_path / "1"),
            ],
            stderr=subprocess.PIPE,
        )
        try:
            assert first.stderr is not None
            for line in first.stderr:
                if b"monitoring" in line:
                    break
            second = ("record", str(target.pid), "--duration", "1s", "-o", str(tmp_path / "2"))
            done = pydamon(*second, "--module", "reclaim min_age=5s")
            assert done.returncode == 2
            assert f"--module reclaim: runs on process {target.pid} already" in done.stderr
            first.kill()  # leaves nothing behind
            first.wait()
            assert pydamon(*second, "--module", "reclaim min_age=5s").returncode == 0
        finally:
            first.kill()
            first.wait()
            if first.stderr is not None:
                first.stderr.close()
            target.kill()
