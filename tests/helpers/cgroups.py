"""Real cgroups of tests: gone when the test is, whatever was in them."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.waiting import wait_until


def remove(cgroup: Path) -> None:
    """Remove it once its processes are gone."""

    def removed() -> bool:
        try:
            cgroup.rmdir()
        except OSError:
            return False
        return True

    wait_until(removed, every_s=0.05)
