"""Where the work on many recordings is done: in processes here, or on the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pydamon.fleet.cluster import client_of, losses_said
from pydamon.fleet.pool import each

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")


class Tasks(Protocol):
    """Does a function of a module for each of many things, and gives the results in their order."""

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """Raises what ``work`` raises, and MachineError where a worker is lost."""


class Here:
    """In ``jobs`` processes of this machine, None: one per CPU."""

    def __init__(self, jobs: int | None = 1) -> None:
        self._jobs = jobs

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """As many at once as there are processes."""
        found = dict(each(_numbered, [(number, work, one) for number, one in enumerate(things)], self._jobs))
        return [found[number] for number in range(len(things))]


def _numbered(number: int, work: Callable[[_Asked], _Told], thing: _Asked) -> tuple[int, _Told]:
    return number, work(thing)


class OnCluster:
    """On the workers of a Dask cluster, which see the same files at the same paths."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, work: Callable[[_Asked], _Told], things: Sequence[_Asked]) -> list[_Told]:
        """As many at once as the workers have threads."""
        with losses_said():
            found: list[_Told] = self._client.gather(self._client.map(work, list(things), pure=False))
        return found


@contextmanager
def on_cluster(address: str) -> Iterator[Tasks]:
    """Tasks on the cluster whose scheduler is at ``address`` (tcp://HOST:PORT). Raises as `client_of`."""
    with client_of(0, address) as client:
        yield OnCluster(client)
