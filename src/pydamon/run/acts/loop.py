"""Steps the controllers of a run's modules, each in its interval, and carries out what they decide, within bounds.

On this machine that is done in a thread of its own, so that a call that takes long holds up no sample; on a simulated
one between two snapshots, in its time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pydamon.analysis.refaults import returned
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.errors import MachineError, PydamonError
from pydamon.modules.controller import (
    Change,
    Compact,
    Controller,
    Decision,
    Observations,
    ReclaimBytes,
    SetMemoryLow,
    Tunable,
    ZramWriteback,
)
from pydamon.run.acts.hands import Hands
from pydamon.run.acts.seen import with_snapshots
from pydamon.spec.units import format_duration_ns, format_size

_SECOND_NS = 1_000_000_000
_HOUR_NS = 3600 * _SECOND_NS
_MOST_LOOKS = 4096  # at the page panel, between two steps
_MOST_DECISIONS = 16  # of one step
_MOST_STEP_PERMIL = 100  # of what the target uses, to be taken in one step
_MOST_HOURLY = 10  # times what the target uses, to be taken in an hour
_MOST_LOW_PERMIL = 800  # of the machine's memory, to be protected
_MOST_WRITEBACK = 1 << 30  # bytes, in one step
_MOST_COMPACTIONS = 120  # in an hour: each moves pages of all zones
_LEAST_BETWEEN_NS = 5 * _SECOND_NS  # and so long after the last
_LEAST_INTERVAL_NS = 100_000_000
_SAID_EVERY_NS = 600 * _SECOND_NS


class Done(msgspec.Struct, kw_only=True):
    """What came of one kind of decision of one module: how often, for how many bytes, and what the last one was.

    ``bounded``: how often less was asked for than the module wanted; ``refused``: how often the machine refused, the
    last time for the reason ``refusal``.
    """

    module: str
    kind: str
    count: int = 0
    asked_bytes: int = 0
    done_bytes: int = 0
    bounded: int = 0
    refused: int = 0
    last: str = ""
    refusal: str | None = None
    said_ns: int | None = None


class Stepped(msgspec.Struct, kw_only=True):
    """A controller with its module's name, when it is due, and the bytes that it has brought about.

    ``looks``: those at the page panel since its last step.
    """

    name: str
    controller: Controller
    due_ns: int = 0
    done_bytes: int = 0
    looks: deque[Look] = msgspec.field(default_factory=lambda: deque(maxlen=_MOST_LOOKS))


class Acts:
    """Runs ``controllers`` (by their modules' names) with ``hands``.

    ``say`` gets lines for the user; ``plan`` those of a dry run, in which nothing is done: without it, it is none.
    ``change`` changes a scheme by its name, as a decision says (raises PydamonError). ``now_ns`` is the run's clock.
    ``active``: whether watermarks let the schemes of a module act, ``applied``: the bytes that each of these was
    applied to, ``spent_ns``: how long that took. Unless ``in_own_thread`` a step is made with the snapshots, if it is
    due.
    """

    def __init__(
        self,
        controllers: Sequence[tuple[str, Controller]],
        hands: Hands,
        *,
        now_ns: Callable[[], int],
        say: Callable[[str], object],
        plan: Callable[[str], object] | None = None,
        dry_run: bool = False,
        change: Callable[[Change], object],
        active: Callable[[str], bool] = lambda module: True,
        applied: Callable[[str], Mapping[str, int]] = lambda module: {},
        spent_ns: Callable[[str], int] = lambda module: 0,
        in_own_thread: bool = True,
    ) -> None:
        self._stepped = [Stepped(name=name, controller=controller) for name, controller in controllers]
        self._hands = hands
        self._now_ns = now_ns
        self._say = say
        self._plan = plan
        self._dry_run = dry_run
        self._change = change
        self._active = active
        self._applied = applied
        self._spent_ns = spent_ns
        self._in_own_thread = in_own_thread
        self._snapshots: Sequence[Snapshot] = ()
        self._done: dict[tuple[str, str], Done] = {}
        self._taken: deque[tuple[int, int]] = deque()  # when, and how many bytes, within an hour
        self._compacted: deque[int] = deque()  # when, within an hour
        self._began_ns: int | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._finished = self._gone = False

    # -- who drives it --------------------------------------------------------------------------------------------

    def stopped(self) -> bool:
        """Whether it is to end: what takes long is cut short."""
        return self._ending.is_set()

    def goals(self) -> list[str]:
        """The goals of controllers that can be given another value."""
        return [goal for one in self._tunable() for goal in one.goals]

    def set_goal(self, name: str, value: int) -> None:
        """Give all controllers that have a goal of this name another value for it."""
        for one in self._tunable():
            if name in one.goals:
                one.set_goal(name, value)

    def _tunable(self) -> list[Tunable]:
        return [each.controller for each in self._stepped if isinstance(each.controller, Tunable)]

    def note(self, snapshots: Sequence[Snapshot], looks: Sequence[Look]) -> None:
        """The latest snapshots, one of each target, and looks at the page panel, for when a controller is due."""
        self._snapshots = snapshots
        for stepped in self._stepped:
            if stepped.controller.needs_accesses:
                stepped.looks.extend(looks)
        if self._problem is not None:
            raise self._problem
        if not self._in_own_thread:
            self.step()

    def start(self) -> None:
        """Step until `finish`."""
        if not self._in_own_thread:
            self.step()
            return
        self._thread = threading.Thread(target=self._run, name="acts", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ending.wait(max(self.step() - self._now_ns(), 0) / 1e9):
                pass
        except BaseException as error:  # told by whoever looks next
            self._problem = error

    def finish(self) -> list[str]:
        """End, put back what was set, and say what was done. Once."""
        if self._finished:
            return []
        self._finished = True
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        lines = self._hands.finish()
        for line in lines:
            self._say(line)
        for done in self._done.values():
            self._say(self._summary(done))
        return lines

    # -- a step ---------------------------------------------------------------------------------------------------

    def step(self) -> int:
        """Step the controllers that are due; when (ns) the next one is."""
        now_ns = self._now_ns()
        if self._began_ns is None:
            self._began_ns = now_ns
            for stepped in self._stepped:
                stepped.due_ns = now_ns + _interval_ns(stepped)
        due = [stepped for stepped in self._stepped if stepped.due_ns <= now_ns]
        if due and not self._gone:
            self._step(due, now_ns)
        return min((stepped.due_ns for stepped in self._stepped), default=now_ns + _SECOND_NS)

    def _step(self, due: list[Stepped], now_ns: int) -> None:
        for stepped in due:  # what was missed while the machine slept is not made up for
            stepped.due_ns = now_ns + _interval_ns(stepped)
        try:
            observed = with_snapshots(self._hands.observe(now_ns), self._snapshots)
        except MachineError as error:
            self._gone = True
            self._say(f"modules rest: {error}")
            return
        for stepped in due:
            looks = [stepped.looks.popleft() for _ in range(len(stepped.looks))]
            own = msgspec.structs.replace(
                observed,
                done_bytes=stepped.done_bytes,
                returned=returned(looks),
                active=self._active(stepped.name),
                applied=self._applied(stepped.name),
                spent_ns=self._spent_ns(stepped.name),
            )
            for decision in stepped.controller.step(own)[:_MOST_DECISIONS]:
                if self._ending.is_set():
                    return
                self._carry_out(stepped, decision, observed, now_ns)

    def _carry_out(self, stepped: Stepped, decision: Decision, observed: Observations, now_ns: int) -> None:
        done = self._done.setdefault(
            (stepped.name, type(decision).__name__), Done(module=stepped.name, kind=type(decision).__name__)
        )
        bounded = self._bounded(decision, observed, now_ns)
        done.bounded += bounded != decision
        if bounded is None:
            return
        words = bounded.words()
        if self._dry_run:
            done.count += 1
            done.asked_bytes += _bytes_of(bounded)
            done.last = words
            if self._plan is not None:
                self._plan(f"{self._at(now_ns)}: module {stepped.name} would {words}")
            return
        try:
            if isinstance(bounded, Change):
                self._change(bounded)
                brought: int | None = 0
            else:
                brought = self._hands.do(bounded, now_ns)
        except PydamonError as error:
            done.refused += 1
            if str(error) != done.refusal:
                done.refusal = str(error)
                self._say(f"module {stepped.name} cannot {words}: {error}")
            return
        if brought is None:
            return
        done.count += 1
        done.asked_bytes += _bytes_of(bounded)
        done.done_bytes += brought
        done.last = words
        stepped.done_bytes += brought
        if isinstance(bounded, ReclaimBytes):
            self._taken.append((now_ns, brought))
        if done.said_ns is None or now_ns - done.said_ns >= _SAID_EVERY_NS:
            done.said_ns = now_ns
            self._say(f"module {stepped.name}: {words}" if done.count == 1 else self._summary(done))

    def _bounded(self, decision: Decision, observed: Observations, now_ns: int) -> Decision | None:
        """No more than the bounds of this step and of the last hour; None: nothing at all."""
        replace = msgspec.structs.replace
        if isinstance(decision, ReclaimBytes):
            if observed.current_bytes is None:
                return None
            while self._taken and now_ns - self._taken[0][0] > _HOUR_NS:
                self._taken.popleft()
            hourly = observed.current_bytes * _MOST_HOURLY - sum(amount for _, amount in self._taken)
            most = min(decision.bytes, observed.current_bytes * _MOST_STEP_PERMIL // 1000, hourly)
            most -= most % observed.page_bytes
            return replace(decision, bytes=most) if most > 0 else None
        if isinstance(decision, SetMemoryLow) and observed.machine_bytes is not None:
            most = observed.machine_bytes * _MOST_LOW_PERMIL // 1000
            return replace(decision, bytes=max(min(decision.bytes, most - most % observed.page_bytes), 0))
        if isinstance(decision, Compact):
            while self._compacted and now_ns - self._compacted[0] > _HOUR_NS:
                self._compacted.popleft()
            soon = self._compacted and now_ns - self._compacted[-1] < _LEAST_BETWEEN_NS
            if soon or len(self._compacted) >= _MOST_COMPACTIONS:
                return None
            self._compacted.append(now_ns)
        if isinstance(decision, ZramWriteback) and (decision.limit_bytes or _MOST_WRITEBACK + 1) > _MOST_WRITEBACK:
            return replace(decision, limit_bytes=_MOST_WRITEBACK)
        return decision

    # -- what there is to tell ------------------------------------------------------------------------------------

    def done(self) -> list[Done]:
        """What was done so far; from any thread."""
        return [msgspec.structs.replace(done) for done in list(self._done.values())]

    def _summary(self, done: Done) -> str:
        did = "would " if self._dry_run else ""
        text = f"module {done.module}: {did}{done.last or 'nothing'}"
        text += f" ({done.count} times in all" if done.count != 1 else " (once"
        if done.asked_bytes and not self._dry_run:
            text += f", {format_size(done.done_bytes)} of {format_size(done.asked_bytes)} asked for"
        text += f", {done.bounded} bounded" if done.bounded else ""
        text += f", {done.refused} refused: {done.refusal}" if done.refused else ""
        return text + ")"

    def _at(self, now_ns: int) -> str:
        return format_duration_ns(now_ns - (now_ns if self._began_ns is None else self._began_ns))


def _interval_ns(stepped: Stepped) -> int:
    return max(stepped.controller.interval_us * 1000, _LEAST_INTERVAL_NS)


def _bytes_of(decision: Decision) -> int:
    if isinstance(decision, ReclaimBytes):
        return decision.bytes
    return (decision.limit_bytes or 0) if isinstance(decision, ZramWriteback) else 0
