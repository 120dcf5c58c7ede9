"""The marker ``guest``: such a test runs in the guest lab only, and is collected and skipped everywhere else.

A guest test may do what must never be done to a machine that somebody uses: write below
``/sys/kernel/mm/damon``, fill the swap, take memory offline.
"""

from pathlib import Path

import pytest


def in_guest() -> bool:
    """Tell by the kernel's command line: unlike an environment variable, nobody sets that by mistake."""
    return "pydamon.lab=1" in Path("/proc/cmdline").read_text().split()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guest: runs in the guest lab (make lab), as root, on a kernel with everything")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if in_guest():  # an emulated machine, which is slow
        for item in items:
            item.add_marker(pytest.mark.timeout(900))
        return
    skip = pytest.mark.skip(reason="needs the guest lab (make lab)")
    for item in items:
        if item.get_closest_marker("guest"):
            item.add_marker(skip)
