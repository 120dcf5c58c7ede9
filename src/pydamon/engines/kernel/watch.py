"""Looks at a running kernel kdamond from time to time: statistics of its schemes, their quotas, their tried regions.

Each look is a command to the state file, which waits until the kdamond has come to it: for a scheme's tried regions
that may be a whole apply interval. So a thread of its own does it, and nobody waits for that.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydamon.core.scheme_state import SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.engines.kernel.results import (
    IN_UNITS,
    IntervalsLog,
    in_bytes,
    read_tried,
    tried_by_target,
    tried_snapshot,
)
from pydamon.engines.kernel.schemes import KernelSchemes
from pydamon.engines.kernel.tree import CONTEXT, SCHEMES, KernelTree
from pydamon.errors import MachineError, PydamonError
from pydamon.spec import Scheme
from pydamon.spec.schemes import Filter
from pydamon.spec.statistics import STATISTICS

_LOOK_S = 1.0
_SHARE = 10  # reading takes at most 1/10 of the time
_LAST_S = 0.3  # for another command that is under way
_PATIENCE = 5  # looks in a row that may fail: the tree changes under us during a commit


def everything(nr_targets: int) -> tuple[Scheme, ...]:
    """One scheme per target that does nothing to all of its regions: their tried regions are a snapshot.

    A filter keeps the targets apart, for the kernel does not say whose a tried region is.
    """
    if nr_targets == 1:
        return (Scheme(action="stat"),)
    others = (Filter(filter_type="target", damon_target_idx=number, matching=False) for number in range(nr_targets))
    return tuple(Scheme(action="stat", filters=(reject,)) for reject in others)


class Watcher:
    """The thread that looks. With ``snapshots`` it takes them from the schemes `everything`, behind the user's."""

    def __init__(
        self,
        files: KernelTree,
        log: IntervalsLog,
        *,
        snapshots: bool,
        nr_probes: Callable[[], int],
        schemes: KernelSchemes,
        lives: Callable[[], bool],
        pauses: Callable[[], bool],
        changing: threading.Lock,
    ) -> None:
        self._files = files
        self._log = log
        self._snapshots = snapshots
        self._nr_probes = nr_probes
        self._schemes = schemes
        self._lives = lives
        self._pauses = pauses
        self._changing = changing  # held while the files of schemes are written anew
        self._looking = threading.Lock()  # held during a look: statistics are several files, which belong together
        self._found: deque[list[Snapshot]] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pydamon-kernel-watch", daemon=True)
        self._failure: PydamonError | None = None
        self._last_end_ns = 0
        self._reading_s = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look_last(self) -> None:
        """What the schemes have done until now, if the kernel tells at once; to be called before the kdamond ends."""
        if not self._schemes.states or not self._looking.acquire(timeout=_LAST_S):
            return
        try:
            with contextlib.suppress(OSError, ValueError, MachineError):
                self._command("update_schemes_stats", _LAST_S)
                for number, state in enumerate(list(self._schemes.states)):
                    self._schemes.note(number, self._stats(number), state.quota.esz, None)
        finally:
            self._looking.release()

    def stop(self) -> None:
        """End; waits a moment for the look under way, which the end of the kdamond ends."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(2.0)

    def take(self) -> list[list[Snapshot]]:
        """The snapshots since the last call. Raises MachineError if they cannot be had."""
        if self._failure is not None and not self._ended.is_set():
            raise self._failure
        found = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def _command(self, text: str, patience_s: float | None = None) -> None:
        """Have the kdamond do it. Raises MachineError, also if it is not ours any more: others are left alone."""
        if not self._lives():
            raise MachineError("has ended", where="the kernel's kdamond")
        self._files.command(text, patience_s)

    def _run(self) -> None:
        failures = 0
        while not self._ended.wait(self._pause_s()):
            if not self._lives():
                return  # whoever waits for what was found sees that, too
            try:
                with self._looking:
                    self._look()
                failures = 0
            except (OSError, ValueError, MachineError) as error:
                failures += 1
                if failures >= _PATIENCE and self._snapshots:
                    self._failure = MachineError(f"cannot be looked at: {error}", where="the kernel's DAMON")
                    return

    def _pause_s(self) -> float:
        if not self._snapshots:
            return max(_LOOK_S, self._reading_s * _SHARE)
        return max(self._log.latest().aggr_us / 1e6, self._reading_s * _SHARE)

    def _look(self) -> None:
        states = list(self._schemes.states)
        if not states and not self._snapshots:
            return
        if self._snapshots:
            self._note_tuned()
        # What they are when the command is given; a commit meanwhile makes the numbers mean other schemes.
        schemes = [state.scheme for state in states]
        if schemes:
            self._command("update_schemes_stats")
            if any(scheme.quotas.limited for scheme in schemes):
                self._command("update_schemes_effective_quotas")
        if self._pauses():  # nothing is tried, and the kernel cancels who asks for it
            for number, scheme in enumerate(schemes):
                with self._changing:
                    self._note_scheme(number, scheme, passed=False)
            return
        self._command("update_schemes_tried_regions")
        now_ns, began = time.monotonic_ns(), time.monotonic()
        if self._snapshots:
            self._take_snapshots(len(schemes), now_ns)
        for number, scheme in enumerate(schemes):
            with self._changing:
                self._note_scheme(number, scheme)
        self._reading_s = time.monotonic() - began

    def _note_tuned(self) -> None:
        tree = self._files.tree
        at = f"{CONTEXT}/monitoring_attrs/intervals"
        if tree.read_int(f"{at}/intervals_goal/access_bp"):
            self._command("update_tuned_intervals")
            sample_us, aggr_us = tree.read_int(f"{at}/sample_us"), tree.read_int(f"{at}/aggr_us")
            latest = self._log.latest()
            if sample_us and aggr_us and (sample_us, aggr_us) != (latest.sample_us, latest.aggr_us):
                self._log.change(time.monotonic_ns(), sample_us, aggr_us, restarts=False)

    def _take_snapshots(self, first: int, end_ns: int) -> None:
        in_force, running = self._log.latest(), self._files.running
        start_ns = max(self._last_end_ns, in_force.since_ns, end_ns - in_force.aggr_us * 1000)
        found = [
            tried_snapshot(self._tried(f"{SCHEMES}/{first + n}", self._nr_probes()), number, start_ns, end_ns, in_force)
            for n, number in enumerate(running)
        ]
        if running == self._files.running and any(len(snapshot.start) for snapshot in found):
            self._last_end_ns = end_ns
            self._found.append(found)

    def _note_scheme(self, number: int, scheme: Scheme, *, passed: bool = True) -> None:
        if number >= len(self._schemes.states) or self._schemes.states[number].scheme is not scheme:
            return  # changed since it was asked for
        tree, here = self._files.tree, f"{SCHEMES}/{number}"
        unit = self._files.unit
        esz = tree.read_int(f"{here}/quotas/effective_bytes") * unit if scheme.quotas.limited else None
        tried = tried_by_target(self._tried(here), self._files.running) if passed else None
        self._schemes.note(number, self._stats(number), esz, tried)

    def _stats(self, number: int) -> SchemeStats:
        here = f"{SCHEMES}/{number}/stats"
        values = {name: self._files.tree.read_int(f"{here}/{name}") for name in STATISTICS}
        return SchemeStats.of(in_bytes(values, self._files.unit))

    def _tried(self, scheme: str, nr_probes: int = 0) -> dict[str, NDArray[np.uint64]]:
        """As `read_tried`, in bytes."""
        found = read_tried(self._files.tree, scheme, nr_probes)
        unit = np.uint64(self._files.unit)
        return {name: values * unit if name in IN_UNITS else values for name, values in found.items()}
