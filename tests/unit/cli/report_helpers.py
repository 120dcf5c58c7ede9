"""Running reports and looking at what they print."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.unit.records.record_samples import mapping, snapshot, write

from pydamon.cli import main

MIB = 1 << 20
HEAP, LIBC, STACK = 0x55D0C0A00000, 0x7F31A4000000, 0x7FFD1C2A0000


def report(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of ``pydamon report …``, not on a terminal."""
    status = main(["report", *(str(arg) for arg in args)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def on_terminal(columns: int, lines: int, *args: str | Path, **environment: str) -> str:
    """What ``pydamon report …`` prints on a terminal of that size."""
    main_end, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    cleared = {"NO_COLOR", "COLORTERM", "COLUMNS", "LINES"}
    child = subprocess.Popen(
        [*PYDAMON, "report", *(str(arg) for arg in args)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={k: v for k, v in os.environ.items() if k not in cleared} | {"TERM": "xterm-256color"} | environment,
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            piece = os.read(main_end, 65536)
        except OSError:  # EIO: the last one to write has closed the terminal
            break
        if not piece:
            break
        output += piece
    os.close(main_end)
    assert child.wait() == 0, output.decode()
    return output.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """The text without escape sequences for colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def stairs(path: Path) -> Path:
    """Ten MiB of heap, each hot for 1 s in turn; a warm MiB of libc beside 3 cold ones; 8 hot KiB of stack."""
    snapshots = []
    for number in range(100):
        hot = HEAP + number // 10 * MIB
        regions = [
            (HEAP, hot, 0, number % 10),
            (hot, hot + MIB, 20, number % 10),
            (hot + MIB, HEAP + 10 * MIB, 0, number % 10),
            (LIBC, LIBC + 3 * MIB, 0, number),
            (LIBC + 3 * MIB, LIBC + 4 * MIB, 8, number),
            (STACK, STACK + 0x2000, 18, number),
        ]
        snapshots.append(snapshot(number, [region for region in regions if region[0] < region[1]]))
    maps = [
        mapping(HEAP, HEAP + 10 * MIB, "[heap]"),
        mapping(LIBC, LIBC + 2 * MIB, "/usr/lib/locale/locale-archive"),
        mapping(LIBC + 2 * MIB, LIBC + 4 * MIB, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
        mapping(STACK, STACK + 0x2000, "[stack]"),
    ]
    return write(path, snapshots, maps=maps)
