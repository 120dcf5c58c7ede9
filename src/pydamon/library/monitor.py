"""Run a spec on an engine and iterate its snapshots, in this thread or asynchronously."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import msgspec

from pydamon.core.callbacks import Callbacks
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Choice, Cost, Engine
from pydamon.errors import PydamonError
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec import Intervals, NrRegions, Probe, Scheme, Spec
from pydamon.spec.units import parse_time_ns

if TYPE_CHECKING:
    from pydamon.core.scheme_state import SchemeState
    from pydamon.ops.reported.reports import AccessReports
    from pydamon.ops.reported.sources.base import Source
    from pydamon.workload.model import Workload

EngineName = Literal["auto", "user", "kernel", "sim", "reported"]
_QUEUED = 16  # aggregations that wait for an asynchronous reader


class Monitor:
    """A spec on an engine. Iterate it for snapshots; each iteration begins when the one before has ended.

    ``engine``, for running processes and physical memory: ``user`` (default), the ``kernel``'s DAMON, or ``auto``: that
    if it is free and can do it, else ``user``; `chosen` says which and why. A simulation needs a ``workload`` (a name,
    a file, or a `Workload`), reported accesses a ``source``. ``duration`` (text with a unit, or ns) ends it.
    ``callbacks`` are called by the loop with its `Kdamond`. ``dry_run``: schemes find out what they would do, and do
    nothing. ``max_cpu``: a share of one CPU that this process stays below. ``panel``: the number of pages of the page
    panel, 0 for none.

    A context manager: what it has opened is closed in the end, also if it was never iterated. Raises RequestError or
    MachineError as the command does.
    """

    def __init__(
        self,
        spec: Spec,
        engine: EngineName | None = None,
        *,
        workload: Workload | str | None = None,
        source: Source | None = None,
        callbacks: Callbacks | None = None,
        seed: int | None = None,
        duration: str | int | None = None,
        max_cpu: float | None = None,
        dry_run: bool = False,
        panel: int | None = None,
    ) -> None:
        self.spec = spec
        self.notices: list[str] = []  # lines for the user, so far
        self._began = self._closed = False
        request = Request(
            engine=engine,
            workload=workload,
            source=source,
            seed=seed,
            duration_ns=parse_time_ns(duration) if isinstance(duration, str) else duration,
            max_cpu=max_cpu,
            dry_run=dry_run,
            panel=panel,
        )
        self._run = Run(spec, request, callbacks=callbacks, say=self.notices.append)
        self._loop: Generator[list[Snapshot], None, None] | None = None

    @property
    def engine(self) -> Engine:
        """What monitors."""
        return self._run.engine

    @property
    def chosen(self) -> Choice:
        """Which engine, and, where it was to be chosen, why that one."""
        return self._run.chosen

    # -- snapshots ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Snapshot]:
        """The snapshots, one per target and aggregation, until it ends; leaving the loop early ends it, too."""
        for snapshots in self.aggregations():
            yield from snapshots

    def aggregations(self) -> Iterator[list[Snapshot]]:
        """The snapshots of all targets, once per aggregation interval."""
        self._begin()
        self._loop = self._run.monitor()
        yield from self._loop

    async def __aiter__(self) -> AsyncIterator[Snapshot]:
        """The same for asynchronous programs: it monitors in a thread of its own, at most some snapshots ahead."""
        self._begin()
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[list[Snapshot] | BaseException | None] = asyncio.Queue()
        room = threading.Semaphore(_QUEUED)

        def put(item: list[Snapshot] | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the program's loop is closed: nobody listens any more
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            end: BaseException | None = None
            try:
                for snapshots in self._run.monitor():
                    put(snapshots)
                    room.acquire()
            except BaseException as error:
                end = error
            put(end)

        worker = threading.Thread(target=work, name="pydamon", daemon=True)
        worker.start()
        try:
            while True:
                item = await queue.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                for snapshot in item:
                    yield snapshot
                room.release()
        finally:
            self.stop()
            room.release(1 << 20)  # it does not wait any more
            await asyncio.to_thread(worker.join)

    def _begin(self) -> None:
        if self._closed:
            raise PydamonError("is closed", where="Monitor")
        if self._began:
            raise PydamonError("can be iterated once; make another one", where="Monitor")
        self._began = True

    def stop(self) -> None:
        """End the monitoring; safe from any thread and from signal handlers."""
        self._run.stop()

    # -- what can be asked and changed meanwhile ------------------------------------------------------------------

    @property
    def choice(self) -> Choice:
        """Through which primitive, and why."""
        return self.engine.choice

    @property
    def intervals(self) -> Intervals:
        """Those in force, as tuned by now."""
        return self.engine.context.intervals

    @property
    def schemes(self) -> list[SchemeState]:
        """The running schemes: statistics, effective quota, goals, and the regions that were tried last."""
        return self.engine.schemes()

    @property
    def reports(self) -> AccessReports | None:
        """Where accesses can be reported to, with ops ``reported``."""
        return self.engine.reports

    def commit(
        self,
        *,
        intervals: Intervals | None = None,
        nr_regions: NrRegions | None = None,
        schemes: tuple[Scheme, ...] | None = None,
        probes: tuple[Probe, ...] | None = None,
        pause: bool | None = None,
    ) -> None:
        """Change what is given without losing regions; raises RequestError, and changes nothing then.

        ``pause``: sample nothing until it is committed as False.
        """
        given = {"intervals": intervals, "nr_regions": nr_regions, "schemes": schemes, "probes": probes, "pause": pause}
        changes = {name: value for name, value in given.items() if value is not None}
        self._run.commit(msgspec.structs.replace(self.engine.asked, **changes))

    def set_goal(self, name: str, value: int) -> None:
        """Tell the measured value of a goal of the metric ``user_input``, by its name or ``scheme.goal`` numbers."""
        self._run.set_goal(name, value)

    def cost(self) -> Cost | None:
        """What monitoring has cost so far; None in a simulation."""
        return self.engine.cost()

    # -- records ------------------------------------------------------------------------------------------------

    def record(self, path: str) -> int:
        """Monitor until the end and write a record; returns the number of snapshots. Notices go to `notices`."""
        self._begin()
        self._run.output = path
        self._run.run()
        return self._run.snapshots

    # -- its end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give everything back. A monitoring that runs in another thread is told to end."""
        self._closed = True
        self._run.close()
        if self._loop is not None:
            with contextlib.suppress(ValueError):  # another thread is in it: it has been told
                self._loop.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
