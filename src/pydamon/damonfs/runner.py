"""One kdamond that runs in a thread of its own, and what can be asked of it from other threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from pydamon.core.damos import Damos
from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.engines.clock import MachineClock
from pydamon.engines.user.engine import UserEngine
from pydamon.errors import PydamonError
from pydamon.linux.process import Process
from pydamon.ops.vaddr_group import VaddrGroupOps
from pydamon.spec import Context, Intervals, Spec, to_builtins
from pydamon.spec import Kdamond as KdamondSpec

if TYPE_CHECKING:
    from pydamon.run.events import Tracer, UserEvents

Say = Callable[[str], object]
_LINGER_NS = 10_000_000
_TICK_S = 0.05  # how often somebody who waits looks whether there is still something to wait for


class Running(Protocol):
    """A kdamond, as the tree sees it."""

    pid: int
    ended: threading.Event

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        ...

    def commit(self, context: Context, *, paused: bool) -> None:
        """Go on as ``context`` says; raises PydamonError, and goes on as before then."""
        ...

    def states(self) -> list[SchemeState]:
        """Its schemes."""
        ...

    def intervals(self) -> Intervals:
        """The intervals in force."""
        ...

    def walk(self) -> dict[int, list[Tried]]:
        """What each scheme tries in its next pass, by its number; waits for that."""
        ...

    def set_goal(self, scheme: int, goal: int, value: int) -> None:
        """Give the value of a goal of the metric ``user_input``."""
        ...


class Start(Protocol):
    """Opens a kdamond and starts it; raises PydamonError, and nothing runs then.

    ``every_sample`` is called by the kdamond after each sample.
    """

    def __call__(
        self, number: int, context: Context, *, paused: bool, every_sample: Callable[[], object], say: Say
    ) -> Running: ...


@dataclass(slots=True)
class _Walk:
    """Somebody waits for the next pass of the schemes ``left``."""

    left: set[int]
    tried: dict[int, list[Tried]] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


class PausingClock(MachineClock):
    """The machine's clock; as long as ``paused``, samples are given up, and nothing is done until it is woken."""

    def __init__(self, wake_fd: int) -> None:
        super().__init__(wake_fd=wake_fd)
        self.paused = False

    def sleep_ns(self, duration_ns: int) -> bool:
        """As `MachineClock.sleep_ns`; False after a pause."""
        if not self.paused:
            return super().sleep_ns(duration_ns)
        super().sleep_ns(3600 * 10**9)
        return False


@dataclass(frozen=True, slots=True)
class Output:
    """Where what a kdamond finds goes, beside the tree: into a ``record``, and to who listens to user events."""

    record: str | None = None
    user_events: bool = False


