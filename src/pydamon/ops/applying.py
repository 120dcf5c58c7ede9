"""Operations sets on real memory apply schemes through actions that are loaded only where there are schemes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import Addresses, Applied
from pydamon.spec import Scheme

if TYPE_CHECKING:
    from pydamon.ops.actions import PhysicalActions, VirtualActions

A = TypeVar("A", "VirtualActions", "PhysicalActions")


class Applying(Generic[A]):
    """The part of `ActingOperationsSet` that is handed on to ``actions``; a subclass makes those.

    ``dry_run`` and ``remember_homes`` (see `pydamon.ops.actions.common`) are to be set before it is first used.
    """

    dry_run = False
    remember_homes = False

    @cached_property
    def actions(self) -> A:
        """What applies schemes."""
        return self._make_actions()

    def _make_actions(self) -> A:
        raise NotImplementedError

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise RequestError or MachineError if the scheme cannot be applied here; changes nothing."""
        self.actions.check_scheme(scheme)

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Apply the scheme's action to regions of a target, as `ActingOperationsSet` says."""
        return self.actions.apply_scheme(target, scheme, start, end, allowed)

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Resident bytes of the ranges on the NUMA node ``nid``."""
        return self.actions.node_bytes(target, start, end, nid)

    def close_actions(self) -> None:
        """Release what the actions hold, if any were made."""
        if "actions" in self.__dict__:
            self.actions.close()
