"""For all tests, wherever they lie: which run in the guest, which start processes, the count of what was skipped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytest_guest"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The last lines of a run: what this machine could not test, and why."""
    yield
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count:5}: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr  # (path, line, "Skipped: reason")
    return str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ").splitlines()[0]


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
