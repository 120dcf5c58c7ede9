"""Where the work on many files is done: the answers are the same, and a worker that is lost is said."""

from __future__ import annotations

import os
import signal

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.fleet.tasks import Here, Tasks, on_cluster

pytestmark = pytest.mark.usefixtures("processes")


def squared(number: int) -> int:
    return number * number


def refusing(number: int) -> int:
    raise RequestError(f"{number} is wrong", where="it")


def dying(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def asked(tasks: Tasks) -> None:
    """Results in order, and errors as they are."""
    assert tasks.run(squared, range(50)) == [number * number for number in range(50)]
    assert tasks.run(squared, []) == []
    with pytest.raises(RequestError, match="it: 3 is wrong"):
        tasks.run(refusing, [3])


@pytest.mark.parametrize("jobs", [1, 3])
def test_processes_here(jobs: int) -> None:
    asked(Here(jobs))


def test_a_process_that_is_killed_is_said() -> None:
    with pytest.raises(MachineError, match="a process was killed"):
        Here(2).run(dying, [1, 2])


@pytest.mark.slow
def test_workers_of_a_cluster() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", protocol="tcp"
        ) as cluster,
        on_cluster(cluster.scheduler_address) as tasks,
    ):
        asked(tasks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_a_cluster_that_are_killed_are_said() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            protocol="tcp",
            silence_logs=50,
        ) as cluster,
        on_cluster(cluster.scheduler_address) as tasks,
        pytest.raises(MachineError, match="cluster: workers were killed"),
    ):
        tasks.run(dying, [1])


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(RequestError, match="cluster: no scheduler of Dask answers"), on_cluster("tcp://127.0.0.1:1"):
        pass
