"""PAGEMAP_SCAN of this process's own memory."""

from __future__ import annotations

import errno
import mmap

import numpy as np
import pytest

from pydamon.linux.pagemap import Pagemap
from pydamon.linux.pagemap_scan import populated, resident_part

PAGE = 4096
RUNS = 1000  # more than the kernel collects at a time (512), and fewer than are asked for at once


def test_a_call_with_many_ranges_says_how_far_it_came() -> None:
    """The kernel's own word for that is where its buffer was full before."""
    with mmap.mmap(-1, 2 * RUNS * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for run in range(RUNS):
            memory[2 * run * PAGE] = 1
        view = np.frombuffer(memory, np.uint8)
        start = int(view.ctypes.data)
        del view  # memory that is looked at cannot be closed
        end = start + len(memory)
        pagemap = Pagemap("self")
        try:
            runs, walked = resident_part(pagemap.fileno(), start, end)
            all_of_it = populated(pagemap.fileno(), start, end, 1 << 20)
            some, stopped = populated(pagemap.fileno(), start, end, 600)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
            pytest.skip("PAGEMAP_SCAN needs Linux 6.7")
        finally:
            pagemap.close()
        assert (len(runs), walked) == (RUNS, end)
        assert (len(all_of_it[0]), all_of_it[1]) == (RUNS, end)
        assert len(some) == 600
        assert int(some[-1, 1]) <= stopped < end
