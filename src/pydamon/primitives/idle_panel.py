"""The pages of processes that a page panel asks through the idle bitmap, beside the windows of the regions.

Both mark the same frames, and a mark takes away what was seen since the one before. So whoever marks frames tells
`PanelFrames` first: pages of panels that were accessed are noted, and those of a process's regions when it is its panel
that marks. (The regions of several processes mark frames that these share without telling each other.)
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.frames import Flags, Frames
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers
from pydamon.primitives.bpf_panel import inside


class Window(Protocol):
    """What is needed of an `IdlePrimitive`: a window of observation on pages."""

    @property
    def addresses(self) -> Addresses:
        """Its pages."""
        ...

    @property
    def heads(self) -> Frames:
        """The frame that answers for each of them."""
        ...

    def prepare(self, addresses: Addresses) -> Flags:
        """Open it on these pages."""
        ...

    def check(self) -> Answers:
        """What it has seen by now, with what was noted."""
        ...

    def cleared_with(self, heads: Frames) -> NDArray[np.intp]:
        """Which of its pages may lose their accessed bits when these frames are marked."""
        ...

    def note(self, index: NDArray[np.intp]) -> None:
        """The accessed bits of these of its pages are about to be cleared."""
        ...

    def update(self) -> None:
        """The process may have executed another program."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class PanelFrames:
    """All panels on one idle bitmap."""

    def __init__(self) -> None:
        self._panels: list[IdlePanel] = []
        self._heads: Frames = np.empty(0, np.uint64)  # of all panels, sorted
        self._looking: IdlePanel | None = None

    def open(self, window: Window, regions: Window) -> IdlePanel:
        """A panel that asks through ``window``, of the process whose regions are asked through ``regions``."""
        self._panels.append(IdlePanel(window, regions, self))
        return self._panels[-1]

    def close(self, panel: IdlePanel) -> None:
        """It asks no more."""
        self._panels.remove(panel)

    def begin(self, panel: IdlePanel, addresses: Addresses) -> None:
        """Open the window of a panel on these pages."""
        self._looking = panel
        try:
            panel.window.prepare(addresses)
        finally:
            self._looking = None
        self._heads = np.unique(np.concatenate([panel.window.heads for panel in self._panels]))

    def before_mark(self, heads: Frames) -> None:
        """These frames are about to be marked as idle; shape (n,)."""
        at = np.searchsorted(self._heads, heads)
        if len(self._heads) and (self._heads[np.minimum(at, len(self._heads) - 1)] == heads).any():
            for panel in self._panels:
                if panel is not self._looking:  # its windows begin anew
                    _note(panel.window, heads)
        if self._looking is not None:
            _note(self._looking.regions, heads)


def _note(window: Window, heads: Frames) -> None:
    index = window.cleared_with(heads)
    if len(index):
        window.note(index)


class IdlePanel:
    """The pages of one process, from one `look` to the next."""

    def __init__(self, window: Window, regions: Window, frames: PanelFrames) -> None:
        self.window = window
        self.regions = regions
        self._frames = frames

    def look(self, addresses: Addresses) -> tuple[Flags, Flags]:
        """Which of these pages were accessed since the last look, and of which that is not known; shape (n,) each.

        Of pages that were not asked about then, the window begins now: neither is True. Each page is given once.
        """
        before, seen = self.window.addresses, self.window.check()
        answers: Answers = np.full(len(addresses), NOT_ACCESSED, np.uint8)
        _, mine, theirs = np.intersect1d(addresses, before, assume_unique=True, return_indices=True)
        answers[mine] = seen[theirs]
        self._frames.begin(self, addresses)
        return answers == ACCESSED, answers == UNKNOWN

    def before_clear(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        """The accessed bits of these ranges (bytes) are about to be cleared by an action."""
        index = np.flatnonzero(inside(self.window.addresses, starts, lengths))
        if len(index):
            self.window.note(index)

    def close(self) -> None:
        """Ask no more."""
        self._frames.close(self)
        self.window.close()
