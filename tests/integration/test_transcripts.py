"""What is typed, what comes out, and the exit status, word for word: each file of ``transcripts`` in one shell.

A line that begins with ``$ `` is typed; the lines after it are what comes out (both streams, in the order in which they
were written), where ``…`` stands for anything within a line and a line of only ``…`` for any lines; ``[2]`` on a line
of its own is the exit status, 0 where none is said. ``$ : …`` is typed, and what comes of it does not matter. Lines
that begin with ``#`` say what it is about.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
_MARK = "\x01end {} "


class Step(NamedTuple):
    """One line that is typed, and what is to come of it."""

    typed: str
    out: list[str]
    status: int


def read(text: str) -> list[Step]:
    """The steps of a transcript."""
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], [], 0))
        elif match := re.fullmatch(r"\[(\d+)\]", line):
            steps[-1] = steps[-1]._replace(status=int(match[1]))
        elif not line.startswith("#") and (line or (steps and steps[-1].out)):
            steps[-1].out.append(line)
    for step in steps:
        while step.out and not step.out[-1]:  # the empty line before the next
            step.out.pop()
    return steps


def pattern(lines: list[str]) -> re.Pattern[str]:
    """What these lines stand for."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(map(re.escape, line.split("…"))) + "\n")
    return re.compile("".join(parts))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_what_was_typed_comes_out_as_written(path: Path, tmp_path: Path) -> None:
    steps = read(path.read_text())
    assert steps
    script = ""
    for number, step in enumerate(steps):
        script += f"{step.typed.removeprefix(': ')}\nprintf '{_MARK.format(number)}%d\\n' $?\n"
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "pydamon").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pydamon "$@"\n')
    (bin_folder / "pydamon").chmod(0o755)
    folder = tmp_path / "here"
    folder.mkdir()
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "COLUMNS": "100",
        "PYTHONUNBUFFERED": "1",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output = shell.communicate(timeout=240)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert "Traceback" not in output
    for number, step in enumerate(steps):
        found, mark, output = output.partition(_MARK.format(number))
        assert mark, f"{step.typed}: has not ended: {found}"
        status, _, output = output.partition("\n")
        if step.typed.startswith(": "):
            continue
        assert pattern(step.out).fullmatch(found), f"$ {step.typed}\n{found}"
        assert int(status) == step.status, f"$ {step.typed}\n{found}"
