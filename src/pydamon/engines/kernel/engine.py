"""The ``kernel`` engine: the kernel's own DAMON does the monitoring; we ask for it and read what it found.

It looks like `UserEngine` to whoever runs it: the same iterator of snapshots, the same ``kdamond`` with its schemes.
The kdamond is the machine's only one: see `kernel_owner` for whose it is.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.engines.clock import MachineClock
from pydamon.engines.kernel import owner
from pydamon.engines.kernel.layout import check_context
from pydamon.engines.kernel.results import IntervalsLog, SchemeEvent, TraceResults
from pydamon.engines.kernel.targets import KernelTargets
from pydamon.engines.kernel.tree import KDAMOND, PATH, KernelTree
from pydamon.engines.kernel.watch import KernelDamos, Watcher, everything
from pydamon.engines.user.choose import Choice
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux import damon_sysfs, damon_trace
from pydamon.linux.damon_sysfs import Roots, Thread, Tree
from pydamon.linux.damon_trace import TraceInstance
from pydamon.ops.base import OperationsSet
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Context, Probe, Spec, validate, validate_attrs

if TYPE_CHECKING:
    from pydamon.core.damos import Damos

Results = Literal["auto", "trace", "tried"]

_BYTES_PER_EVENT = 64
_PATIENCE_S = 10.0  # for commands of others that are under way
_SHORTEST_POLL_NS, _LONGEST_POLL_NS = 20_000_000, 1_000_000_000


class KernelEngine:
    """Runs a vaddr, fvaddr or paddr spec on the kernel's DAMON.

    ``directory_fd`` is a directory that only this user can write to: there it is written down that the kdamond is ours.
    ``results``: ``trace`` gives every aggregation, from the trace events; ``tried`` looks at a scheme's tried regions
    now and then; ``auto`` is the first of these that this machine has. ``roots`` says where the kernel's files are.

    Raises MachineError if somebody else uses the kernel's DAMON (nothing was written then), or if this kernel lacks
    what the spec asks for; RequestError if its DAMON cannot do that at all. Both name the spec's field.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        directory_fd: int,
        callbacks: Callbacks | None = None,
        clock: MachineClock | None = None,
        results: Results = "auto",
        roots: Roots | None = None,
        tree: Tree | None = None,
    ) -> None:
        roots = roots if roots is not None else Roots()
        tree = tree if tree is not None else Tree(roots.damon)
        with contextlib.ExitStack() as undo:
            claim = owner.take(directory_fd, roots, tree)
            undo.callback(claim.release)
            context = _only_context(spec)
            try:
                self.ops = KernelTargets(context)
            except RequestError as error:
                raise RequestError(error.message, where=f"{PATH}.{error.where}") from None
            undo.callback(self.ops.close)
            self.choice, instance = _open_results(results, context, roots)
            if instance is not None:
                undo.callback(instance.close)
                claim.note(instance=instance.name)
            extra = () if instance is not None else everything(len(context.targets))
            files = KernelTree(tree, self.ops.ranges, extra)
            files.build(context)
            undo.callback(files.clear)
            claim.note(fingerprint=owner.fingerprint(tree))
            self.clock = clock if clock is not None else MachineClock()
            self.clock.watch_ends(process.pidfd for process in self.ops.processes)
            self.kdamond = KernelKdamond(
                context, self.ops, files, claim, instance, roots, self.clock, callbacks or Callbacks()
            )
            self.ops.cleanup = self.kdamond.close
            undo.pop_all()

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Start the kernel's kdamond; yields one snapshot per target and aggregation until stopped, or targets end."""
        return self.kdamond.monitor()

    def commit(self, context: Context) -> None:
        """Change a running kdamond, all or nothing; waits for the kernel. Raises RequestError or MachineError."""
        self.kdamond.commit(context)

    def cost(self) -> PrimitiveCost:
        """``check_ns`` is the CPU time of the kernel's thread; what it checks is not counted by it."""
        return self.kdamond.cost()

    def close(self) -> None:
        """Give everything back; only needed if `monitor` was never run."""
        self.kdamond.close()


