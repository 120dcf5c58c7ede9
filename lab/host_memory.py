"""How much of this machine's memory a guest has: the Rss of the mappings that are its memory, second by second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

NAME = "/memfd:memory-backend-memfd"
FILE_END = ".guest-memory"  # of the files that are memory with --memory-files
EVERY_S = 1.0


def resident_kib(smaps: Iterable[str]) -> int:
    """Return the Rss, in KiB, of the mappings that are a guest's memory, in the lines of a ``/proc/PID/smaps``."""
    total, inside = 0, False
    for line in smaps:
        head, _, rest = line.partition(" ")
        if not head.endswith(":"):  # a mapping begins: its address
            fields = rest.split(None, 4)
            inside = len(fields) == 5 and (fields[4].startswith(NAME) or fields[4].endswith(FILE_END))
        elif inside and head == "Rss:":
            total += int(rest.split()[0])
    return total


class Samples:
    """A thread that writes ``seconds,resident_kib`` to ``path``, each second until the process ends or `stop`."""

    def __init__(self, pid: int, path: Path) -> None:
        self.path = path
        self._smaps = Path(f"/proc/{pid}/smaps")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-host-memory", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End; the last line is written."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        start = time.monotonic()
        with self.path.open("w", buffering=1) as file:  # a line at a time: it can be read meanwhile
            file.write("seconds,resident_kib\n")
            while not self._ended.is_set():
                seconds = time.monotonic() - start
                try:
                    found = resident_kib(self._smaps.read_text().splitlines())
                except OSError:
                    return  # it has ended
                file.write(f"{seconds:.1f},{found}\n")
                self._ended.wait(EVERY_S)
