"""Shared by all tests: the guard around the host's DAMON, and which tests start processes."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no reason to fail.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.fixture(scope="session")
def processes() -> None:
    """What starts processes, a test or a fixture, asks for this one: such tests get the marker ``processes``."""


_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
_running: list[str] = []  # the test of which it is said that it starts none


def pytest_configure(config: pytest.Config) -> None:
    """Where those tests are left out, the others are held to what they say."""
    if "not processes" in str(config.option.markexpr):
        sys.addaudithook(_refuse_processes)


def _refuse_processes(event: str, _arguments: tuple[object, ...]) -> None:
    if event in _STARTS and _running:
        raise AssertionError(f'{_running[0]} starts a process ({event}): it must ask for the fixture "processes"')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running[:] = [] if item.get_closest_marker("processes") else [item.nodeid]
    try:
        return (yield)
    finally:
        _running.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before those that the command line leaves out are left out."""
    for item in items:
        if "processes" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")
