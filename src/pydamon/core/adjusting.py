"""The adaptive adjustment of one loop's regions, with what it has to remember from one round to the next.

How regions are merged, split and cut is in `core.adjust`; here is when, and within which bounds:
docs/algorithms.md 2.3, 2.4, 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core import adjust, boundaries
from pydamon.core.regions import U64, Regions
from pydamon.spec import NrRegions


class Adjusting:
    """``sz_limit`` is the size in bytes up to which regions are merged; ``boundaries`` are those of mappings.

    The kernel has one counter for all of its kdamonds that says whose turn it is to be split, and one number of regions
    of the last round. Here each loop has its own, so that what else is monitored changes nothing in its regions.
    """

    def __init__(self, min_region: int, rng: np.random.Generator) -> None:
        self.sz_limit = 0
        self.boundaries = boundaries.Boundaries()
        self._min_region = min_region
        self._rng = rng
        self._last_nr_regions = 0
        self._turn = 0

    def initial(self, ranges: Sequence[U64], min_nr_regions: int) -> list[Regions]:
        """The first regions of each target: its ranges, (n, 2) bytes, in even pieces."""
        total = sum(int((r[:, 1] - r[:, 0]).sum(dtype=np.uint64)) for r in ranges)
        piece = max(total // min_nr_regions, self._min_region)
        return [adjust.initial_regions(r, piece, self._min_region) for r in ranges]

    def limit_sizes(self, targets: list[Regions], bounds: NrRegions, *, exactly: bool) -> list[Regions]:
        """Find the limit of sizes anew and cut what is larger: ``exactly`` at it, as the kernel does, or roughly.

        Only if the maximum number of regions holds, for that bounds the cost; the kernel goes beyond it here.
        """
        total = sum(map(Regions.total_size, targets))
        limit = self.sz_limit = adjust.size_limit(total, bounds.min, self._min_region)
        if exactly:
            limited = [adjust.cut_at_limit(regions, limit) for regions in targets]
        else:
            limited = [adjust.split_larger_than(regions, limit, self._min_region) for regions in targets]
        return limited if sum(map(len, limited)) <= bounds.max else targets

    def cut_at_mappings(
        self,
        mapped: Mapping[int, Sequence[boundaries.Span]],
        targets: list[Regions],
        max_nr_regions: int,
        nr_gaps: int,
    ) -> list[Regions]:
        """Let the regions of ``targets`` end where the mappings of each do, which ``mapped`` has by its number.

        ``nr_gaps`` between mappings are left out of the targets' ranges.
        """
        total = sum(map(Regions.total_size, targets))
        smallest = boundaries.large_spans(total, max_nr_regions, self._min_region, nr_gaps)
        self.boundaries.look(mapped, smallest, self._min_region)
        pairs = zip(mapped, targets, strict=True)
        cut = [boundaries.cut(regions, self.boundaries.of(target)) for target, regions in pairs]
        return cut if sum(map(len, cut)) <= max_nr_regions else targets

    def merge(
        self,
        numbers: Sequence[int],
        targets: list[Regions],
        max_nr_regions: int,
        window: int,
        *,
        at_mappings: bool,
        elapsed_ns: int,
    ) -> list[Regions]:
        """Age and merge the regions of the ``targets`` of these ``numbers`` at the end of an aggregation.

        Never what was seen with what was not, and if ``at_mappings`` not across boundaries of mappings, either.
        """
        bounds = [adjust.blind_bounds(regions, window) for regions in targets]
        if at_mappings:
            pairs = zip(numbers, bounds, strict=True)
            bounds = [boundaries.united(self.boundaries.of(number), more) for number, more in pairs]
        return adjust.merge_all(
            targets,
            max_seen=max((int(r.nr_accesses.max()) for r in targets if len(r)), default=0),
            sz_limit=self.sz_limit,
            max_nr_regions=max_nr_regions,
            window=window,
            boundaries=bounds if at_mappings or any(map(len, bounds)) else (),
            elapsed_ns=elapsed_ns,
        )

    def merge_back(self, number: int, regions: Regions, wanted: NDArray[np.bool_], *, at_mappings: bool) -> Regions:
        """Put regions of the target ``number`` together again: see `adjust.merge_back`."""
        bounds = self.boundaries.of(number) if at_mappings else boundaries.NO_BOUNDARIES
        return adjust.merge_back(regions, wanted, self.sz_limit, bounds)

    def split(self, targets: list[Regions], max_nr_regions: int) -> list[Regions]:
        """Split regions: all of them, or, above half of the maximum, as many as there is room for (2.5)."""
        n = sum(map(len, targets))
        last, self._last_nr_regions = self._last_nr_regions, n
        if n >= max_nr_regions:
            return targets
        if n > max_nr_regions // 2:
            step = max_nr_regions // (max_nr_regions - n)
            turn, self._turn = self._turn, self._turn + 1
            return adjust.split_every(targets, step, turn % step, min_region=self._min_region, rng=self._rng)
        return adjust.split_all(
            targets,
            last_nr_regions=last,
            max_nr_regions=max_nr_regions,
            min_region=self._min_region,
            rng=self._rng,
        )
