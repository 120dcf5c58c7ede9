"""The means of access to what is monitored: one primitive for each process, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pydamon.engines.base import Choice
from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.primitives.base import Primitive

if TYPE_CHECKING:
    from pydamon.primitives.bpf import PageTableWalk


class _Closable(Protocol):
    def close(self) -> None: ...


class Access:
    """Opens the chosen primitive for processes. Raises MachineError where it cannot be used; close it in the end.

    With ``resident_only`` what smaps says is about resident pages (the others ask single pages; `ops.residency`).
    """

    def __init__(self, choice: Choice, *, resident_only: bool = False) -> None:
        self._resident_only = resident_only
        self._shared: list[_Closable] = []
        try:
            self._open = self._opener(choice.name)
        except BaseException:
            self.close()
            raise

    def open(self, process: Process) -> Primitive:
        """The primitive for one process."""
        return self._open(process)

    def close(self) -> None:
        """Release what the primitives share; they must be closed already."""
        while self._shared:
            self._shared.pop().close()

    def _opener(self, name: str) -> Callable[[Process], Primitive]:
        if name == "bpf":
            from pydamon.primitives.bpf import BpfPrimitive

            walk = self._walk()  # one program serves all processes

            def open_bpf(process: Process) -> Primitive:
                primitive = BpfPrimitive(process, walk)
                primitive.begin()
                return primitive

            return open_bpf
        if name in ("idle", "bpf+idle"):
            from pydamon.linux.idle_bitmap import FrameWatch
            from pydamon.primitives.idle import IdlePrimitive

            tables = name == "bpf+idle"
            walk_or_none = self._walk() if tables else self._walk_if_possible()
            watch = FrameWatch()
            self._shared.append(watch)
            return lambda process: IdlePrimitive(process, walk_or_none, watch=watch, tables=tables)
        if name == "soft-dirty":
            from pydamon.primitives.soft_dirty import SoftDirtyPrimitive

            walk_or_none = self._walk_if_possible()
            return lambda process: SoftDirtyPrimitive(process, walk_or_none)
        from pydamon.primitives.smaps import SmapsPrimitive

        return partial(SmapsPrimitive, resident_only=self._resident_only)

    def _walk(self) -> PageTableWalk:
        from pydamon.primitives.bpf import PageTableWalk

        walk = PageTableWalk()
        self._shared.append(walk)
        return walk

    def _walk_if_possible(self) -> PageTableWalk | None:
        try:
            return self._walk()
        except MachineError:
            return None
