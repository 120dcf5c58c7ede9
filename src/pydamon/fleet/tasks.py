"""Where the work on many files is done: in processes here, or on the workers of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pydamon.errors import MachineError
from pydamon.linux.parent import end_with_parent

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")


class Tasks(Protocol):
    """Does a function of a module for each of many things, and gives the results in their order."""

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """Raises what ``work`` raises, and MachineError where a worker is lost."""


class Here:
    """In this process."""

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """One after the other."""
        return [work(one) for one in things]


class Processes:
    """In processes of this machine, which end with this one."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """As many at once as there are processes."""
        try:
            with warnings.catch_warnings():
                # A worker needs none of the threads that libraries may run here.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                waiting = [self._pool.submit(work, one) for one in things]
            return [one.result() for one in waiting]
        except BrokenProcessPool:
            text = "a process was killed, perhaps for its memory; try fewer at a time"
            raise MachineError(text, where="jobs") from None


class OnCluster:
    """On the workers of a Dask cluster, which see the same files at the same paths."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """As many at once as the workers have threads."""
        waiting = self._client.map(work, list(things), pure=False)
        found: list[_Told] = self._client.gather(waiting)
        return found


@contextmanager
def here(jobs: int | None = None) -> Iterator[Tasks]:
    """Tasks in ``jobs`` processes, None: one per CPU."""
    count = jobs or len(os.sched_getaffinity(0))
    if count == 1:
        yield Here()
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), initializer=_begin, initargs=(os.getpid(),))
    try:
        yield Processes(pool)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def on_cluster(address: str) -> Iterator[Tasks]:
    """Tasks on the cluster whose scheduler is at ``address`` (tcp://HOST:PORT). Raises MachineError."""
    try:
        import distributed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("distributed", "dask"):
            raise
        raise MachineError("needs Dask: pip install 'pydamon[fleet]'", where="cluster") from None
    connect: Any = distributed.Client  # its parameters have no types
    try:
        client = connect(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise MachineError(f"no scheduler of Dask answers at {address!r}: {error}", where="cluster") from None
    try:
        yield OnCluster(client)
    finally:
        client.close()


def _begin(parent_pid: int) -> None:
    """Ends as the command does, and says nothing of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent_pid:
        os._exit(1)
