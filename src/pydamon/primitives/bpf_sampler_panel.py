"""What the sampler's program and a page panel tell each other: both clear the same accessed bits.

The program notes what it lists to be cleared of the panel's pages; what is cleared for the panel while the windows of
regions are open counts for those regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.word_files import Addresses
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf import BpfPrimitive
from pydamon.primitives.bpf_panel import inside
from pydamon.primitives.bpf_sampler_map import NOTED, SamplerMap
from pydamon.primitives.bpf_sampler_pages import HASH_FACTOR
from pydamon.spans import distinct

_PAGE, _HUGE = np.uint64(4096), np.uint64(2 << 20)


def watch(memory: SamplerMap, pages: Addresses) -> None:
    """Note what is cleared of these pages (addresses, of any target) from now on; none ends it."""
    numbers = (pages // _PAGE) * np.uint64(HASH_FACTOR)
    bits = (numbers >> np.uint64(64 - lay.FILTER_BITS)).astype(np.intp)
    flags = np.zeros(1 << lay.FILTER_BITS, np.bool_)
    flags[bits] = True
    memory.filter[:] = np.packbits(flags, bitorder="little")
    memory.header["panel"] = len(pages) > 0
    memory.header["noted"] = 0


def take_noted(memory: SamplerMap) -> tuple[NDArray[np.void], bool]:
    """What was cleared since the last call: (base, pages, target's place); and whether that is all of it.

    Pages with the same hash as one of the panel are among them.
    """
    wanted = memory.sums()[NOTED]
    noted = memory.noted[: min(wanted, lay.NOTED)].copy()
    noted["target"] = memory.targets["owner"][noted["target"]]
    memory.header["noted"] = 0
    return noted, wanted <= lay.NOTED


def is_due(noted: int, parts: int) -> bool:
    """Whether what was noted is to be told before it is cleared: of a folio's pages it is to be seen which were
    accessed (there are ``parts`` such ranges), and there is room for so many notes only."""
    return noted > 0 and (parts > 0 or noted > lay.NOTED // 2)


def tell(memory: SamplerMap, primitives: Sequence[BpfPrimitive]) -> None:
    """Tell the panels of the processes (by the place of each target) what was cleared of theirs."""
    if not memory.sums()[NOTED]:
        return
    noted, complete = take_noted(memory)
    places: list[int] = distinct(noted["target"]).tolist()
    for place in places:
        panel = primitives[place].panel
        if panel is not None:
            of_target = noted[noted["target"] == place]
            starts, lengths = of_target["base"].copy(), of_target["pages"].astype(np.uint64) * _PAGE
            one_bit = (lengths == _PAGE) | (lengths == _HUGE)
            panel.note(starts[one_bit], lengths[one_bit])
            panel.before_clear(starts[~one_bit], lengths[~one_bit])
    for primitive in () if complete else primitives:
        if primitive.panel is not None:
            primitive.panel.lose()


class LostHits:
    """Regions whose open window has seen an access that was cleared for the panel, with their counts before."""

    def __init__(self) -> None:
        self.held: list[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]] = []

    def note(
        self, memory: SamplerMap, primitive: BpfPrimitive, regions: slice, starts: Addresses, lengths: Addresses
    ) -> None:
        """These ranges of a process, which has these ``regions``, are about to be cleared."""
        watched = memory.regions["watched"][regions]
        index = np.flatnonzero(inside(watched, starts, lengths))
        if len(index):
            index = index[primitive.read_now(watched[index])[3]] + regions.start
            self.held.append((index, memory.regions["accessed"][index], memory.regions["unknown"][index]))

    def count(self, memory: SamplerMap) -> None:
        """The windows of these regions have ended: they were accessed, whatever was found."""
        for index, accessed, unknown in self.held:
            memory.regions["accessed"][index] = accessed + 1
            memory.regions["unknown"][index] = unknown
        self.held.clear()

    def drop(self) -> None:
        """The windows say nothing."""
        self.held.clear()