class Runner:
    """A kdamond of the user engine. Raises PydamonError if it cannot be opened; runs when it returns."""

    def __init__(
        self,
        number: int,
        context: Context,
        *,
        paused: bool = False,
        every_sample: Callable[[], object] = lambda: None,
        say: Say = lambda line: None,
        output: Output = Output(),
    ) -> None:
        self.pid = -1
        self.ended = threading.Event()
        self._number = number
        self._context = context
        self._every_sample = every_sample
        self._say = say
        self._record = output.record
        self._events: UserEvents | None = None
        self._tracer: Tracer | None = None
        self._walk: _Walk | None = None
        self._lock = threading.Lock()
        self._next: UserEngine | None = None
        self._lingers = False
        self._failure: Exception | None = None  # before the engine that it was given last ran
        self._taken = threading.Event()  # the loop runs the engine that it was given last
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if output.user_events:
                self._offer_events()
            self._engine = self._open(context, paused)
        except BaseException:
            self._give_back()
            raise
        self._thread = threading.Thread(target=self._run, name=f"kdamond.{number}", daemon=True)
        self._thread.start()
        self._wait_until_taken()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _offer_events(self) -> None:
        from pydamon.records.trace_text import EVENTS
        from pydamon.run.events import Tracer, UserEvents

        self._events = UserEvents(EVENTS)
        self._tracer = Tracer(EVENTS, [self._events])

    def _open(self, context: Context, paused: bool, before: UserEngine | None = None) -> UserEngine:
        def begin(_: Kdamond) -> None:
            self._name_thread()
            if before is not None:
                _take_over(engine, before)
            self._taken.set()

        clock = PausingClock(self._wake_read)
        clock.paused = paused
        spec = _spec(context)
        traced = Callbacks() if self._tracer is None else self._tracer.callbacks()

        def sampled(kdamond: Kdamond) -> None:
            self._every_sample()
            if traced.after_sampling is not None:
                traced.after_sampling(kdamond)

        callbacks = Callbacks(before_start=begin, after_sampling=sampled, after_aggregation=traced.after_aggregation)
        engine = UserEngine(spec, callbacks=callbacks, clock=clock)
        make = engine.kdamond.make_damos

        def make_damos() -> Damos:
            assert make is not None
            return self._followed(make(), clock)

        engine.kdamond.make_damos = make_damos
        if engine.kdamond.damos is not None:
            self._followed(engine.kdamond.damos, clock)
        return engine

    def _followed(self, damos: Damos, clock: MachineClock) -> Damos:
        """The schemes, of whose passes we hear from now on."""
        damos.on_pass = self._passed
        if self._tracer is not None:
            damos.on_apply, after_pass = self._tracer.of_schemes(clock, damos)

            def passed(number: int) -> None:
                self._passed(number)
                after_pass(number)

            damos.on_pass = passed
        return damos

    def _wait_until_taken(self) -> None:
        """Until the loop runs the engine that it was given last; raises what it has failed with before."""
        self._taken.wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            if isinstance(failure, PydamonError):
                raise failure
            raise PydamonError(f"{type(failure).__name__}: {failure}", where=f"kdamond {self._number}")

    def _name_thread(self) -> None:
        """As in the kernel: a task of its own, called kdamond.N."""
        self.pid = threading.get_native_id()
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(15, f"kdamond.{self._number}".encode())  # PR_SET_NAME

    def _run(self) -> None:
        try:
            while True:
                self._monitor(self._engine)
                self._tell(self._engine)
                self._linger()
                with self._lock:
                    following, self._next = self._next, None
                if following is None:
                    break
                self._engine = following
        except Exception as error:  # one kdamond's end must not be the end of the others
            if self._taken.is_set():
                self._say(f"kdamond {self._number} ended: {type(error).__name__}: {error}")
            else:
                self._failure = error
        finally:
            with self._lock:
                self.ended.set()
                following, self._next = self._next, None
                if following is not None:
                    following.ops.cleanup()
                self._give_back()
            self._taken.set()

    def _monitor(self, engine: UserEngine) -> None:
        if self._record is None:
            for _ in engine.monitor():
                self._tell(engine)
            return
        from pydamon.records.schema import build_metadata
        from pydamon.records.writer import RecordWriter
        from pydamon.run.recorder import Recorder

        metadata = build_metadata(
            targets=engine.ops.take_joined(),
            spec=to_builtins(_spec(self._context)),
            ops=self._context.ops,
            primitive=engine.choice.name,
            primitive_reason=engine.choice.reason,
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
        )
        with RecordWriter(self._record, metadata=metadata) as writer:
            Recorder(writer, engine, say=self._say).run()

    def _linger(self) -> None:
        """As in the kernel a target is there until its parent has asked how it ended: run on, with nothing to do."""
        self._lingers = True
        clock = MachineClock(wake_fd=self._wake_read)  # the engine's still watches processes that are closed by now
        while not self._engine.kdamond.stop_requested and any(map(_is_zombie, self._engine.ops.processes)):
            clock.sleep_ns(_LINGER_NS)
        self._lingers = False

    def _give_back(self) -> None:
        if self._events is not None:
            self._events.close()
        fds = self._wake_read, self._wake_write
        self._wake_write = -1  # first: other threads write to it
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _tell(self, engine: UserEngine) -> None:
        damos = engine.kdamond.damos
        lines = engine.ops.take_notices()
        if damos is not None:
            lines += damos.notices
            damos.notices.clear()
        for line in lines:
            self._say(f"kdamond {self._number}: {line}")

    def _passed(self, number: int) -> None:
        """A scheme has gone over all regions: keep what it tried for who waits for it."""
        with self._lock:
            walk, damos = self._walk, self._engine.kdamond.damos
            if walk is None or damos is None or number not in walk.left:
                return
            walk.tried[number] = list(damos.states[number].tried)
            walk.left.discard(number)
            if not walk.left:
                walk.done.set()

    # -- other threads ------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        while not self.ended.is_set():
            # Again and again: the loop may be changing engines.
            self._engine.kdamond.stop()
            self._wake()
            self.ended.wait(_TICK_S)
        self._thread.join()

    def states(self) -> list[SchemeState]:
        """Its schemes, also after its end."""
        damos = self._engine.kdamond.damos
        return [] if damos is None else list(damos.states)

    def intervals(self) -> Intervals:
        """The intervals in force."""
        return self._engine.kdamond.intervals

    def set_goal(self, scheme: int, goal: int, value: int) -> None:
        """Give the value of a goal of the metric ``user_input``; one that does not run is passed over."""
        damos = self._engine.kdamond.damos
        if damos is not None:
            with contextlib.suppress(PydamonError):
                damos.set_goal(f"{scheme}.{goal}", value)

    def commit(self, context: Context, *, paused: bool) -> None:
        """Go on as ``context`` says; waits until that is so. Raises PydamonError, and goes on as before then.

        Regions of targets that stay are kept, and schemes go on.
        """
        clock = self._engine.clock
        if context.ops == self._context.ops:
            # How it samples is not in the tree, but what it was started with.
            mine = self._context
            context = msgspec.structs.replace(context, primitive=mine.primitive, faithful=mine.faithful)
        if (context.ops, context.targets) == (self._context.ops, self._context.targets):
            self._engine.commit(context)
            kdamond = self._engine.kdamond
            _set_paused(clock, paused)
            self._wake()
            while kdamond.commit_pending and not self._lingers and not self.ended.wait(_TICK_S / 10):
                pass
        else:
            old = self._engine
            following = self._open(context, paused, before=old)
            with self._lock:
                if self.ended.is_set():
                    following.ops.cleanup()
                    raise PydamonError("has ended", where=f"kdamond {self._number}")
                self._taken.clear()
                self._next = following
            _set_paused(clock, False)
            old.kdamond.stop()
            self._wake()
            self._wait_until_taken()
        self._context = context

    def walk(self) -> dict[int, list[Tried]]:
        """What each scheme tries in its next pass, by its number; waits for that.

        A scheme that is not applied (its watermarks, a limit of snapshots) is not waited for.
        """
        walk = _Walk(set(range(len(self.states()))))
        with self._lock:
            self._walk = walk
        while not walk.done.wait(_TICK_S) and not self._lingers and not self.ended.is_set():
            with self._lock:
                walk.left -= {number for number, state in enumerate(self.states()) if _at_rest(state)}
                walk.left &= set(range(len(self.states())))
                if not walk.left:
                    break
        with self._lock:
            self._walk = None
        return walk.tried


