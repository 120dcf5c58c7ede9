"""A process's mappings: parsed anew only when they have changed."""

from __future__ import annotations

import mmap
import os

from pydamon.linux.process import Process


def test_the_same_list_as_long_as_nothing_changes() -> None:
    process = Process(os.getpid())
    try:
        process.mappings()  # a heap that grows meanwhile would be a change
        before = process.mappings()
        assert process.mappings() is before
        with mmap.mmap(-1, 1 << 24):
            after = process.mappings()
        assert after is not before
        assert sum(m.end - m.start for m in after) >= sum(m.end - m.start for m in before) + (1 << 24)
    finally:
        process.close()
