"""The guard itself: neither tests nor what they start can write to the host's DAMON."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_guest import in_guest

pytestmark = pytest.mark.skipif(in_guest(), reason="in the guest lab the tree is ours")

STATE = "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds"


def test_this_process_cannot_open_it_for_writing() -> None:
    with pytest.raises(PermissionError, match="must not write"):
        Path(STATE).write_text("1")


@pytest.mark.usefixtures("processes")
def test_a_child_cannot_either() -> None:
    child = subprocess.run([sys.executable, "-c", f"open({STATE!r}, 'w')"], capture_output=True, text=True)
    assert "must not write" in child.stderr


def test_nor_parameters_of_its_modules() -> None:
    with pytest.raises(PermissionError, match="must not write"):
        Path("/sys/module/damon_reclaim/parameters/enabled").write_text("Y")
