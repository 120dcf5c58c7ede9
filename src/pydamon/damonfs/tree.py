"""DAMON's sysfs tree: ``admin/kdamonds/N/contexts/0/…``, laid out as the kernel of a level does."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydamon.damonfs.commands import Controller
from pydamon.damonfs.formats import fail
from pydamon.damonfs.levels import PROBE_FILTERS, Level
from pydamon.damonfs.nodes import (
    BOOL,
    INT_OR_EINVAL,
    TEXT,
    UINT,
    ULONG,
    Budget,
    Computed,
    Directory,
    File,
    Node,
    Numbered,
    Tree,
    Value,
    one_of,
)
from pydamon.damonfs.runner import Start
from pydamon.damonfs.scheme_tree import SchemeTree
from pydamon.engines.user.open_ops import LIVE_OPS
from pydamon.spec.schemes import MAX_FILTERS

# How much users may make: the whole tree has room for e.g. 100,000 regions of targets.
_MOST_NODES = 400_000
_MOST_KDAMONDS = 256
_MOST_TARGETS = 1024
_MOST_REGIONS = 100_000
_MOST_PROBES = 1024  # of which as many as the engine counts can be turned on


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
        self._avail_operations = avail_operations
        self._say = say
        self._lock = threading.Lock()
        self._budget = Budget(_MOST_NODES)
        self._schemes = SchemeTree(level, self._budget, self.exclusive)
        self._operations = one_of(("vaddr", "fvaddr", "paddr"))
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

    # -- the layout ---------------------------------------------------------------------------------------------

    def _numbered(
        self, counter: str, make: Callable[[int], Directory], most: int, beyond: int = errno.ENOMEM
    ) -> Numbered:
        return Numbered(counter, make, budget=self._budget, guard=self.exclusive, most=most, beyond=beyond)

    def _kdamond(self, number: int) -> Directory:
        contexts = self._numbered("nr_contexts", self._context, 1, errno.EINVAL)
        refresh = Value(UINT, 0)
        controller = Controller(
            number, contexts, level=self.level, refresh_ms=refresh, start=self._start, say=self._say
        )
        children: dict[str, Node] = {
            "state": Computed(controller.show_state, lambda data: self._command(controller, data)),
            "pid": Computed(lambda: f"{controller.pid}\n"),
            "contexts": contexts,
        }
        if self.level.has("refresh_ms"):
            children["refresh_ms"] = refresh
        return Directory(children, about=controller)

    def _command(self, controller: Controller, data: bytes) -> None:
        with self.exclusive():
            controller.command(data)

    def _context(self, _: int) -> Directory:
        attributes: dict[str, Node] = {
            "intervals": self._intervals(),
            "nr_regions": Directory({"min": Value(ULONG, 10), "max": Value(ULONG, 1000)}),
        }
        if self.level.has("probes"):
            attributes["probes"] = self._numbered("nr_probes", self._probe, _MOST_PROBES)
        children: dict[str, Node] = {
            "avail_operations": Computed(lambda: "".join(f"{name}\n" for name in self._avail_operations())),
            "operations": Value(self._operations, "vaddr"),
            "monitoring_attrs": Directory(attributes),
            "targets": self._numbered("nr_targets", self._target, _MOST_TARGETS),
            "schemes": self._schemes.schemes(),
        }
        if self.level.has("addr_unit"):
            children["addr_unit"] = AddrUnit()
        if self.level.has("pause"):
            children["pause"] = Value(BOOL, False)
        return Directory(children)

    def _intervals(self) -> Directory:
        children: dict[str, Node] = {
            "sample_us": Value(ULONG, 5_000),
            "aggr_us": Value(ULONG, 100_000),
            "update_us": Value(ULONG, 60_000_000),
        }
        if self.level.has("intervals_goal"):
            names = ("access_bp", "aggrs", "min_sample_us", "max_sample_us")
            children["intervals_goal"] = Directory({name: Value(ULONG, 0) for name in names})
        return Directory(children)

    def _probe(self, _: int) -> Directory:
        return Directory({"filters": self._numbered("nr_filters", _probe_filter, MAX_FILTERS)})

    def _target(self, _: int) -> Directory:
        children: dict[str, Node] = {
            "pid_target": Value(INT_OR_EINVAL, 0),
            "regions": self._numbered("nr_regions", _region, _MOST_REGIONS),
        }
        if self.level.has("obsolete_target"):
            children["obsolete_target"] = Value(BOOL, False)
        return Directory(children)


def _probe_filter(_: int) -> Directory:
    return Directory(
        {
            "type": Value(one_of(PROBE_FILTERS), "anon"),
            "matching": Value(BOOL, False),
            "allow": Value(BOOL, False),
            "path": Value(TEXT, ""),
        }
    )


def _region(_: int) -> Directory:
    return Directory({"start": Value(ULONG, 0), "end": Value(ULONG, 0)})


class AddrUnit(Value):
    """``addr_unit``: what an address is multiplied by; 0 is refused."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(ULONG, 1)

    def store(self, data: bytes) -> None:
        unit = ULONG.parse(data)
        if unit == 0:
            fail(errno.EINVAL)
        self.value = unit


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
