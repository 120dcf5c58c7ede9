"""Run a spec on an engine and iterate its snapshots, in this thread or asynchronously."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from pydamon.core.kdamond import Callbacks
from pydamon.core.snapshot import Snapshot
from pydamon.engines.user.choose import Choice
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Intervals, NrRegions, Probe, Scheme, Spec, to_builtins
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
    nothing. ``max_cpu``: a share of one CPU that this process stays below.

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
    ) -> None:
        self.spec = spec
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Iterated or recorded; the engine's loop was entered, and gives back itself what it has opened; it has ended.
        self._began = self._entered = self._done = self._closed = False
        self._lock = threading.RLock()  # a signal handler may come in between
        self._loop: Generator[list[Snapshot], None, None] | None = None
        callbacks = callbacks if callbacks is not None else Callbacks()
        try:
            self.engine = self._open(spec, engine, workload, source, callbacks, seed, max_cpu, dry_run)
        except BaseException:
            self._close_pipe()
            raise
        if duration is not None:
            length_ns = parse_time_ns(duration) if isinstance(duration, str) else duration
            self.engine.kdamond.end_ns = self.engine.clock.now_ns() + length_ns

    def _open(
        self,
        spec: Spec,
        engine: str | None,
        workload: Workload | str | None,
        source: Source | None,
        callbacks: Callbacks,
        seed: int | None,
        max_cpu: float | None,
        dry_run: bool,
    ) -> Any:
        if not spec.kdamonds:
            raise RequestError("has none: a module of the kernel runs without anybody who watches", where="kdamonds")
        ops = spec.kdamonds[0].contexts[0].ops
        natural = ops if ops in ("sim", "reported") else "user"
        engine = natural if engine is None else engine
        if engine not in get_args(EngineName):
            raise RequestError(f"{engine!r} is none; there are {', '.join(get_args(EngineName))}", where="engine")
        if engine == "auto" and natural != "user":
            engine = natural
        if engine != natural and not (engine in ("kernel", "auto") and natural == "user"):
            raise RequestError(f"{engine} does not run ops {ops}; {natural} does", where="engine")
        self.chosen = Choice(engine, "")
        automatic = engine == "auto"
        if automatic:
            from pydamon.run.kernel import OnlyUser, choose_engine

            self.chosen = choose_engine(engine, spec, OnlyUser(dry_run=dry_run, max_cpu=max_cpu))
            engine = self.chosen.name
        if engine == "sim":
            from pydamon.engines.sim import SimEngine
            from pydamon.workload.builtin import load

            if workload is None:
                raise RequestError("is needed with ops sim, e.g. 'stairs'", where="workload")
            played = load(workload) if isinstance(workload, str) else workload
            return SimEngine(spec, played, callbacks=callbacks, seed=seed or 0)
        if engine == "reported":
            from pydamon.engines.reported import ReportedEngine

            if source is None:
                raise RequestError("is needed with ops reported", where="source")
            return ReportedEngine(spec, source, callbacks=callbacks, seed=seed)
        from pydamon.engines.clock import MachineClock

        clock = MachineClock(wake_fd=self._wake_r)
        if engine == "kernel":
            from pydamon.run.kernel import OnlyUser, open_kernel_engine

            OnlyUser(dry_run=dry_run, max_cpu=max_cpu).refuse()
            try:
                return open_kernel_engine(spec, callbacks=callbacks, clock=clock)
            except (MachineError, RequestError) as error:
                if not automatic:
                    raise
                self.chosen = Choice("user", f"not the kernel's DAMON: {error}")
        from pydamon.engines.user.engine import UserEngine

        return UserEngine(spec, callbacks=callbacks, clock=clock, seed=seed, max_cpu=max_cpu, dry_run=dry_run)

    # -- snapshots ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Snapshot]:
        """The snapshots, one per target and aggregation, until it ends; leaving the loop early ends it, too."""
        for snapshots in self.aggregations():
            yield from snapshots

    def aggregations(self) -> Iterator[list[Snapshot]]:
        """The snapshots of all targets, once per aggregation interval."""
        self._begin()
        self._loop = self._run()
        yield from self._loop

    def _run(self) -> Generator[list[Snapshot], None, None]:
        self._entered = True
        try:
            yield from self.engine.monitor()
        finally:
            self._finished()

    def _finished(self) -> None:
        with self._lock:
            self._done = True
            if self._closed:
                self._close_pipe()

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
                for snapshots in self._run():
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
        self.engine.kdamond.stop()
        self._wake()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # full: it wakes up anyway
            if self._wake_w >= 0:
                os.write(self._wake_w, b"\0")

    # -- what can be asked and changed meanwhile ------------------------------------------------------------------

    @property
    def choice(self) -> Choice:
        """Through which primitive, and why."""
        choice: Choice = self.engine.choice
        return choice

    @property
    def intervals(self) -> Intervals:
        """Those in force, as tuned by now."""
        intervals: Intervals = self.engine.kdamond.intervals
        return intervals

    @property
    def schemes(self) -> list[SchemeState]:
        """The running schemes: statistics, effective quota, goals, and the regions that were tried last."""
        damos = self.engine.kdamond.damos
        return [] if damos is None else list(damos.states)

    @property
    def reports(self) -> AccessReports | None:
        """Where accesses can be reported to, with ops ``reported``."""
        reports: AccessReports | None = getattr(self.engine, "reports", None)
        return reports

    def commit(
        self,
        *,
        intervals: Intervals | None = None,
        nr_regions: NrRegions | None = None,
        schemes: tuple[Scheme, ...] | None = None,
        probes: tuple[Probe, ...] | None = None,
    ) -> None:
        """Change what is given without losing regions; raises RequestError, and changes nothing then."""
        kdamond = self.engine.kdamond
        commit = getattr(self.engine, "commit", kdamond.commit)
        given = {"intervals": intervals, "nr_regions": nr_regions, "schemes": schemes, "probes": probes}
        changes = {name: value for name, value in given.items() if value is not None}
        commit(msgspec.structs.replace(kdamond.asked, **changes))
        self._wake()

    def set_goal(self, name: str, value: int) -> None:
        """Tell the measured value of a goal of the metric ``user_input``, by its name or ``scheme.goal`` numbers."""
        damos = self.engine.kdamond.damos
        if damos is None:
            raise RequestError("there is no such goal; there are no schemes", where=f"goal {name}")
        damos.set_goal(name, value)

    def cost(self) -> PrimitiveCost | None:
        """What monitoring has cost so far; None in a simulation."""
        cost = getattr(self.engine, "cost", None)
        return cost() if cost is not None else None

    # -- records ------------------------------------------------------------------------------------------------

    def record(self, path: str) -> int:
        """Monitor until the end and write a record; returns the number of snapshots. Notices go to `notices`."""
        from pydamon.records.schema import build_metadata
        from pydamon.records.writer import RecordWriter, check_output
        from pydamon.run.recorder import Recorder

        self._begin()
        check_output(path)
        context = self.spec.kdamonds[0].contexts[0]
        joined = getattr(self.engine.ops, "take_joined", None)
        targets = joined() if joined is not None else [{"target": number} for number in range(len(context.targets))]
        virtual = context.ops in ("sim", "reported")
        metadata = build_metadata(
            targets=targets,
            spec=to_builtins(self.spec),
            ops=context.ops,
            primitive=self.choice.name,
            primitive_reason=self.choice.reason,
            **({"clock": "virtual"} if virtual else {"wall_offset_ns": time.time_ns() - time.monotonic_ns()}),
        )
        self.notices: list[str] = []
        with RecordWriter(path, metadata=metadata) as writer:
            recorder = Recorder(writer, self.engine, say=self.notices.append)
            self._entered = True
            try:
                recorder.run()
            finally:
                self._finished()
        return recorder.snapshots

    # -- its end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give everything back. A monitoring that runs in another thread is told to end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._entered:
            self.stop()
            if self._loop is not None:
                with contextlib.suppress(ValueError):  # another thread is in it: it has been told
                    self._loop.close()
        elif getattr(self.engine, "source", None) is not None:
            self.engine.source.close()
        elif hasattr(self.engine, "close"):
            self.engine.close()
        else:
            self.engine.ops.cleanup()
        if self._done or not self._entered:
            self._close_pipe()

    def _close_pipe(self) -> None:
        with self._lock:
            read_end, write_end = self._wake_r, self._wake_w
            self._wake_r = self._wake_w = -1
            for fd in (read_end, write_end):
                if fd >= 0:
                    os.close(fd)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
