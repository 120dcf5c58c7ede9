"""The kernel's kdamond that runs for us: started, looked at, changed, and ended while it is ours."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from pydamon.core.callbacks import Callback, Callbacks
from pydamon.core.commits import check_kept
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.engines.clock import MachineClock
from pydamon.engines.kernel import owner
from pydamon.engines.kernel.layout import check_context
from pydamon.engines.kernel.results import IntervalsLog, SchemeEvent, TraceResults
from pydamon.engines.kernel.schemes import KernelSchemes
from pydamon.engines.kernel.targets import KernelTargets
from pydamon.engines.kernel.tree import KDAMOND, KernelTree
from pydamon.engines.kernel.watch import Watcher
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux import damon_sysfs
from pydamon.linux.damon_sysfs import Roots, Thread
from pydamon.linux.damon_trace import TraceInstance
from pydamon.spec import Context, Intervals, NrRegions, validate_attrs

_PATIENCE_S = 10.0  # for commands of others that are under way
_SHORTEST_POLL_NS, _LONGEST_POLL_NS = 20_000_000, 1_000_000_000


class KernelKdamond:
    """A loop as callbacks see it (`core.callbacks.Loop`); the kernel samples. ``targets`` are those last seen.

    ``context`` has the intervals as tuned by now; ``closing`` are lines for the user at the end.
    """

    def __init__(
        self,
        context: Context,
        ops: KernelTargets,
        files: KernelTree,
        claim: owner.Claim,
        instance: TraceInstance | None,
        roots: Roots,
        clock: MachineClock,
        callbacks: Callbacks,
    ) -> None:
        self.context = context
        self.clock = clock
        self.end_ns: int | None = None
        self.targets = list(range(ops.nr_targets))
        self.regions: list[Regions] = []
        self.snapshots: list[Snapshot] = []
        self.passed_samples = 0  # the kernel does not tell
        self.schemes = KernelSchemes(context.schemes)
        self.closing: list[str] = []
        self._callbacks = callbacks
        self._written = context  # as the kernel's files have it
        self._ops = ops
        self._files = files
        self._claim = claim
        self._instance = instance
        self._roots = roots
        self._thread: Thread | None = None
        self._cpu_ns = 0
        self._log = IntervalsLog(clock.now_ns(), context.intervals)
        self._running = [(0, files.running)]  # which targets the kernel has, since when
        self._stop = self._closed = False
        self._tell_event: Callable[[SchemeEvent], object] | None = None
        self._commit_lock = threading.Lock()

    # -- what a user of the loop does ---------------------------------------------------------------------------------

    @property
    def intervals(self) -> Intervals:
        """Those in force, as tuned by now."""
        return self.context.intervals

    @property
    def nr_regions(self) -> NrRegions:
        """The bounds in force."""
        return self.context.nr_regions

    def stop(self) -> None:
        """End it soon; safe from any thread and from signal handlers."""
        self._stop = True

    @property
    def stop_requested(self) -> bool:
        """Whether it ends, or has ended, because it was told to."""
        return self._stop

    def commit(self, context: Context) -> None:
        """Change attributes and schemes of the running kdamond; all or nothing. Targets stay.

        Safe from any thread. Raises RequestError or MachineError.
        """
        validate_attrs(context.intervals, context.nr_regions)
        check_kept(self.context, context)
        if context.probes and self._instance is not None:
            text = "cannot be counted where results are traced, which do not tell hits; start with a probe"
            raise RequestError(text, where="probes")
        with self._commit_lock:
            self._check_ours()
            check_context(context)
            self._files.change(self._written, context)
            before, self.context, self._written = self.context, context, context
            self._note_running()
            self._claim.note(fingerprint=owner.fingerprint(self._files.tree))
            if context.intervals != before.intervals:
                sample_us, aggr_us = context.intervals.sample_us, context.intervals.aggr_us
                self._log.change(self.clock.now_ns(), sample_us, aggr_us, restarts=True)
            if context.schemes is not before.schemes:
                self.schemes.replace(context.schemes)

    def _note_running(self) -> None:
        running = self._files.running
        if self._running[-1][1] != running:
            # What the kernel found between the commit and now is taken for what it had before.
            self._running.append((self.clock.now_ns(), running))
            self._ops.obsolete = frozenset(range(self._ops.nr_targets)) - frozenset(running)

    def set_goal_value(self, scheme: int, goal: int, value: int) -> None:
        """Give a ``user_input`` goal of the running kdamond its value. Raises MachineError."""
        with self._commit_lock:
            self._check_ours()
            self._files.set_current_value(scheme, goal, value)

    def trace_schemes(self, events: Sequence[str], tell: Callable[[SchemeEvent], object]) -> list[str]:
        """Have ``tell`` called with each of these events (of `OF_SCHEMES`); returns those that this kernel has.

        To be called before `monitor`. None where results are not traced. Raises MachineError.
        """
        if self._instance is None:
            return []
        self._tell_event = tell
        return self._instance.enable(events)

    @property
    def closed(self) -> bool:
        """Whether all was given back."""
        return self._closed

    def cpu_ns(self) -> int:
        """The CPU time of the kernel's thread so far."""
        if self._thread is not None and not self._closed:
            self._cpu_ns = damon_sysfs.cpu_ns(self._thread, self._roots) or self._cpu_ns
        return self._cpu_ns

    # -- the loop -----------------------------------------------------------------------------------------------------

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Start the kernel's kdamond; yields what it finds, one snapshot per target and aggregation."""
        try:
            thread = self._start()
            results = self._results(thread)
            watcher = Watcher(
                self._files,
                self._log,
                snapshots=results is None,
                nr_probes=lambda: len(self.context.probes),
                schemes=self.schemes,
                lives=self._lives,
                pauses=lambda: self.context.pause,
                changing=self._commit_lock,
            )
            try:
                watcher.start()
                self._call(self._callbacks.before_start)
                while not self._need_stop() and damon_sysfs.thread_of(thread.pid, self._roots) == thread:
                    yield from self._hand_out(results, watcher)
                    self.clock.sleep_ns(self._poll_ns())
                self._check_fate()
            finally:
                try:
                    self._call(self._callbacks.before_terminate)
                finally:
                    self.cpu_ns()
                    watcher.look_last()
                    self._off()  # which also ends what the watcher may wait for
                    watcher.stop()
            yield from self._hand_out(results, watcher, final=True)
        finally:
            self.close()

    def _start(self) -> Thread:
        self._files.command("on")
        began_ns = self.clock.now_ns()
        self._log = IntervalsLog(began_ns, self.intervals)
        thread = damon_sysfs.kdamond_thread(self._files.tree, 0, self._roots, _PATIENCE_S)
        if thread is None:
            raise PydamonError(
                "has ended as soon as it was started: its targets may have", where="the kernel's kdamond"
            )
        self._thread = thread
        self._claim.note(kdamond=thread)
        return thread

    def _results(self, thread: Thread) -> TraceResults | None:
        if self._instance is None:
            return None
        return TraceResults(self._instance, thread.pid, self._running, self._log, unit=self._files.unit)

    def _poll_ns(self) -> int:
        wait_ns = min(max(self.intervals.aggr_us * 1000, _SHORTEST_POLL_NS), _LONGEST_POLL_NS)
        return wait_ns if self.end_ns is None else max(min(wait_ns, self.end_ns - self.clock.now_ns()), 0)

    def _need_stop(self) -> bool:
        if self.end_ns is not None and self.clock.now_ns() >= self.end_ns:
            self._stop = True
        # The kernel goes on with a process that has ended as long as its parent has not asked for its status.
        return self._stop or not any(map(self._ops.target_valid, range(self._ops.nr_targets)))

    def _hand_out(
        self, results: TraceResults | None, watcher: Watcher, *, final: bool = False
    ) -> Iterator[list[Snapshot]]:
        found = watcher.take() if results is None else results.take(self.clock.now_ns(), final=final)
        for snapshots in found:
            self.snapshots = snapshots
            self.targets = [snapshot.target for snapshot in snapshots]
            self.regions = [Regions(snapshot.start, snapshot.end) for snapshot in snapshots]
            self._follow_tuning()
            self._tell_events(results, snapshots[-1].end_ns)
            self._call(self._callbacks.after_aggregation)
            yield snapshots
        if final:
            self._tell_events(results, None)
        if results is not None and (results.lost or results.incomplete) and final:
            self.closing.append(
                f"{results.lost} trace events were lost and {results.incomplete} snapshots left out for it"
            )

    def _tell_events(self, results: TraceResults | None, until_ns: int | None) -> None:
        if results is not None and self._tell_event is not None:
            for event in results.take_scheme_events(until_ns):
                self._tell_event(event)

    def _call(self, callback: Callback | None) -> None:
        if callback is not None and callback(self):
            self._stop = True

    def _follow_tuning(self) -> None:
        latest = self._log.latest()
        if (latest.sample_us, latest.aggr_us) != (self.intervals.sample_us, self.intervals.aggr_us):
            intervals = msgspec.structs.replace(self.intervals, sample_us=latest.sample_us, aggr_us=latest.aggr_us)
            self.context = msgspec.structs.replace(self.context, intervals=intervals)

    def _check_fate(self) -> None:
        """Whether the kdamond has ended although nobody here wanted it to, and its targets live."""
        if self._stop or not all(map(self._ops.target_valid, range(self._ops.nr_targets))):
            return
        time.sleep(0.05)  # the kdamond may notice the end of a process a moment before its pidfd tells
        if all(map(self._ops.target_valid, range(self._ops.nr_targets))):
            raise PydamonError("was stopped by somebody else", where="the kernel's kdamond")

    # -- the end ------------------------------------------------------------------------------------------------------

    def _lives(self) -> bool:
        """Whether the kdamond that we have started runs: nobody can put another one in its place as long as it does.

        The tree is not asked: its files are busy as long as any command is under way.
        """
        return self._thread is not None and damon_sysfs.thread_of(self._thread.pid, self._roots) == self._thread

    def _check_ours(self) -> None:
        if self._closed or (self._thread is not None and not self._lives()):
            raise PydamonError("has ended", where="the kernel's kdamond")

    def _off(self) -> None:
        if self._lives():
            # What the watcher has asked for may be under way until the next pass of a scheme.
            longest_us = max([scheme.apply_interval_us for scheme in self.context.schemes] + [self.intervals.aggr_us])
            with contextlib.suppress(MachineError):  # it has just ended by itself
                self._files.command("off", _PATIENCE_S + 2 * longest_us / 1e6)

    def close(self) -> None:
        """End the kdamond if it is still ours, and remove all that is ours from the kernel. Once."""
        with self._commit_lock:  # whoever changes it has done so, or will be told that it has ended
            if self._closed:
                return
            self.cpu_ns()
            self._closed = True
        cleared = False
        try:
            self._off()
            if self._lives():
                raise PydamonError("does not end; the next one that uses it will try", where="the kernel's kdamond")
            if self._is_ours():
                self._files.clear()
            else:
                self.closing.append("the kernel's DAMON is used by somebody else by now; left alone")
            cleared = True
        finally:
            if self._instance is not None:
                self._instance.close()
            self._ops.close()
            if cleared:
                self._claim.release()
            else:
                self._claim.leave()

    def _is_ours(self) -> bool:
        """Whether what does not run (any more) in the tree is what we have put there."""
        tree = self._files.tree
        if tree.read_int(damon_sysfs.NR_KDAMONDS) != 1 or tree.read_int(f"{KDAMOND}/pid", -1) > 0:
            return False
        return owner.fingerprint(tree) == self._claim.entry.fingerprint
