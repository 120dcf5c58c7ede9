"""Playing a recording under many policies at once, in as many processes as there are CPUs and memory for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING

from pydamon.analysis.search.space import schemes_of
from pydamon.errors import MachineError
from pydamon.library.policies import Outcome, Recording
from pydamon.linux.parent import end_with_parent

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

_Part = tuple[int | None, int | None]
Policy = tuple[str, str]  # as it is written, and the name of the module (empty: a scheme)

_MOST_BYTES = 1 << 30  # of all processes together, beside the recording, which they share
_ROW_BYTES, _BYTES = 24, 60 << 20  # that a process takes: for each region of the record, and for itself


class Player:
    """Plays one target of a record, or a part of it (ns after its beginning), from one seed.

    ``jobs`` processes at most, None: one per CPU.
    """

    def __init__(self, reader: AnyReader, target: int, part: _Part, seed: int, jobs: int | None) -> None:
        self._reader, self._target, self._part, self._seed = reader, target, part, seed
        fit = max(_MOST_BYTES // (reader.rows * _ROW_BYTES + _BYTES), 1)
        self._jobs = min(jobs or len(os.sched_getaffinity(0)), fit)
        self._pool: ProcessPoolExecutor | None = None
        self._recording: Recording | None = None

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def play(self, policies: Sequence[Policy]) -> list[Outcome]:
        """What each of them does, in their order. Raises as `Recording` does, and MachineError."""
        if self._recording is None:
            start_ns, end_ns = self._part
            self._recording = Recording(self._reader, target=self._target, start_ns=start_ns, end_ns=end_ns)
        if self._jobs == 1 or len(policies) == 1:
            return [_play(self._recording, policy, self._seed) for policy in policies]
        with warnings.catch_warnings():
            # Forked, so that all share the recording; a player needs none of the threads that libraries may run here.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            if self._pool is None:
                context = multiprocessing.get_context("fork")
                theirs = (self._recording, os.getpid())
                self._pool = ProcessPoolExecutor(self._jobs, context, initializer=_begin, initargs=theirs)
            try:
                tasks = [self._pool.submit(_play_there, policy, self._seed) for policy in policies]
                return [task.result() for task in tasks]
            except BrokenProcessPool:
                text = "a process that played the recording was killed, perhaps for its memory; try fewer at a time"
                raise MachineError(text, where="jobs") from None


_there: list[Recording] = []  # in a process of the pool: what it plays


def _begin(recording: Recording, parent_pid: int) -> None:
    """Ends as the command does, and says nothing of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent_pid:
        os._exit(1)
    _there.append(recording)


def _play_there(policy: Policy, seed: int) -> Outcome:
    return _play(_there[0], policy, seed)


def _play(recording: Recording, policy: Policy, seed: int) -> Outcome:
    text, module = policy
    return recording.play(text, schemes_of(text, module), seed=seed)
