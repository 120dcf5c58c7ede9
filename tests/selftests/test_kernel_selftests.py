"""The kernel's own DAMON selftests pass on damonfs, which is bound over the DAMON directory for them alone."""

from __future__ import annotations

import functools
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


# What damonfs looks like for the tests of which kernel: those of 7.3 also pass on what came before and after it.
ON = [("6.12", "6.12"), ("7.3", "7.2"), ("7.3", "7.3"), ("7.3", "mm")]


@functools.cache
def why_not(kernel: str) -> str | None:
    from pydamon.damonfs.fuse import binding

    try:
        binding()
        selftests.prepare(kernel)
    except (MachineError, selftests.Missing) as error:
        return str(error)
    if os.getuid() != 0:
        return "needs root"
    return None if os.path.exists("/dev/fuse") else "there is no /dev/fuse"


def check(name: str, of: str, level: str, tries: int) -> selftests.Result:
    reason = why_not(of)
    if reason is not None:
        pytest.skip(f"the kernel's selftests cannot run: {reason}")
    return selftests.run(name, of=of, level=level, tries=tries)


@pytest.mark.parametrize(
    ("of", "level", "name"),
    [(of, level, name) for of, level in ON for name in sorted({*selftests.TESTS[of]} - TIMED)]
    + [("6.12", "6.12", name) for name in selftests.DEBUGFS_TESTS],
)
def test_it_passes(of: str, level: str, name: str) -> None:
    # The one that looks for leaks counts the process ids of the whole machine.
    result = check(name, of, level, tries=4 if name.endswith("pid_leak.sh") else 1)
    if result.status == selftests.SKIPPED:
        pytest.skip(f"it skips itself: {result.output.strip()}")
    assert result.status == 0, result.output


@pytest.mark.truth
@pytest.mark.parametrize(("of", "level", "name"), [(of, of, name) for of in selftests.TESTS for name in sorted(TIMED)])
def test_it_passes_when_the_machine_has_time(of: str, level: str, name: str) -> None:
    result = check(name, of, level, tries=4)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    if result.status != 0 and busy > 1.5:  # its workload and the kdamond did not get the CPU that it counts on
        pytest.skip(f"the machine has no time for it: {busy:.1f} tasks wait for each CPU")
    assert result.status == 0, result.output
