"""One kdamond that runs in a thread of its own, and what can be asked of it from other threads."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.engines.base import Engine
from pydamon.engines.clock import MachineClock
from pydamon.errors import PydamonError
from pydamon.linux.damon_trace import STAT
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.run.signals import Waker
from pydamon.spec import Context, Intervals, Spec
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

    def commit(self, context: Context) -> None:
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

    def __call__(self, number: int, context: Context, *, every_sample: Callable[[], object], say: Say) -> Running: ...


@dataclass(slots=True)
class _Walk:
    """Somebody waits for the next pass of the schemes ``left``."""

    left: set[int]
    tried: dict[int, list[Tried]] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Output:
    """Where a kdamond's findings go, besides the tree: into a ``record``, and to whoever listens to user events."""

    record: str | None = None
    user_events: bool = False


class Runner:
    """A kdamond of the user engine. Raises PydamonError if it cannot be opened; runs when it returns.

    Other targets need another engine: the thread then goes on with another `Run`, which takes over from the one before.
    """

    def __init__(
        self,
        number: int,
        context: Context,
        *,
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
        self._record = output.record or ""
        self._events: UserEvents | None = None
        self._tracer: Tracer | None = None
        self._walk: _Walk | None = None
        self._lock = threading.Lock()
        self._next: Run | None = None
        self._lingers = False
        self._failure: Exception | None = None  # before the engine that it was given last ran
        self._taken = threading.Event()  # the loop runs the engine that it was given last
        self._waker = Waker()
        try:
            if output.user_events:
                self._offer_events()
            self._run = self._open(context)
        except BaseException:
            self._give_back()
            raise
        self._thread = threading.Thread(target=self._monitor, name=f"kdamond.{number}", daemon=True)
        self._thread.start()
        self._wait_until_taken()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _offer_events(self) -> None:
        from pydamon.records.trace_text import EVENTS
        from pydamon.run.events import Tracer, UserEvents

        self._events = UserEvents(EVENTS)
        self._tracer = Tracer(EVENTS, [self._events])

    def _open(self, context: Context, before: Engine | None = None) -> Run:
        """What runs from one change of the targets to the next."""

        def begin(_: Loop) -> None:
            self._name_thread()
            if before is not None:
                run.engine.take_over(before.handover())
            self._taken.set()

        clock = MachineClock(wake_fd=self._waker.wake_fd)
        traced = Callbacks() if self._tracer is None else self._tracer.callbacks()

        def sampled(loop: Loop) -> None:
            self._every_sample()
            if traced.after_sampling is not None:
                traced.after_sampling(loop)

        callbacks = Callbacks(before_start=begin, after_sampling=sampled, after_aggregation=traced.after_aggregation)
        spec = Spec(kdamonds=(KdamondSpec(contexts=(context,)),))
        # Who reads the kernel's files expects the kernel's way.
        request = Request(output=self._record, by_addresses=True, panel=0)
        run = Run(spec, request, waker=self._waker, callbacks=callbacks, clock=clock, say=self._say_own)
        run.engine.follow((STAT,), self._passed)
        if self._tracer is not None:
            self._tracer.follow(run.engine)
        return run

    def _say_own(self, line: str) -> None:
        self._say(f"kdamond {self._number}: {line}")

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

    def _monitor(self) -> None:
        try:
            while True:
                with self._run as run:
                    run.run()
                self._linger()
                with self._lock:
                    following, self._next = self._next, None
                if following is None:
                    break
                self._run = following
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
                    following.close()
                self._give_back()
            self._taken.set()

    def _linger(self) -> None:
        """As in the kernel a target is there until its parent has asked how it ended: run on, with nothing to do."""
        self._lingers = True
        clock = MachineClock(wake_fd=self._waker.wake_fd)  # the run's still watches processes that have been closed
        run = self._run
        while not run.engine.stop_requested and any(map(_is_zombie, run.targets)):
            clock.sleep_ns(_LINGER_NS)
        self._lingers = False

    def _give_back(self) -> None:
        if self._events is not None:
            self._events.close()
        self._waker.close()

    def _passed(self, event: str, time_ns: int, **values: Any) -> None:
        """A scheme has gone over all regions: keep what it tried for whoever waits for it."""
        with self._lock:
            walk, number = self._walk, values["scheme"]
            if walk is None or number not in walk.left:
                return
            walk.tried[number] = list(self.states()[number].tried)
            walk.left.discard(number)
            if not walk.left:
                walk.done.set()

    # -- other threads ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        while not self.ended.is_set():
            # Again and again: the loop may be changing engines.
            self._run.stop()
            self.ended.wait(_TICK_S)
        self._thread.join()

    def states(self) -> list[SchemeState]:
        """Its schemes, also after its end."""
        return self._run.engine.schemes()

    def intervals(self) -> Intervals:
        """The intervals in force."""
        return self._run.engine.context.intervals

    def set_goal(self, scheme: int, goal: int, value: int) -> None:
        """Give the value of a goal of the metric ``user_input``; one that does not run is ignored."""
        with contextlib.suppress(PydamonError):
            self._run.engine.set_goal(f"{scheme}.{goal}", value)

    def commit(self, context: Context) -> None:
        """Go on as ``context`` says; waits until that is so. Raises PydamonError, and goes on as before then.

        Regions of targets that stay are kept, and schemes go on.
        """
        run = self._run
        if context.ops == self._context.ops:
            # How it samples is not in the tree, but what it was started with.
            mine = self._context
            context = msgspec.structs.replace(context, primitive=mine.primitive, faithful=mine.faithful)
        if (context.ops, context.targets) == (self._context.ops, self._context.targets):
            run.commit(context)
            while run.engine.commit_pending and not self._lingers and not self.ended.wait(_TICK_S / 10):
                pass
        else:
            following = self._open(context, before=run.engine)
            with self._lock:
                if self.ended.is_set():
                    following.close()
                    raise PydamonError("has ended", where=f"kdamond {self._number}")
                self._taken.clear()
                self._next = following
            run.stop()
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


def _is_zombie(target: dict[str, Any]) -> bool:
    """Whether the process of a row of ``targets`` has ended, and its parent has not taken notice yet."""
    try:
        text = Path(f"/proc/{target['pid']}/stat").read_bytes()
    except KeyError:
        return False  # physical memory
    except OSError:
        return False
    fields = text[text.rindex(b")") + 2 :].split()  # proc_pid_stat(5), from the third on
    return fields[0] == b"Z" and int(fields[22 - 3]) == target["start_ticks"]


def _at_rest(state: SchemeState) -> bool:
    return state.finished or (state.scheme.watermarks.metric != "none" and not state.active)


class Make(Protocol):
    """Makes what runs a kdamond: `Runner`, or `remote.Spawner.run`."""

    def __call__(
        self,
        number: int,
        context: Context,
        *,
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
    run: Make = Runner,
) -> Start:
    """A `Start` that runs kdamonds of the user engine with the ``primitive`` (physical memory has its own).

    ``faithful``: sampling as in the kernel, without using what the machine tells for free (`UserEngine`). ``record``
    says which file, if any, gets a record of the kdamond that is started; with ``user_events`` what it finds is offered
    to tracing tools; ``run`` opens and starts it.
    """

    def start(number: int, context: Context, *, every_sample: Callable[[], object], say: Say) -> Running:
        if context.ops != "paddr":
            context = msgspec.structs.replace(context, primitive=primitive, faithful=faithful)
        output = Output(record(), user_events)
        return run(number, context, every_sample=every_sample, say=say, output=output)

    return start
