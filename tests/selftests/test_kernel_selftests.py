"""The kernel's own DAMON selftests pass on damonfs, which is bound over the DAMON directory for them alone."""

from __future__ import annotations

import os

import pytest
from tests.selftests import kernel_selftests as selftests

from pydamon.errors import MachineError

# They say how much was accessed when: the machine may be too busy for the workload to access anything.
TIMED = {
    "damon_nr_regions.py",
    "damos_quota.py",
    "damos_quota_goal.py",
    "damos_apply_interval.py",
    "damos_tried_regions.py",
    "sysfs_update_schemes_tried_regions_wss_estimation.py",
}


def why_not() -> str | None:
    from pydamon.damonfs.fuse import binding

    try:
        binding()
        selftests.prepare()
    except (MachineError, selftests.Missing) as error:
        return str(error)
    if os.getuid() != 0:
        return "needs root"
    return None if os.path.exists("/dev/fuse") else "there is no /dev/fuse"


@pytest.fixture(autouse=True, scope="module")
def _possible() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"the kernel's selftests cannot run: {reason}")


@pytest.mark.parametrize("name", [*sorted({*selftests.TESTS} - TIMED), *selftests.DEBUGFS_TESTS])
def test_it_passes(name: str) -> None:
    # The one that looks for leaks counts the process ids of the whole machine.
    result = selftests.run(name, tries=4 if name.endswith("pid_leak.sh") else 1)
    if result.status == selftests.SKIPPED:
        pytest.skip(f"it skips itself: {result.output.strip()}")
    assert result.status == 0, result.output


@pytest.mark.truth
@pytest.mark.parametrize("name", sorted(TIMED))
def test_it_passes_when_the_machine_has_time(name: str) -> None:
    result = selftests.run(name, tries=4)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    if result.status != 0 and busy > 1.5:  # its workload and the kdamond did not get the CPU that it counts on
        pytest.skip(f"the machine has no time for it: {busy:.1f} tasks wait for each CPU")
    assert result.status == 0, result.output
