"""Asking Dask's workers: the same SQL for each set of files, one thread of DuckDB a worker, put together here.

Workers read the files themselves: the data set lies where all of them see it, under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.fleet.engine import Means, Together, connected, partial_answer
from pydamon.fleet.inventory import Job, LeftOut
from pydamon.fleet.query import Query

if TYPE_CHECKING:
    import pyarrow as pa

_TASKS_PER_WORKER = 4  # so that all end at about the same time
_CONNECT_S = 10


def by_dask(
    jobs: Sequence[Job], query: Query, means: Means, workers: int, cluster: str | None
) -> tuple[pa.Table, LeftOut]:
    """All jobs, by the workers of a scheduler, or by so many on this machine, which share its memory limit.

    Raises RequestError if the scheduler is none, MachineError without Dask.
    """
    with client_of(workers, cluster) as client:
        return ask_client(client, jobs, query, means, shared=cluster is None)


def ask_client(
    client: Any, jobs: Sequence[Job], query: Query, means: Means, *, shared: bool
) -> tuple[pa.Table, LeftOut]:
    """All jobs, by the workers that a client of Dask has; ``shared``: they share the memory limit."""
    with connected(Means(means.memory_bytes, 1)) as connection:
        count = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        own = Means(means.memory_bytes // count if shared else means.memory_bytes, 1)
        together = Together(connection, query)
        tasks = _tasks(jobs, count * _TASKS_PER_WORKER)
        futures = client.map(_task, tasks, query=query, means=own, pure=False)
        for found in _as_they_end(futures):
            together.add(found)
        return together.table(), together.left_out


def _as_they_end(futures: list[Any]) -> Iterator[tuple[pa.Table, LeftOut]]:
    from distributed import as_completed

    for future in as_completed(futures):  # type: ignore[no-untyped-call]
        with losses_said():
            found = future.result()
        yield found
        future.release()


@contextmanager
def losses_said() -> Iterator[None]:
    """Raises MachineError where workers, or the scheduler, are lost while they are waited for."""
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker:
        raise MachineError("workers were killed; perhaps they have too little memory", where="cluster") from None
    except CancelledError:  # what nobody but the scheduler's end does
        raise MachineError("the scheduler has ended, or lost what was asked", where="cluster") from None


def _task(jobs: tuple[Job, ...], query: Query, means: Means) -> tuple[pa.Table, LeftOut]:
    """Some jobs, at a worker."""
    with connected(means) as connection:
        together = Together(connection, query)
        for job in jobs:
            together.add(partial_answer(connection, job, query))
        return together.table(), together.left_out


def _tasks(jobs: Sequence[Job], wanted: int) -> list[tuple[Job, ...]]:
    """About as many tasks of about as many files: files that compaction has checked need no company."""
    single = [replace(job, files=(name,)) for job in jobs if job.checked for name in job.files]
    single += [job for job in jobs if not job.checked]
    wanted = min(wanted, len(single))
    return [tuple(single[at::wanted]) for at in range(wanted)]


@contextmanager
def client_of(workers: int, cluster: str | None) -> Iterator[Any]:
    """A client of the scheduler, or of so many workers of our own. Raises as `by_dask`."""
    try:
        import distributed
    except ImportError:
        raise MachineError("needs Dask: pip install 'pydamon[fleet]'", where="fleet") from None
    if cluster is None:
        # None as the dashboard's address would be port 8787, whoever has that.
        local = distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit=None, silence_logs=50,
        )  # fmt: skip
        with local, distributed.Client(local) as client:  # type: ignore[no-untyped-call]
            yield client
        return
    try:
        client = distributed.Client(cluster, timeout=_CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        text = str(error).partition("\n")[0][:200]
        raise RequestError(f"no scheduler of Dask answers there ({text})", where="cluster") from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise PydamonError("has no worker", where="cluster")
        yield client