def _spec(context: Context) -> Spec:
    return Spec(kdamonds=(KdamondSpec(contexts=(context,)),))


def _is_zombie(process: Process) -> bool:
    """Whether the process has ended, and its parent has not taken notice yet."""
    try:
        text = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:
        return False
    fields = text[text.rindex(b")") + 2 :].split()  # proc_pid_stat(5), from the third on
    return fields[0] == b"Z" and int(fields[22 - 3]) == process.start_ticks


def _at_rest(state: SchemeState) -> bool:
    return state.finished or (state.scheme.watermarks.metric != "none" and not state.active)


def _set_paused(clock: MachineClock, paused: bool) -> None:
    assert isinstance(clock, PausingClock)
    clock.paused = paused


def _take_over(engine: UserEngine, before: UserEngine) -> None:
    """Go on where another engine has stopped: with the regions of processes that both monitor, and its schemes."""
    new, old = engine.kdamond, before.kdamond
    if isinstance(engine.ops, VaddrGroupOps) and isinstance(before.ops, VaddrGroupOps):
        known = {
            _identity(before.ops, target): regions for target, regions in zip(old.targets, old.regions, strict=True)
        }
        for place, target in enumerate(new.targets):
            regions = known.get(_identity(engine.ops, target))
            if regions is not None and len(regions):
                regions.rescale(
                    old_window=old.window,
                    new_window=new.window,
                    old_aggr_us=old.intervals.aggr_us,
                    new_aggr_us=new.intervals.aggr_us,
                )
                regions.counts.set_nr_probes(len(new.probes))
                new.regions[place] = regions
    if new.damos is not None and old.damos is not None:
        new.damos.states = old.damos.states
        for state in new.damos.states:
            state.next_apply = new.window
        new.damos.change(new.context.schemes, new.passed_samples, new.intervals, new.window)


def _identity(ops: VaddrGroupOps, target: int) -> tuple[int, int]:
    process = ops.processes[target]
    return process.pid, process.start_ticks


class Run(Protocol):
    """Makes what runs a kdamond: `Runner`, or `remote.Spawner.run`."""

    def __call__(
        self,
        number: int,
        context: Context,
        *,
        paused: bool,
        every_sample: Callable[[], object],
        say: Say,
        output: Output,
    ) -> Running: ...


def starter(
    primitive: str = "auto",
    *,
    faithful: bool = False,
    record: Callable[[], str | None] = lambda: None,
    user_events: bool = False,
    run: Run = Runner,
) -> Start:
    """A `Start` that runs kdamonds of the user engine with the ``primitive`` (physical memory has its own).

    ``faithful``: sampling as in the kernel, without what the machine tells for free (`UserEngine`). ``record`` says
    which file, if any, gets a record of the kdamond that is started; with ``user_events`` what it finds is offered to
    tracing tools; ``run`` opens and starts it.
    """

    def start(number: int, context: Context, *, paused: bool, every_sample: Callable[[], object], say: Say) -> Running:
        if context.ops != "paddr":
            context = msgspec.structs.replace(context, primitive=primitive, faithful=faithful)
        output = Output(record(), user_events)
        return run(number, context, paused=paused, every_sample=every_sample, say=say, output=output)

    return start
