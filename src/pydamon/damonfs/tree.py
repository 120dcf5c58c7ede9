"""DAMON's sysfs tree: ``admin/kdamonds/N/contexts/0/…``, laid out as the kernel of a level does."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydamon.damonfs.build import Builder
from pydamon.damonfs.commands import Controller
from pydamon.damonfs.formats import fail
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import UINT, Budget, Computed, Directory, File, Node, Numbered, Tree, Value
from pydamon.damonfs.runner import Start
from pydamon.damonfs.scheme_tree import TriedRegions
from pydamon.engines.user.open_ops import LIVE_OPS
from pydamon.spec.damon_files import KDAMOND_FILES

# How much users may make: the whole tree has room for e.g. 100,000 regions of targets.
_MOST_NODES = 400_000
_MOST_KDAMONDS = 256


class DamonTree(Tree):
    """The tree as a program sees it below ``/sys/kernel/mm/damon``, and the kdamonds that it runs.

    ``start`` opens a kdamond (see `runner.Start`); ``avail_operations`` are the operations sets that work here; why a
    write is refused, which error numbers cannot tell, goes to ``say``.
    """

    def __init__(
        self,
        level: Level,
        *,
        start: Start,
        avail_operations: Callable[[], list[str]],
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.level = level
        self._start = start
        self._say = say
        self._lock = threading.Lock()
        self._budget = Budget(_MOST_NODES)
        self._builder = Builder(
            level,
            self._budget,
            self.exclusive,
            {
                "avail_operations": lambda: Computed(lambda: "".join(f"{name}\n" for name in avail_operations())),
                "schemes/*/tried_regions": lambda: TriedRegions(level),
            },
        )
        self._kdamonds = Numbered(
            "nr_kdamonds", self._kdamond, budget=self._budget, guard=self._idle, most=_MOST_KDAMONDS
        )
        super().__init__(Directory({"admin": Directory({"kdamonds": self._kdamonds})}))

    def close(self) -> None:
        """Stop all kdamonds."""
        for controller in self.controllers():
            controller.close()

    def controllers(self) -> list[Controller]:
        """What runs (or ran) the kdamonds, in order."""
        return [directory.about for directory in self._kdamonds]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One change of the tree at a time, as in the kernel: whoever comes meanwhile gets EBUSY."""
        if not self._lock.acquire(blocking=False):
            fail(errno.EBUSY)
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """`exclusive`, while no kdamond runs; EBUSY otherwise."""
        with self.exclusive():
            if any(controller.running for controller in self.controllers()):
                fail(errno.EBUSY)
            yield

    def _kdamond(self, number: int) -> Directory:
        contexts = Numbered(
            "nr_contexts",
            lambda _: self._builder.directory(""),
            budget=self._budget,
            guard=self.exclusive,
            most=1,
            beyond=errno.EINVAL,
        )
        refresh = Value(UINT, 0)
        controller = Controller(
            number, contexts, level=self.level, refresh_ms=refresh, start=self._start, say=self._say
        )
        nodes: dict[str, Node] = {
            "state": Computed(controller.show_state, lambda data: self._command(controller, data)),
            "pid": Computed(lambda: f"{controller.pid}\n"),
            "refresh_ms": refresh,
        }
        children = {file.name: nodes[file.name] for file in KDAMOND_FILES if self.level.has(file)}
        return Directory(children | {"contexts": contexts}, about=controller)

    def _command(self, controller: Controller, data: bytes) -> None:
        with self.exclusive():
            controller.command(data)


def usable_operations() -> list[str]:
    """The operations sets that can be used on this machine, in the kernel's order."""
    from pydamon.engines.user.open_ops import choose_for
    from pydamon.errors import PydamonError
    from pydamon.spec import Context

    usable = []
    for name in LIVE_OPS:
        try:
            choose_for(Context(ops=name))  # type: ignore[arg-type]
        except PydamonError:
            continue
        usable.append(name)
    return usable


__all__ = ["DamonTree", "File", "usable_operations"]
