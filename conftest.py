"""For all tests, wherever they lie: the marker ``guest`` and where such tests run; the count of what was skipped."""

from __future__ import annotations

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
