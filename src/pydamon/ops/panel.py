"""The page panel of processes that are asked through `bpf`, `idle` or `bpf+idle`: whether its pages were accessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import Addresses
from pydamon.ops.whole_samples import WholeSampler
from pydamon.primitives.base import Primitive
from pydamon.primitives.bpf import BpfPrimitive
from pydamon.primitives.bpf_panel import PanelPages


class Targets(Protocol):
    """What is needed of the operations set."""

    @property
    def primitives(self) -> Sequence[Primitive] | Mapping[int, Primitive]:
        """One of each target."""
        ...


class Pages(Protocol):
    """The panel's pages of one process, beside the windows of its regions."""

    def look(self, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `PanelOps.look_at_panel`."""
        ...

    def before_clear(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        """The accessed bits of these ranges are about to be cleared."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A primitive that opens a panel beside itself (`IdlePrimitive`)."""

    panel: Pages | None

    def open_panel(self) -> Pages:
        """Open it; from then on it is the ``panel``."""
        ...


class ProcessPanel:
    """Asks the pages of a panel. ``whole`` takes the samples of the regions, if pages are not asked one by one."""

    def __init__(self, targets: Targets, whole: WholeSampler | None) -> None:
        self._targets = targets
        self._whole = whole
        self._watched: dict[int, Addresses] = {}

    def look(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `PanelOps.look_at_panel`."""
        pages = self._pages(self._targets.primitives[target])
        if pages is None:  # it has just ended
            return np.zeros(len(addresses), np.bool_), np.ones(len(addresses), np.bool_)
        if self._whole is not None:
            self._whole.note_panel()
        found = pages.look(addresses)
        if self._watched.get(target) is not addresses:
            self._watched[target] = addresses
            self._watch()
        return found

    def _pages(self, primitive: Primitive) -> Pages | None:
        """The panel's pages of a process; None if it is not asked for single pages."""
        if isinstance(primitive, BpfPrimitive):
            if primitive.panel is None:
                primitive.watch_panel(PanelPages(primitive, partial(self._lost, primitive)))
            return primitive.panel
        if not isinstance(primitive, Opens):
            return None
        return primitive.open_panel() if primitive.panel is None else primitive.panel

    def _lost(self, primitive: BpfPrimitive, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        primitive.note_lost(starts, lengths)
        if self._whole is not None:
            self._whole.note_lost(primitive, starts, lengths)

    def _watch(self) -> None:
        if self._whole is not None:
            self._whole.watch_panel(np.concatenate(list(self._watched.values())))

    def before_action(self, target: int, start: Addresses, end: Addresses) -> None:
        """An action is about to be applied to these ranges; it may clear accessed bits."""
        pages = getattr(self._targets.primitives[target], "panel", None)
        if pages is not None:
            pages.before_clear(start, end - start)

    def forget(self, target: int) -> None:
        """The target has ended."""
        if self._watched.pop(target, None) is not None and self._watched:
            self._watch()
