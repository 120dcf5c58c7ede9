"""Shared by all tests: the guard around the host's DAMON, and what this machine can do."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

_GUARD = Path(__file__).parent / "guard"
runpy.run_path(str(_GUARD / "sitecustomize.py"))  # installs the audit hook in this process


@pytest.fixture(autouse=True, scope="session")
def _guard_children() -> Iterator[None]:
    """Python processes that tests start load the guard, too."""
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{_GUARD}:{old}" if old else str(_GUARD)
    yield
    if old is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = old


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the terminal of whoever runs the tests says must not matter."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SUDO_UID", "SUDO_GID", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
