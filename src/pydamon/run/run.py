"""One spec from the opening of its engine to the reason of its end: what everything that monitors goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydamon.core.callbacks import Callback, Callbacks, Loop
from pydamon.engines.base import Engine
from pydamon.engines.clock import MachineClock
from pydamon.run.found import Gatherer, Observer
from pydamon.run.launch import Ended, describe_exit, end
from pydamon.run.open import open_engine
from pydamon.run.plans import describe_plans, describe_waiting
from pydamon.run.request import Request
from pydamon.run.signals import Waker
from pydamon.spec import Context, Scheme, Spec
from pydamon.spec.actions import NO_SWAP

if TYPE_CHECKING:  # imported where they are used: starting up counts against the bound on the CPU share
    from pydamon.core.snapshot import Snapshot
    from pydamon.records.rotating import RotatingWriter
    from pydamon.records.writer import RecordWriter
    from pydamon.run.acts.loop import Acts, Done
    from pydamon.run.alone import Alone
    from pydamon.run.foresight import Foresight
    from pydamon.run.module_numbers import ModuleNumbers
    from pydamon.run.open import Child

_SECOND_NS = 1_000_000_000
_MAX_REMEMBERED = 10_000  # schemes that may be undone

Say = Callable[[str], object]


def _silent(line: str) -> None:
    """Nobody listens."""


class Run:
    """Opens the engine for ``spec`` when it is made, and runs it; raises PydamonError, and nothing is left open then.

    ``waker`` is what ends it, and wakes it; without one it has its own. ``say`` gets lines for the user, ``plan`` those
    of a dry run, each time at most ``planned_ranges`` ranges; ``every_second`` is called with the engine's time in ns,
    ``observers`` with all that is found.
    ``command_ended`` is told what became of a command that was launched. ``clock`` is instead of the machine's own.

    A context manager. ``output`` is where the record goes, if there is to be one; it may be set until it runs.
    """

    def __init__(
        self,
        spec: Spec,
        request: Request,
        *,
        waker: Waker | None = None,
        callbacks: Callbacks | None = None,
        clock: MachineClock | None = None,
        say: Say = _silent,
        plan: Say | None = None,
        planned_ranges: int = 1000,
        every_second: Callable[[int], object] | None = None,
        observers: Sequence[Observer] = (),
        command_ended: Callable[[Ended], object] = lambda ended: None,
    ) -> None:
        self.output = request.output
        self.snapshots = 0  # those that had regions, so far
        self.writer: RecordWriter | RotatingWriter | None = None  # as soon as it runs
        self.undo_asked = request.undo
        self.undone: list[str] | None = None
        self.child: Child | None = None
        self.numbers: ModuleNumbers | None = None  # of modules, as soon as it runs
        self._ended: Ended | None = None  # what became of it
        self._request = request
        self._own_waker = waker is None
        self._waker = waker if waker is not None else Waker()
        self._callbacks = callbacks if callbacks is not None else Callbacks()
        self._say = say
        self._plan = plan
        self._planned_ranges = planned_ranges
        self._every_second = every_second
        self._observers = observers
        self._command_ended = command_ended
        self._remark_said = False
        self._looked_at: tuple[Scheme, ...] | None = None
        self._entered = self._done = self._closed = False
        self._alone: Alone | None = None
        self._acts: Acts | None = None
        try:
            self._check_output()
            self._given = spec
            spec, request = self._with_modules(spec, request)
            self._opened = open_engine(
                spec,
                request,
                waker=self._waker,
                callbacks=Callbacks(
                    before_start=self._callbacks.before_start,
                    after_sampling=self._callbacks.after_sampling,
                    after_aggregation=self._callbacks.after_aggregation,
                    before_terminate=self._before_end,
                ),
                clock=clock,
                launched=self._note_child,
                say=say,
            )
        except BaseException:
            self._let_go()
            self._end_child()
            self._close_waker()
            raise
        self.engine: Engine = self._opened.engine
        self.spec = self._opened.spec
        self.targets = self._opened.targets
        self.about = self._opened.about
        self.chosen = self._opened.chosen
        self.began_ns = self.engine.clock.now_ns()
        self._schemes = dict.fromkeys(self.spec.context.schemes)  # all there were, in order
        try:
            self._acts = self._open_acts()
        except BaseException:
            self.close()
            raise
        self._waker.on_stop = self.engine.stop
        if self._waker.stopped:  # before there was something to stop
            self.engine.stop()

    def _note_child(self, child: Child) -> None:
        self.child = child
        if self._alone is not None:
            from pydamon.run.modules import hold

            hold(self._given, self._request, self._alone, launched=child.pid)

    def _with_modules(self, spec: Spec, request: Request) -> tuple[Spec, Request]:
        """With the schemes of its modules; what they cannot do here is said. Raises PydamonError."""
        if not (spec.kdamonds and spec.kdamonds[0].modules):
            return spec, request
        from pydamon.run.alone import Alone
        from pydamon.run.modules import prepare

        self._alone = Alone()
        return prepare(spec, request, self._alone, self._say)

    def _open_acts(self) -> Acts | None:
        if self._alone is None:
            return None
        from pydamon.run.acts.open import open_acts

        return open_acts(
            self.spec,
            self.engine,
            dry_run=self._request.dry_run,
            commit=self.commit,
            say=self._say,
            plan=self._plan,
        )

    def _let_go(self) -> None:
        if self._alone is not None:
            self._alone.close()

    def _check_output(self) -> None:
        if self.output:
            from pydamon.records.writer import check_output

            check_output(self.output, keep_old=not self._request.force)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the end; whatever was found is in the record, or an error is raised."""
        for _ in self.monitor():
            pass

    def monitor(self) -> Generator[list[Snapshot], None, None]:
        """The snapshots of all targets, once per aggregation interval; leaving it early ends the monitoring. Once."""
        self._entered = True
        try:
            with self._opened.groups, self._open_writer() as writer:
                self.writer = writer
                yield from self._monitor()
            for line in self.engine.remarks():
                self._say(line)
        finally:
            self._finished()

    def _monitor(self) -> Iterator[list[Snapshot]]:
        from_now_ns = self.engine.clock.now_ns()
        self.began_ns, due_ns = from_now_ns, from_now_ns + _SECOND_NS
        self._say_remark()
        observers = self._begin_observers()
        gatherer = Gatherer(self.engine, places=bool(self._observers)) if observers else None
        if self._plan is not None:
            for line in describe_waiting(self.engine):
                self._plan(line)
        self.numbers = self._new_numbers()
        foresight = self._new_foresight()
        try:
            if self._acts is not None:
                self._acts.start()
            for snapshots in self.engine.monitor():
                now_ns = self.engine.clock.now_ns()
                joined = self._look(now_ns)
                looks = self.engine.looks() if foresight is not None or self._acts is not None else ()
                if foresight is not None:
                    foresight.note(looks)
                if self._acts is not None:
                    self._acts.note(snapshots, looks)
                self.snapshots += sum(bool(len(snapshot.start)) for snapshot in snapshots)
                if gatherer is not None:
                    found = gatherer.find(now_ns, snapshots, joined)
                    for observer in observers:
                        observer.note(found)
                self._note_modules(now_ns, snapshots)
                yield snapshots
                if now_ns >= due_ns:
                    due_ns = now_ns + _SECOND_NS
                    if self._every_second is not None:
                        self._every_second(now_ns)
            now_ns = self.engine.clock.now_ns()
            joined = self._look(now_ns)
            if gatherer is not None:
                found = gatherer.last(now_ns, joined)
                for observer in observers:
                    observer.note(found)
            self._note_modules(now_ns, [], at_end=True)
            for line in foresight.lines(self.engine.context.schemes) if foresight is not None else ():
                self._say(line)
        finally:
            self._finish_acts()
            self.engine.close()  # what is left in the middle gives back what it has, while there is a record

    def _begin_observers(self) -> list[Observer]:
        """Those who see what is found; the record is one of them."""
        observers = list(self._observers)
        if self.writer is not None:
            from pydamon.run.recorder import Recorder

            observers.insert(0, Recorder(self.writer, self.engine, say=self._say))
        for observer in observers:
            observer.begin(self._opened.origin())
        return observers

    def _new_numbers(self) -> ModuleNumbers | None:
        """What modules tell of themselves, if there are any."""
        if not (self._given.kdamonds and self._given.kdamonds[0].modules):
            return None
        from pydamon.modules.registry import uses
        from pydamon.run.module_numbers import ModuleNumbers

        return ModuleNumbers(uses(self.spec), self.engine)

    def _new_foresight(self) -> Foresight | None:
        """Of what a dry run would bring back, if it is one."""
        if not (self._request.dry_run and self.engine.context.schemes):
            return None
        from pydamon.run.foresight import Foresight

        return Foresight()

    def _note_modules(self, now_ns: int, snapshots: list[Snapshot], *, at_end: bool = False) -> None:
        """Put what modules tell into the record, if that is due."""
        if self.numbers is not None:
            rows = self.numbers.note(now_ns, snapshots, at_end=at_end)
            if self.writer is not None and rows:
                self.writer.add_rows("modules", [{"time_ns": now_ns, **row} for row in rows], time_ns=now_ns)

    @contextlib.contextmanager
    def _open_writer(self) -> Iterator[RecordWriter | RotatingWriter | None]:
        if not self.output:
            yield None
            return
        from pydamon.records.schema import build_metadata
        from pydamon.run.recorder import open_writer

        self._check_output()
        metadata = build_metadata(**self.metadata())
        with open_writer(self.output, self._request, metadata, lambda: self._waker.stopped, self._say) as writer:
            if writer.kept is not None:
                self._say(f"the record that was in {writer.path} is kept as {writer.kept}")
            yield writer

    def _look(self, now_ns: int) -> list[dict[str, object]]:
        """Tell the user what there is to tell; who has joined is returned."""
        self._say_remark()
        for notice in self.engine.notices():
            self._say(notice)
        if self._plan is not None:
            for line in describe_plans(self.engine, self.began_ns, now_ns, most=self._planned_ranges):
                self._plan(line)
        return self.engine.joined()

    def remark(self) -> str | None:
        """What the schemes that run now cannot do on this machine."""
        swaps = any(scheme.needs_swap for scheme in self.engine.context.schemes)
        return NO_SWAP if swaps and self.engine.swap_bytes() == 0 else None

    def _say_remark(self) -> None:
        """Once, as soon as there is such a scheme."""
        schemes = self.engine.context.schemes
        if self._remark_said or schemes is self._looked_at:
            return
        self._looked_at, remark = schemes, self.remark()
        if remark is not None:
            self._remark_said = True
            self._say(remark)

    def _before_end(self, loop: Loop) -> object:
        """Undo while the engine still has what it needs for that."""
        if self.undo_asked:
            self.undone = self.engine.undo(self._schemes)
        last: Callback | None = self._callbacks.before_terminate
        return last(loop) if last is not None else None

    def metadata(self) -> dict[str, Any]:
        """Of a record of it, for `records.schema.build_metadata`."""
        return self._opened.metadata()

    # -- meanwhile, from any thread -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the monitoring; also from signal handlers."""
        self.engine.stop()
        self._waker.wake()

    def wake(self) -> None:
        """The loop looks up from its sleep."""
        self._waker.wake()

    def commit(self, context: Context) -> None:
        """`Engine.commit`, soon; what schemes there were can be undone in the end."""
        self.engine.commit(context)
        self._remember(context.schemes)
        self._waker.wake()

    def controller_goals(self) -> list[str]:
        """The goals of loops of its modules, which `set_goal` can give another value."""
        return [] if self._acts is None else self._acts.goals()

    def set_goal(self, name: str, value: int) -> None:
        """Give a goal a value: one of a loop of its modules, or as `Engine.set_goal`. Raises RequestError."""
        if self._acts is not None and name in self._acts.goals():
            self._acts.set_goal(name, value)
        else:
            self.engine.set_goal(name, value)

    def _remember(self, schemes: Iterable[Scheme]) -> None:
        self._schemes |= dict.fromkeys(schemes)
        while len(self._schemes) > _MAX_REMEMBERED:
            del self._schemes[next(iter(self._schemes))]

    # -- its end ------------------------------------------------------------------------------------------------------

    def reason(self) -> str:
        """Why it has ended: the first of the reasons that there were."""
        if self._waker.stopped:
            return "interrupted"
        if self.engine.stop_requested:
            return "the time is over"
        return self.engine.fate()

    def traced_fate(self) -> str | None:
        """What became of the command that the source ran, if it has ended by itself, and not well."""
        traced = self._opened.traced
        if traced is None or self.engine.stop_requested or not traced.poll():
            return None
        return describe_exit(traced.returncode)

    def exit_status(self) -> int:
        """Of a command that has ended by itself, as a shell gives it (128 + N for signal N); else 0. Once closed."""
        traced = self._opened.traced
        status = (
            traced.poll() if traced is not None else self._ended and not self._ended.still_ran and self._ended.status
        )
        if not status or self._waker.stopped or self.engine.stop_requested:
            return 0
        return status if status > 0 else 128 - status

    def close(self) -> None:
        """Give everything back, also if it never ran. What runs in another thread is told to end."""
        if self._closed:
            return
        self._closed = True
        if self._entered and not self._done:
            self.stop()
        else:
            self._opened.groups.close()
            self._finish_acts()
            self.engine.close()
            self._let_go()
            self._close_waker()
        self._end_child()

    def _finish_acts(self) -> None:
        if self._acts is not None:
            self._acts.finish()

    def acts(self) -> list[Done]:
        """What the loops of its modules have done so far."""
        return [] if self._acts is None else self._acts.done()

    def _finished(self) -> None:
        self._done = True
        self._let_go()
        if self._closed:
            self._close_waker()

    def _close_waker(self) -> None:
        if self._own_waker:
            self._waker.close()

    def _end_child(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            still_runs = child.poll() is None
            self._ended = Ended(still_runs, end(child))
            self._command_ended(self._ended)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
