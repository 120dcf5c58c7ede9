"""What the tests of the engine ``kernel`` begin with: a kernel in a directory, and the user's own directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engines.kernel_fake import FakeTree, make_roots

from pydamon.engines.kernel.engine import KernelEngine
from pydamon.linux.damon_sysfs import Roots
from pydamon.spec import Spec


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


@pytest.fixture
def start(roots: Roots, own: int) -> Iterator[Callable[..., KernelEngine]]:
    """Opens engines, and closes those that a test leaves."""
    opened = []

    def open_engine(tree: FakeTree, spec: Spec, **options: Any) -> KernelEngine:
        engine = KernelEngine(spec, directory_fd=own, roots=roots, tree=tree, **options)
        opened.append(engine)
        return engine

    yield open_engine
    for engine in opened:
        engine.close()
    assert os.listdir(own) == []
