"""Modules as a user runs them, on real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.command import pydamon
from tests.helpers.waiting import wait_until

MIB = 1 << 20
_TOUCHES = """
import mmap, sys, time
files = [open(name, "rb") for name in sys.argv[1:3]]
cold, hot = (mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in files)
for at in range(0, len(cold), 4096): cold[at]
print("ready", flush=True)
while True:
    for at in range(0, len(hot), 4096): hot[at]
    time.sleep(0.02)
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


def test_idle_file_pages_go_and_hot_ones_stay(tmp_path: Path) -> None:
    """400 MiB of a file that nobody uses, 40 MiB of another that is read all the time."""
    for name, size in (("cold", 400 * MIB), ("hot", 40 * MIB)):
        with open(tmp_path / name, "wb") as file:
            for _ in range(size // MIB):
                file.write(b"x" * MIB)
            file.flush()
    subprocess.run(["sync", str(tmp_path / "cold"), str(tmp_path / "hot")], check=True)
    command = [sys.executable, "-c", _TOUCHES, str(tmp_path / "cold"), str(tmp_path / "hot")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            done = pydamon(
                *("record", str(process.pid), "--duration", "35s", "-o", str(tmp_path / "record")),
                *("--module", "reclaim min_age=5s files=only watermarks=off quota=128MiB/1s"),
            )
            assert done.returncode == 0, done.stderr
            wait_until(lambda: _resident(process.pid, "/hot") > 39 * MIB)
            assert _resident(process.pid, "/cold") <= 40 * MIB, done.stderr
        finally:
            process.kill()


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
