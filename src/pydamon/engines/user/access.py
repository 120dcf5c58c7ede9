"""The means of access to what is monitored: one primitive for each process, and what all of them share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from pydamon.engines.base import Choice
from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.primitives import registry
from pydamon.primitives.base import Primitive, Shared

if TYPE_CHECKING:
    from pydamon.ops.vaddr import Closable, VaddrOps


class Access:
    """Opens the chosen primitive for processes. Raises MachineError where it cannot be used; close it in the end.

    With ``resident_only`` what smaps says is about resident pages (the others ask single pages; `ops.residency`);
    ``clears_first`` as in `Shared`.
    """

    def __init__(self, choice: Choice, *, resident_only: bool = False, clears_first: bool = True) -> None:
        self._name = choice.name
        self._more = contextlib.ExitStack()
        self._shared = Shared(resident_only=resident_only, clears_first=clears_first)
        try:
            self._open = registry.opener(choice.name, self._shared)
        except BaseException:
            self.close()
            raise

    def open(self, process: Process) -> Primitive:
        """The primitive for one process."""
        return self._open(process)

    def sample_whole(self, ops: VaddrOps, rng: np.random.Generator) -> None:
        """Let ``ops``, whose primitives this has opened, take samples of all targets at once where that is possible.

        Where it is not (`pydamon doctor` says why), it goes on page by page.
        """
        with contextlib.suppress(MachineError):
            sampler = registry.sampler(self._name, self._shared, int(rng.integers(1, 1 << 63)))
            if sampler is not None:
                ops.sample_whole(sampler)

    def also_closes(self, other: Closable) -> None:
        """Close ``other`` with this."""
        self._more.callback(other.close)

    def close(self) -> None:
        """Release what the primitives share; they must be closed already."""
        self._more.close()
        self._shared.close()
