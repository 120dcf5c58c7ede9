"""What the tests of the engine ``kernel`` begin with: a kernel in a directory, and the user's own directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.engines.kernel_fake import make_roots

from pydamon.linux.damon_sysfs import Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A machine whose DAMON nobody uses."""
    return make_roots(tmp_path / "kernel")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[int]:
    """The user's directory, open."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
