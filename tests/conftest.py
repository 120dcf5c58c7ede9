"""Shared by the tests in this folder: the guard around the host's DAMON, and what the environment says."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no reason to fail. What is drawn is the same each time, but for those who look for more.
settings.register_profile(
    "busy",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("PYDAMON_LONG"),
)
settings.load_profile("busy")
# Who starts the tests in the background of a shell has SIGINT ignored, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
def _plain_output(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the terminal of whoever runs the tests says must not matter, nor what their defaults are."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SUDO_UID", "SUDO_GID", "SUDO_USER", "PYDAMON_OPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.setenv("PYDAMON_RUN_DIR", str(tmp_path_factory.getbasetemp() / "shared"))
