"""What the tests of damonfs share: a tree whose kdamonds are known, without any process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.damonfs.levels import level
from pydamon.damonfs.tree import DamonTree
from pydamon.errors import RequestError
from pydamon.spec import Context, Intervals

KDAMONDS = "/admin/kdamonds"
KDAMOND = f"{KDAMONDS}/0"
CONTEXT = f"{KDAMOND}/contexts/0"
SCHEME = f"{CONTEXT}/schemes/0"


class FakeKdamond:
    """A kdamond that remembers what was asked of it. Process 404 does not exist."""

    pid = 4242

    def __init__(self, context: Context) -> None:
        self.ended = threading.Event()
        self.asked = [context]
        self.goals: list[tuple[int, int, int]] = []
        self.schemes = [SchemeState(scheme) for scheme in context.schemes]
        self.now = context.intervals

    def stop(self) -> None:
        self.ended.set()

    def commit(self, context: Context) -> None:
        if any(target.pid == 404 for target in context.targets):
            raise RequestError("no process has the id 404", where="pid")
        self.asked.append(context)

    def states(self) -> list[SchemeState]:
        return self.schemes

    def intervals(self) -> Intervals:
        return self.now

    def walk(self) -> dict[int, list[Tried]]:
        return {number: state.tried for number, state in enumerate(self.schemes)}

    def set_goal(self, scheme: int, goal: int, value: int) -> None:
        self.goals.append((scheme, goal, value))


class World:
    """A tree of a level, and the kdamonds that were started in it."""

    def __init__(self, name: str = "mm") -> None:
        self.kdamonds: list[FakeKdamond] = []
        self.said: list[str] = []
        self.tick: Callable[[], object] = lambda: None
        self.tree = DamonTree(
            level(name),
            start=self._start,
            avail_operations=lambda: ["vaddr", "fvaddr"],
            say=self.said.append,
        )

    def _start(self, number: int, context: Context, *, every_sample: Callable[[], object], say: object) -> FakeKdamond:
        kdamond = FakeKdamond(context)
        kdamond.commit(context)
        kdamond.asked.pop()
        self.tick = every_sample
        self.kdamonds.append(kdamond)
        return kdamond

    def read(self, path: str) -> str:
        return self.tree.read(path)

    def write(self, path: str, content: str | int | bytes) -> None:
        self.tree.write(path, content)

    def error(self, path: str, content: str | int | bytes) -> int | None:
        """The error number of a write; None if it is taken."""
        try:
            self.tree.write(path, content)
        except OSError as error:
            return error.errno
        return None

    def one_of_each(self) -> None:
        """A kdamond with a context, a target (process 1) and a scheme that matches everything."""
        self.write(f"{KDAMONDS}/nr_kdamonds", 1)
        self.write(f"{KDAMOND}/contexts/nr_contexts", 1)
        self.write(f"{CONTEXT}/targets/nr_targets", 1)
        self.write(f"{CONTEXT}/targets/0/pid_target", 1)
        self.write(f"{CONTEXT}/schemes/nr_schemes", 1)
        for name in ("sz", "nr_accesses", "age"):
            self.write(f"{SCHEME}/access_pattern/{name}/max", 2**64 - 1)


def tried(*ranges: tuple[int, int], hits: Sequence[Sequence[int]] = ()) -> Tried:
    """Regions that were tried; the n-th was accessed n times and has age 10 n; ``hits`` of each probe."""
    start, end = (np.array(column, np.uint64) for column in zip(*ranges, strict=True))
    numbers = np.arange(len(ranges), dtype=np.int64)
    return Tried(
        target=0,
        start=start,
        end=end,
        nr_accesses=numbers,
        age=numbers * 10,
        sz_applied=end - start,
        sz_filter_passed=end - start,
        probe_hits=np.array(hits, np.int64).reshape(len(hits), len(ranges)),
    )


__all__ = ["CONTEXT", "KDAMOND", "KDAMONDS", "SCHEME", "FakeKdamond", "World", "tried"]
