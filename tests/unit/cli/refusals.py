"""What is said to a user who asks for what cannot be."""

from __future__ import annotations

import pytest

from pydamon.cli import main


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What ``pydamon ARGS`` says on standard error: it ends with status 2, and prints nothing else."""
    capsys.readouterr()
    assert main([*args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err
