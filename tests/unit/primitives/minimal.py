"""The least that a primitive is, to begin a new one from: a page counts as accessed if it is in memory.

With a row in `pydamon.spec.primitives` and one in `pydamon.primitives.registry` this can be monitored with
(`test_registry` does so).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydamon.linux import pagemap
from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers, PrimitiveCost, Shared


class MinimalPrimitive:
    """Looks at the pagemap of one process. Raises MachineError if it may not."""

    name = "minimal"

    def __init__(self, process: Process) -> None:
        self.cost = PrimitiveCost()
        self._pagemap = pagemap.Pagemap(process.pid)
        self._addresses: Addresses = np.empty(0, np.uint64)

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Open a window of observation; every page can be watched."""
        self._addresses = addresses.copy()
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        """Watch other pages."""
        self._addresses[index] = addresses
        return np.ones(len(index), np.bool_)

    def check(self) -> Answers:
        """Accessed where a page is in memory, unknown where the process is gone."""
        begin = time.perf_counter_ns()
        entries, known = self._pagemap.entries(self._addresses)
        answers = np.where(known, np.where(pagemap.is_present(entries), ACCESSED, NOT_ACCESSED), UNKNOWN)
        self.cost.checks += len(answers)
        self.cost.check_ns += time.perf_counter_ns() - begin
        return answers.astype(np.uint8)

    def update(self) -> None:
        """Nothing is remembered about mappings."""

    def close(self) -> None:
        """Close the file."""
        self._pagemap.close()


def probe() -> None:
    """Raise MachineError if it cannot be used here."""
    pagemap.Pagemap("self").close()


def opener(shared: Shared) -> Callable[[Process], MinimalPrimitive]:
    """What opens it for one process; nothing is shared."""
    return MinimalPrimitive
