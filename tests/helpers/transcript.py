"""What was typed, and what came out: the command ``pydamon`` in this process."""

from __future__ import annotations

import shlex
from typing import NamedTuple

import pytest

from pydamon.cli import main


class Transcript(NamedTuple):
    """Exit status, standard output and standard error."""

    status: int
    out: str
    err: str


def typed(capsys: pytest.CaptureFixture[str], line: str) -> Transcript:
    """``pydamon LINE``, with the quotes of a shell."""
    capsys.readouterr()
    status = main(shlex.split(line))
    captured = capsys.readouterr()
    return Transcript(status, captured.out, captured.err)
