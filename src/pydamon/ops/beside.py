"""Sampling and reports in one context: pages are sampled through primitives, and a live source reports beside them.

Each sample of a region has one answer, and it is counted who gave it:

- the primitive, where it knows whether the sampled page was accessed;
- the reports, where the primitive does not know (pages that several processes map, locked memory): the region was
  accessed if any access within it was reported in this sampling interval, else it stays unknown, for reports of samples
  say nothing about what was not accessed;
- the reports, too, where one names just the page that the primitive has found not accessed.

So a region counts once per sample at most, however many reports there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import Addresses
from pydamon.ops.heard import Heard, in_regions
from pydamon.ops.reported.reports import AccessFilter, Reports
from pydamon.ops.reported.sources.base import Block, LiveSource, WakingSource
from pydamon.ops.sampling import PageOps, PageSampler
from pydamon.ops.touched import page_of
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers


class Tally(msgspec.Struct):
    """Samples of regions by who answered, and accesses that were reported, since the last look."""

    by_primitive: int = 0
    by_reports: int = 0
    unknown: int = 0
    reports: int = 0


class BesideSampler(PageSampler):
    """A `PageSampler` that ``source``, whose targets are the first of ``ops``, reports beside; ``accept`` filters that.

    ``lost`` counts accesses of which only the number is known. The source is read with each sample of a target, and
    when it has much to tell (`collect`, which the sleep between two samples calls).
    """

    def __init__(
        self,
        ops: PageOps,
        rng: Callable[[int], np.random.Generator],
        source: LiveSource,
        accept: AccessFilter,
    ) -> None:
        super().__init__(ops, rng)
        self.source = source
        self.lost = 0
        self._accept = accept
        self._over = False
        self._heard = Heard()
        self._tallies: dict[int, Tally] = {}

    def check_accesses(self, target: int) -> Answers:
        """What the primitive knows, completed by what was reported."""
        answers = super().check_accesses(target).copy()
        self.collect()
        reported, reports = self._heard.take(target)
        tally = self._tallies.setdefault(target, Tally())
        changed = 0
        if reports:
            tally.reports += reports
            region, page = self._hits(target, reported)
            more = ((answers == UNKNOWN) & region) | ((answers == NOT_ACCESSED) & page)
            changed = int(np.count_nonzero(more))
            answers[more] = ACCESSED
        unknown = int(np.count_nonzero(answers == UNKNOWN))
        tally.by_reports += changed
        tally.unknown += unknown
        tally.by_primitive += len(answers) - changed - unknown
        return answers

    def _hits(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """In which regions an access was reported, and in which to the very page that was drawn."""
        start, end = self._regions[target]
        region, page = np.zeros((2, len(start)), np.bool_)
        place, addresses = in_regions(addresses, start, end)
        region[place] = True
        page[place[page_of(self._drawn[target][place]) == page_of(addresses)]] = True
        return region, page

    def fileno(self) -> int:
        """Readable when the source has much to tell; -1 if it does not say so, or has ended."""
        return self.source.fileno() if isinstance(self.source, WakingSource) and not self._over else -1

    def wake(self) -> None:
        """Read it, so that there is room for more."""
        self.collect()

    def collect(self) -> None:
        """Read what has come without waiting; it is kept until its target is sampled."""
        if self._over:
            return
        block = self.source.read()
        if block is None:
            self._over = True
            return
        self.lost += block.lost
        targets = np.zeros(len(block.address), np.uint16) if block.target is None else block.target
        passes = self._accept.passes(_as_reports(block, targets))
        wanted = np.ones(len(targets), np.bool_) if passes is None else passes
        for target in np.unique(targets[wanted]).tolist():
            self._heard.add(target, block.address[wanted & (targets == target)])

    def take_rows(self, time_ns: int) -> list[dict[str, Any]]:
        """Rows of the side table ``answers``: who has answered since the last call."""
        tallies, self._tallies = self._tallies, {}
        return [{"time_ns": time_ns, "target": n, **msgspec.structs.asdict(t)} for n, t in sorted(tallies.items())]

    def forget(self, target: int) -> None:
        """The target has ended."""
        super().forget(target)
        self._heard.forget(target)

    def remarks(self) -> list[str]:
        """What a user should know of the reports."""
        lost = [f"{self.lost} reports were lost: they came faster than they were read"] if self.lost else []
        return self.source.remarks() + lost


def _as_reports(block: Block, targets: NDArray[np.uint16]) -> Reports:
    """For `AccessFilter`."""
    nobody, n = np.full(len(targets), -1, np.int32), len(targets)
    return Reports(
        address=block.address,
        size=block.size,
        when_ns=block.when_ns,
        nr_accesses=np.ones(n, np.uint32),
        cpu=nobody if block.cpu is None else block.cpu,
        node=nobody if block.node is None else block.node,
        thread=nobody if block.thread is None else block.thread,
        target=targets,
        flags=block.is_write.astype(np.uint8),
    )
