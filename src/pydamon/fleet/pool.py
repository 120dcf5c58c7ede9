"""Work in as many processes as there are CPUs, that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pydamon.errors import MachineError
from pydamon.linux.parent import end_with_parent

_T = TypeVar("_T")


def each(work: Callable[..., _T], tasks: Sequence[tuple[Any, ...]], jobs: int | None) -> Iterator[_T]:
    """What ``work(*task)`` gives, in no order; at most ``jobs`` processes, None: one per CPU.

    Raises what the work raises, and MachineError if a process was killed.
    """
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(tasks))
    if jobs <= 1:
        for task in tasks:
            yield work(*task)
        return
    with warnings.catch_warnings():
        # Forked: a program that is started anew would begin by importing what may not be importable there.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(os.getpid(),)) as pool:
            futures = [pool.submit(work, *task) for task in tasks]
            try:
                for done in as_completed(futures):
                    yield done.result()
            except BrokenProcessPool:
                raise MachineError("a process was killed; perhaps there is too little memory") from None
            finally:
                # Waited for: a pool that still ends while the interpreter does may wait for ever.
                pool.shutdown(cancel_futures=True)


def _begin(parent_pid: int) -> None:
    """Ends as the command does, and says nothing of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent_pid:
        os._exit(1)
