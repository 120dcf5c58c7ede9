"""All tests in this folder start processes."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _starts_processes(processes: None) -> None:
    """They are marked by it (conftest.py of the checkout)."""
