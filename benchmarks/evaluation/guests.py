"""The lab's guest as an experiment on its host sees it: what it prints, and how much memory it has here."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.host_memory import resident_kib

from benchmarks.kernel import ROOT


class Guest:
    """One that has booted."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        logs = self.line(lambda line: "logs: " in line, "it booted").split("logs: ")[1].strip()
        self._pid_file = Path(logs) / "qemu.pid"

    @property
    def pid(self) -> int:
        """Of its process here, once it has printed something."""
        return int(self._pid_file.read_text())

    def resident(self) -> int:
        """Bytes of its memory that are resident here."""
        return resident_kib(Path(f"/proc/{self.pid}/smaps").read_text().splitlines()) * 1024

    def line(self, wanted: Callable[[str], bool], what: str) -> str:
        """The first line of its output for which that is so; SystemExit if it ends before."""
        for line in self.lines():
            if wanted(line):
                return line
        raise SystemExit(f"evaluation: the guest ended before {what}")

    def words(self, first: str, what: str) -> list[str]:
        """Those of the first line that begins with this word."""
        return self.line(lambda line: line.startswith(first + " "), what).split()

    def lines(self) -> Iterator[str]:
        """What it prints from now on."""
        assert self._process.stdout is not None
        return iter(self._process.stdout)


@contextmanager
def booted(options: Sequence[str], command: Sequence[object]) -> Iterator[Guest]:
    """A guest of ``lab/run OPTIONS`` that runs a command; it ends with the context."""
    words = [str(ROOT / "lab/run"), *options, "--", *map(str, command)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield Guest(process)
        finally:
            process.terminate()