def _only_context(spec: Spec) -> Context:
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this engine runs one at a time", where="kdamonds")
    context = spec.kdamonds[0].contexts[0]
    try:
        check_context(context)
    except RequestError as error:
        raise RequestError(error.message, where=f"{PATH}.{error.where}") from None
    return context


def _open_results(results: Results, context: Context, roots: Roots) -> tuple[Choice, TraceInstance | None]:
    """How results are read, and the tracing instance where they are traced."""
    why = "as asked for"
    if context.probes and results == "auto":
        results, why = "tried", "which tells the hits of probes"
    if results != "tried":
        # Room for what happens while we are busy elsewhere; all of it may be on one CPU.
        room = context.nr_regions.max * _BYTES_PER_EVENT * 8 // 1024
        try:
            instance = TraceInstance(
                f"pydamon-{os.getpid()}",
                root=roots.tracing,
                events=(damon_trace.AGGREGATED, damon_trace.TUNED),
                buffer_kib=min(max(room, 256), 8192),
            )
            return Choice("damon_aggregated", "the kernel's DAMON, every aggregation traced"), instance
        except MachineError as error:
            if results == "trace":
                raise
            return Choice("tried_regions", f"the kernel's DAMON, looked at now and then: {error}"), None
    return Choice("tried_regions", f"the kernel's DAMON, looked at now and then, {why}"), None


