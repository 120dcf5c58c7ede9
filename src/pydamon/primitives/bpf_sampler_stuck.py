"""Regions whose pages cannot be cleared alone: where they are much of a process, all of it is cleared for them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_sampler_loaded import Loaded
from pydamon.primitives.bpf_sampler_map import SamplerMap

_LOOK_AGAIN_NS = 500_000_000  # where no process has enough of such pages


class StuckRegions:
    """Looks for them in ``memory``, when something may come of it."""

    def __init__(self) -> None:
        self._from_ns = 0

    def clear(self, memory: SamplerMap, targets: Iterable[Loaded]) -> None:
        """Clear processes that are due by what `Clearer.clear_stuck` allows, and draw for the regions again."""
        now_ns = time.perf_counter_ns()
        if now_ns < self._from_ns:
            return
        self._from_ns = now_ns + _LOOK_AGAIN_NS
        for loaded in targets:
            records = range(loaded.first_record, loaded.end_record)
            count = sum(memory.unwatched[record] for record in records)
            if not count or memory.statuses[loaded.first_record] != lay.OK:
                continue
            clearer = loaded.watched.primitive.clearer
            stuck, total = _pages(memory, loaded)
            if clearer.clear_stuck(stuck, total):
                for record in records:
                    memory.run(lay.DRAW | lay.FRESH, record, record + 1)
                left = sum(memory.unwatched[record] for record in records)
                clearer.stuck_helped(count - left, count)
            due_ns = clearer.stuck_due_ns(stuck, total)
            if due_ns is not None:
                self._from_ns = min(self._from_ns, due_ns)


def _pages(memory: SamplerMap, loaded: Loaded) -> tuple[int, int]:
    """How many pages of a target are in regions without a watched page, and in all; resident ones, where it is told."""
    unwatched = memory.regions["watched"][loaded.first : loaded.end] == 0
    resident = loaded.watched.resident
    pages = memory.region_words[loaded.first : loaded.end, 1] if resident is None else resident.count
    return int(pages[unwatched].sum(dtype=np.uint64)), int(pages.sum(dtype=np.uint64))
