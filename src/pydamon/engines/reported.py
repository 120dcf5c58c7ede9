"""The ``reported`` engine: our core over accesses that a source tells, in the source's own time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pydamon.core.callbacks import Callbacks
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Choice, Kind, Rows
from pydamon.engines.on_core import OnCore, only_context
from pydamon.errors import RequestError
from pydamon.ops.base import Ranges
from pydamon.ops.reported.ops import ReportedOps, Scope, Silence
from pydamon.ops.reported.reports import AccessFilter, AccessReports
from pydamon.ops.reported.sources.base import Block, LiveSource, Source
from pydamon.spec import ONLY_CONTEXT, Spec, Target

if TYPE_CHECKING:
    from pydamon.core.damos import Damos


class TraceClock:
    """Time as the source tells it: a sleep reads on until that time is reached, and reports what happened meanwhile.

    ``now_ns`` begins at the first access that is read, or at once with a live source. Once the source has ended all
    sleeps return False at once and the targets of ``reports`` are ended. ``stopping`` is asked after each block.
    """

    def __init__(self, source: Source, reports: AccessReports) -> None:
        self.source = source
        self.stopping: Callable[[], bool] = lambda: False
        self.collect: Callable[[int], None] = lambda until_ns: None  # told the time up to which all was reported
        self.ended = False
        self._live = source if isinstance(source, LiveSource) else None
        self._reports = reports
        self._block: Block | None = None  # what was read; its first ``_passed`` rows were reported
        self._passed = 0
        self._now_ns = 0

    def now_ns(self) -> int:
        """The source's time."""
        return self._now_ns

    def prime(self) -> Block | None:
        """Read the first accesses ahead, and begin at their time; None if there are none.

        A live source is read once: perhaps nothing has happened yet.
        """
        while self._block is None and not self.stopping():
            block = self.source.read()
            if block is None:
                self._end()
                return None
            self._reports.note_lost(block.lost)
            if len(block.address) or self._live is not None:
                self._block = block
                self._now_ns = int(block.when_ns[0]) if len(block.address) else block.end_ns
        return self._block

    def sleep_ns(self, duration_ns: int) -> bool:
        """Read on for that time; False if the source ends before, or if the monitoring is to stop."""
        goal_ns = self._now_ns + duration_ns
        if self._live is not None:
            self._live.aim(goal_ns)
        while not self.ended:
            if self._block is not None:
                if self._report_until(self._block, goal_ns):
                    self._now_ns = goal_ns
                    return True
                self._now_ns = max(self._now_ns, self._block.end_ns)
            if self.stopping():
                break
            block = self.source.read()
            if block is None:
                self._end()
            else:
                self._block, self._passed = block, 0
                self._reports.note_lost(block.lost)
        return False

    def _report_until(self, block: Block, until_ns: int) -> bool:
        """Report what happened before ``until_ns``; whether there can be nothing more of that time."""
        beyond = int(np.searchsorted(block.when_ns, until_ns, side="left"))
        if beyond > self._passed:
            self._report(block, slice(self._passed, beyond))
            self._passed = beyond
            self.collect(until_ns)
        return beyond < len(block.when_ns) or block.end_ns >= until_ns

    def _report(self, block: Block, rows: slice) -> None:
        targets = None if block.target is None else block.target[rows]
        for target in range(self._reports.nr_targets) if targets is not None else (0,):
            mine = np.flatnonzero(targets == target) if targets is not None else slice(None)
            self._reports.report_accesses(
                target,
                block.address[rows][mine],
                block.size[rows][mine],
                cpus=None if block.cpu is None else block.cpu[rows][mine],
                nodes=None if block.node is None else block.node[rows][mine],
                threads=None if block.thread is None else block.thread[rows][mine],
                is_write=block.is_write[rows][mine],
                when_ns=block.when_ns[rows][mine],
            )

    def _end(self) -> None:
        self.ended = True
        self._reports.end()


