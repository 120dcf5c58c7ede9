"""What tests of the lab share with those in tests/."""

from __future__ import annotations

import pytest


@pytest.fixture
def processes() -> None:
    """Asked for by tests that start processes (tests/conftest.py)."""
