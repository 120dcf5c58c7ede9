"""What `pydamon top` costs with 200 processes listed: the screen beside the looking, and how soon it shows something.

    python -m benchmarks top [--processes 200] [--seconds 30] [--busy 20]

The main thread of top draws, the other one looks: what each takes is told by ``/proc/PID/task``. ``plain table`` is
Textual's `DataTable` with the same rows and columns, all of its cells set once a second.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from pydamon.linux.texts import read_text

ROUNDS = 5
SLEEPS = "print(flush=True)\nimport time\ntime.sleep(1e6)"
WORKS = """
memory = bytearray(8 << 20)
print(flush=True)
import time
while True:
    memory[: 2 << 20 : 4096] = bytes(512)
    time.sleep(0.5)
"""
PLAIN = """
import random, time
from textual.app import App
from textual.widgets import DataTable
class Plain(App):
    def compose(self):
        yield DataTable()
    def on_mount(self):
        table = self.query_one(DataTable)
        names = "PID USED ERR RES IDLE TREND VIA COST COMMAND".split()
        self.columns = [table.add_column(name, width=6) for name in names]
        self.lines = [table.add_row(*["x" * 6] * 9) for _ in range({count})]
        self.set_interval(1, self.fill)
    def fill(self):
        table = self.query_one(DataTable)
        for line in self.lines:
            for column in self.columns:
                table.update_cell(line, column, str(random.randrange(10**6)))
Plain().run()
"""


@contextlib.contextmanager
def processes(count: int, busy: int) -> Iterator[None]:
    """So many that are ours, of which ``busy`` use 2 MiB twice a second."""
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", WORKS if n < busy else SLEEPS], stdout=subprocess.PIPE)
        for n in range(count)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            one.stdout.readline()
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


class Terminal:
    """A program on a terminal of 80 x 24 of its own; ``seconds`` are what it took until each of the ``words``."""

    def __init__(self, command: list[str]) -> None:
        self._began = time.monotonic()
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(command[0], command)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._seen = b""

    def until(self, word: bytes, seconds: float = 30.0) -> float:
        """Read until it has written that; how long after its start that was."""
        while word not in self._seen and time.monotonic() < self._began + seconds:
            self._read(0.02)
        return time.monotonic() - self._began

    def read_for(self, seconds: float) -> int:
        """Read for so long; how many bytes it wrote."""
        before, end = len(self._seen), time.monotonic() + seconds
        while time.monotonic() < end:
            self._read(min(0.2, max(end - time.monotonic(), 0)))
        return len(self._seen) - before

    def _read(self, seconds: float) -> None:
        if select.select([self._fd], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self._seen += os.read(self._fd, 1 << 16)

    def cpu_ms(self) -> tuple[float, float]:
        """CPU time so far: of the main thread, and of all others."""
        own = rest = 0.0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            spent = int(read_text(task / "schedstat").split()[0]) / 1e6
            if task.name == str(self.pid):
                own = spent
            else:
                rest += spent
        return own, rest

    def close(self) -> None:
        """End it."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


def measure(name: str, command: list[str], first: bytes, seconds: float) -> None:
    """Print a row: first screen, the share of a CPU that drawing and looking take, bytes to the terminal."""
    soon, work_ms = [], []
    for _ in range(ROUNDS):
        terminal = Terminal(command)
        soon.append(terminal.until(first))
        work_ms.append(sum(terminal.cpu_ms()))
        terminal.close()
    terminal = Terminal(command)
    terminal.until(first)
    terminal.read_for(15)  # until USED is known, and all memory was looked through
    before = terminal.cpu_ms()
    written = terminal.read_for(seconds)
    later = [100 * (now - then) / 1000 / seconds for now, then in zip(terminal.cpu_ms(), before, strict=True)]
    terminal.close()
    first_s = f"{statistics.median(soon):.2f} s ({min(soon):.2f} to {max(soon):.2f})"
    shares = "".join(f"{share:>8.1f}%" for share in later)
    print(
        f"{name:<14} {first_s:>24} {statistics.median(work_ms):>7.0f} ms {shares} {written / seconds / 1024:>8.1f} KiB",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks top", description=__doc__)
    parser.add_argument("--processes", type=int, default=200, help="how many are listed")
    parser.add_argument("--busy", type=int, default=20, help="how many of them use memory")
    parser.add_argument("--seconds", type=float, default=30, help="for how long each is measured")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"top: {options.processes} processes, {options.busy} of them busy, once a second, 80 x 24; load {load:.1f}")
    print(f"{'':<14} {'first screen':>24} {'CPU until':>10} {'drawing':>9}{'looking':>9} {'output':>12}")
    with processes(options.processes, options.busy):
        top = [sys.executable, "-m", "pydamon", "top", "--children", str(os.getpid())]
        measure("the list", top, b"COMMAND", options.seconds)
        measure("as a tree", [*top, "--tree"], b"COMMAND", options.seconds)
        plain = [sys.executable, "-c", PLAIN.replace("{count}", str(options.processes))]
        measure("plain table", plain, b"TREND", options.seconds)