class ReportedEngine(OnCore):
    """Runs a ``reported`` spec on a source; ends with it, and closes it. Equal traces and seeds give equal results.

    ``name`` is what the source is called. ``accept``, ``scope`` and ``silence`` are those of :class:`ReportedOps`.
    Raises RequestError if the spec does not have as many targets as the source, or (from ``prime`` and ``monitor``) if
    the source is not what it should be.
    """

    kind: Kind = "reported"
    ops: ReportedOps
    clock: TraceClock
    reports: AccessReports

    def __init__(
        self,
        spec: Spec,
        source: Source,
        *,
        name: str = "",
        callbacks: Callbacks | None = None,
        seed: int | None = None,
        accept: AccessFilter | None = None,
        scope: Scope | None = None,
        silence: Silence | None = None,
    ) -> None:
        self.source = source
        try:
            context = only_context(spec, "reported")
            if len(context.targets) != source.nr_targets:
                raise RequestError(
                    f"has {len(context.targets)} entries; the source tells of {source.nr_targets}",
                    where=f"{ONLY_CONTEXT}.targets",
                )
        except BaseException:
            source.close()
            raise
        self._joined = [_row(number, target, name or source.name) for number, target in enumerate(context.targets)]
        self.reports = AccessReports(source.nr_targets)
        clock = TraceClock(source, self.reports)
        what = "every access is told" if source.complete else "samples of accesses: hotness, not every access"
        rng = np.random.default_rng(seed)
        ops = ReportedOps(
            self.reports,
            clock,
            complete=source.complete,
            scope=scope,
            silence=silence,
            accept=accept,
            initial=[_ranges(target) for target in context.targets],
            rng=rng,
            mapped=source.mappings if isinstance(source, LiveSource) else None,
        )
        clock.collect = ops.collect
        clock.stopping = lambda: self.stop_requested
        self._primed = False
        super().__init__(
            msgspec.structs.replace(context, faithful=True),
            ops=ops,
            clock=clock,
            choice=Choice(source.name, what),
            callbacks=callbacks,
            rng=rng,
        )

    def notices(self) -> list[str]:
        """What there is to say of schemes: a source that is silent says nothing about memory."""
        self.kdamond.take_notices()
        return super().notices()

    def side_rows(self, snapshots: list[Snapshot]) -> dict[str, Rows]:
        """Nothing: for the same reason nothing is blind."""
        self.kdamond.blindness.take_found()
        return {}

    def _new_damos(self) -> Damos:
        from pydamon.core.damos import Damos

        return Damos(self.ops, self.clock, hot=self.reports.hot_ranges)

    def prime(self) -> None:
        """Wait for the first accesses; ``monitor`` does it, too. Raises RequestError if the source is a wrong one."""
        if self._primed:
            return
        self._primed = True
        try:
            block = self.clock.prime()
        except BaseException:
            self.source.close()
            raise
        if block is not None:
            for target in range(self.ops.nr_targets):
                mine = block.address if block.target is None else block.address[block.target == target]
                self.ops.foresee(target, mine)

    def _monitor(self) -> Generator[list[Snapshot], None, None]:
        self.prime()
        try:
            yield from self.kdamond.monitor()
        finally:
            self.source.close()

    def _give_back(self) -> None:
        self.source.close()
        super()._give_back()

    def joined(self) -> Rows:
        """Whose accesses are reported, once."""
        joined, self._joined = self._joined, []
        return joined

    def remarks(self) -> list[str]:
        """What a user should know about the input, one line each: lines that were not understood, reports lost."""
        counts = self.source.counts
        remarks = self.source.remarks() if isinstance(self.source, LiveSource) else []
        if counts.garbage:
            lines = "1 line was" if counts.garbage == 1 else f"{counts.garbage} lines were"
            remarks.append(f"{lines} not understood, the first: {counts.garbage_example!r}")
        if self.ops.late:
            remarks.append(f"{self.ops.late} accesses came too late to be counted: the times go back")
        if self.ops.dropped:
            remarks.append(f"{self.ops.dropped} reports were dropped")
        return remarks


def _row(number: int, target: Target, name: str) -> dict[str, object]:
    return {"target": number, "command": name} if target.pid is None else {"target": number, "pid": target.pid}


def _ranges(target: Target) -> Ranges:
    return np.array([(region.start, region.end) for region in target.regions], np.uint64).reshape(-1, 2)
