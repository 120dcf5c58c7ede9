"""What ``calibrate`` needs another machine for: swap in zram, and a second NUMA node."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.linux.swap import swap_devices
from pydamon.run.calibration import pages, swapping
from pydamon.run.calibration.timing import LEAST, Bench

pytestmark = pytest.mark.guest

MIB = 1 << 20
BENCH = Bench(16 * MIB, "/tmp", 20_000_000_000, most=LEAST)


def test_pages_go_to_zram_and_come_back() -> None:
    """Each access waits for its own page, as zram needs no read-ahead."""
    used = sum(one.used_bytes for one in swap_devices())
    found = swapping.swap(BENCH)
    assert {"zram_in_ns", "zram_out_ns", "zram_readahead", "willneed_ns"} == found.keys()
    assert all(len(values) >= LEAST and min(values) > 0 for values in found.values())
    assert 1 <= np.median(found["zram_readahead"]) <= 2
    assert sum(one.used_bytes for one in swap_devices()) < used + 2 * MIB  # nothing of it is left there


def test_pages_are_moved_to_the_other_node_and_back() -> None:
    (found,) = pages.migrate(BENCH).values()
    assert len(found) == LEAST
    assert min(found) > 0
