"""The means of access to what is monitored: one primitive for each process, and what all of them share."""

from __future__ import annotations

from pydamon.engines.user.choose import Choice
from pydamon.linux.process import Process
from pydamon.primitives import registry
from pydamon.primitives.base import Primitive, Shared


class Access:
    """Opens the chosen primitive for processes. Raises MachineError where it cannot be used; close it in the end.

    With ``resident_only`` what smaps says is about resident pages (the others ask single pages; `ops.residency`).
    """

    def __init__(self, choice: Choice, *, resident_only: bool = False) -> None:
        self._shared = Shared(resident_only=resident_only)
        try:
            self._open = registry.opener(choice.name, self._shared)
        except BaseException:
            self.close()
            raise

    def open(self, process: Process) -> Primitive:
        """The primitive for one process."""
        return self._open(process)

    def close(self) -> None:
        """Release what the primitives share; they must be closed already."""
        self._shared.close()
