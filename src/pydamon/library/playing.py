"""Playing a recording under many policies at once, in as many processes as there are CPUs and memory for."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from pydamon.analysis.search.space import schemes_of
from pydamon.library.policies import Outcome, Recording
from pydamon.records.joined import open_record

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

_Part = tuple[int | None, int | None]
Policy = tuple[str, str]  # as it is written, and the name of the module (empty: a scheme)

_MOST_BYTES = 3 << 29  # of all processes together
_ROW_BYTES, _BYTES = 80, 100 << 20  # that a process takes: for each region of the record, and for itself


class Player:
    """Plays one target of a record, or a part of it (ns after its beginning), from one seed.

    ``jobs`` processes at most, None: one per CPU. A record that cannot be opened again is played in this process.
    """

    def __init__(self, reader: AnyReader, target: int, part: _Part, seed: int, jobs: int | None) -> None:
        self._reader, self._target, self._part, self._seed = reader, target, part, seed
        fit = max(_MOST_BYTES // (reader.rows * _ROW_BYTES + _BYTES), 1)
        self._jobs = min(jobs or len(os.sched_getaffinity(0)), fit) if os.path.isfile(reader.path) else 1
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
        """What each of them does, in their order. Raises as `Recording` does."""
        if self._jobs == 1 or len(policies) == 1:
            if self._recording is None:
                start_ns, end_ns = self._part
                self._recording = Recording(self._reader, target=self._target, start_ns=start_ns, end_ns=end_ns)
            return [_play(self._recording, policy, self._seed) for policy in policies]
        if self._pool is None:
            # Not by fork: libraries run threads here.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(min(self._jobs, len(policies)), context, initializer=_begin)
        place = (self._reader.path, self._target, *self._part)
        tasks = [self._pool.submit(_play_there, place, policy, self._seed) for policy in policies]
        return [task.result() for task in tasks]


_there: dict[tuple[str, int, int | None, int | None], Recording] = {}  # in a process of the pool: what it plays


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it ends with the command, and says nothing


def _play_there(place: tuple[str, int, int | None, int | None], policy: Policy, seed: int) -> Outcome:
    if place not in _there:
        path, target, start_ns, end_ns = place
        with open_record(path) as reader:
            _there[place] = Recording(reader, target=target, start_ns=start_ns, end_ns=end_ns)
    return _play(_there[place], policy, seed)


def _play(recording: Recording, policy: Policy, seed: int) -> Outcome:
    text, module = policy
    return recording.play(text, schemes_of(text, module), seed=seed)