class KernelKdamond(Kdamond):
    """A `Kdamond` to whoever drives it, except that the kernel samples; ``targets`` are those last seen.

    ``passed_samples`` stays 0: the kernel does not tell.
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
        # Nobody asks these ops about pages: the kernel does that.
        super().__init__(
            ops=cast(OperationsSet, ops),
            context=context,
            clock=clock,
            callbacks=callbacks,
            make_damos=self._make_damos,
        )
        self.targets = list(range(ops.nr_targets))
        self._context = context
        self._kernel_ops = ops
        self._files = files
        self._claim = claim
        self._instance = instance
        self._roots = roots
        self._thread: Thread | None = None
        self._cpu_ns = 0
        self._log = IntervalsLog(clock.now_ns(), context.intervals)
        self._closed = False
        self._tell_event: Callable[[SchemeEvent], object] | None = None
        self._commit_lock = threading.Lock()
        if isinstance(self.damos, KernelDamos):
            self.damos.replace(context.schemes)

    def _make_damos(self) -> Damos:
        return KernelDamos(self)

    def _schemes(self) -> KernelDamos | None:
        return cast("KernelDamos | None", self.damos)

    # -- what a user of the loop does ---------------------------------------------------------------------------------

    @property
    def commit_pending(self) -> bool:
        """Never: `commit` waits until the kernel has taken it."""
        return False

    def _check_probes(self, probes: tuple[Probe, ...]) -> None:
        """The kernel checks them when they are written."""

    def commit(self, context: Context) -> None:
        """Change attributes and schemes of the running kdamond; all or nothing. Targets and probes stay.

        Safe from any thread. Raises RequestError or MachineError.
        """
        validate_attrs(context.intervals, context.nr_regions)
        for name in ("ops", "targets", "probes"):
            if getattr(context, name) != getattr(self._context, name):
                raise RequestError("cannot be changed while the kernel's DAMON runs", where=name)
        with self._commit_lock:
            self._check_ours()
            check_context(context)
            self._files.change(self._context, context)
            self._claim.note(fingerprint=owner.fingerprint(self._files.tree))
            if context.intervals != self.intervals:
                sample_us, aggr_us = context.intervals.sample_us, context.intervals.aggr_us
                self._log.change(self.clock.now_ns(), sample_us, aggr_us, restarts=True)
            before, self._context, self.context = self.context, context, context
            if context.schemes is not before.schemes:
                self.damos = self.damos or self._new_damos()
                cast(KernelDamos, self.damos).replace(context.schemes)

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

    def cost(self) -> PrimitiveCost:
        """The CPU time of the kernel's thread so far, as ``check_ns``."""
        if self._thread is not None and not self._closed:
            self._cpu_ns = damon_sysfs.cpu_ns(self._thread, self._roots) or self._cpu_ns
        return PrimitiveCost(check_ns=self._cpu_ns)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Start the kernel's kdamond; yields what it finds, one snapshot per target and aggregation."""
        try:
            thread = self._start()
            results = self._open_results(thread)
            watcher = Watcher(
                self._files,
                self._log,
                len(self.targets),
                snapshots=results is None,
                nr_probes=len(self._context.probes),
                damos=self._schemes,
                lives=self._lives,
                changing=self._commit_lock,
            )
            try:
                watcher.start()
                self._call(self.callbacks.before_start)
                while not self._need_stop() and damon_sysfs.thread_of(thread.pid, self._roots) == thread:
                    yield from self._hand_out(results, watcher)
                    self.clock.sleep_ns(self._poll_ns())
                self._check_fate()
            finally:
                try:
                    self._call(self.callbacks.before_terminate)
                finally:
                    self.cost()
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

    def _open_results(self, thread: Thread) -> TraceResults | None:
        if self._instance is None:
            return None
        return TraceResults(self._instance, thread.pid, len(self.targets), self._log)

    def _poll_ns(self) -> int:
        wait_ns = min(max(self.intervals.aggr_us * 1000, _SHORTEST_POLL_NS), _LONGEST_POLL_NS)
        return wait_ns if self.end_ns is None else max(min(wait_ns, self.end_ns - self.clock.now_ns()), 0)

    def _need_stop(self) -> bool:
        if self.end_ns is not None and self.clock.now_ns() >= self.end_ns:
            self._stop = True
        # The kernel goes on with a process that has ended as long as its parent has not asked for its status.
        return self._stop or not any(map(self._kernel_ops.target_valid, range(self._kernel_ops.nr_targets)))

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
            self._call(self.callbacks.after_aggregation)
            yield snapshots
        if final:
            self._tell_events(results, None)
        if results is not None and (results.lost or results.incomplete) and final:
            self._kernel_ops.closing.append(
                f"{results.lost} trace events were lost and {results.incomplete} snapshots left out for it"
            )

    def _tell_events(self, results: TraceResults | None, until_ns: int | None) -> None:
        if results is not None and self._tell_event is not None:
            for event in results.take_scheme_events(until_ns):
                self._tell_event(event)

    def _follow_tuning(self) -> None:
        latest = self._log.latest()
        if (latest.sample_us, latest.aggr_us) != (self.intervals.sample_us, self.intervals.aggr_us):
            intervals = msgspec.structs.replace(self.intervals, sample_us=latest.sample_us, aggr_us=latest.aggr_us)
            self.context = msgspec.structs.replace(self.context, intervals=intervals)

    def _check_fate(self) -> None:
        """Whether the kdamond has ended although nobody here wanted it to, and its targets live."""
        if self._stop or not all(map(self._kernel_ops.target_valid, range(self._kernel_ops.nr_targets))):
            return
        time.sleep(0.05)  # the kdamond may notice the end of a process a moment before its pidfd tells
        if all(map(self._kernel_ops.target_valid, range(self._kernel_ops.nr_targets))):
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
            longest_us = max([scheme.apply_interval_us for scheme in self._context.schemes] + [self.intervals.aggr_us])
            with contextlib.suppress(MachineError):  # it has just ended by itself
                self._files.command("off", _PATIENCE_S + 2 * longest_us / 1e6)

    def close(self) -> None:
        """End the kdamond if it is still ours, and remove all that is ours from the kernel. Once."""
        with self._commit_lock:  # whoever changes it has done so, or will be told that it has ended
            if self._closed:
                return
            self.cost()
            self._closed = True
        cleared = False
        try:
            self._off()
            if self._lives():
                raise PydamonError("does not end; the next one that uses it will try", where="the kernel's kdamond")
            if self._is_ours():
                self._files.clear()
            else:
                self._kernel_ops.closing.append("the kernel's DAMON is used by somebody else by now; left alone")
            cleared = True
        finally:
            if self._instance is not None:
                self._instance.close()
            self._kernel_ops.close()
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
