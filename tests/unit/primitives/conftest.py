"""What the tests of the primitives share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pydamon.primitives.bpf import PageTableWalk


@pytest.fixture(scope="module")
def walk() -> Iterator[PageTableWalk]:
    """A walk of page tables on this machine; tests that ask for it are skipped where there can be none."""
    walk = PageTableWalk()
    yield walk
    walk.close()
