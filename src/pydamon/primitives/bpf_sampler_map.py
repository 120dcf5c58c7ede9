"""The sampler's loaded program and the memory that it shares with us, seen as NumPy records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.linux import bpf_syscall
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.bpf_sampler_program import sampler_program
from pydamon.primitives.page_tables import PageTables

Records = NDArray[np.void]


class SamplerMap:
    """Program and map of one layout. The views look into the map's memory: drop them all before `close`.

    Raises MachineError where the kernel refuses the program.
    """

    def __init__(self, facts: SamplerFacts, tables: PageTables, layout: lay.SamplerLayout) -> None:
        self.layout = layout
        self._loaded: bpf_syscall.Loaded | None = bpf_syscall.Loaded(
            layout.size, lambda map_fd: sampler_program(facts, tables, layout, map_fd)
        )
        memory, self._test_run = self._loaded.memory, self._loaded.run
        self.header = np.frombuffer(memory, lay.HEADER, 1)
        self.targets = np.frombuffer(memory, lay.TARGET, layout.targets, layout.targets_at)
        self.regions = np.frombuffer(memory, lay.REGION, layout.regions, layout.regions_at)
        # The same, as rows of 8 words: start, pages, and what is 0 when it is loaded.
        self.region_words = self.regions.view(np.uint64).reshape(-1, lay.REGION.itemsize // 8)
        self.iovecs = np.frombuffer(memory, lay.IOVEC, layout.regions, layout.iovecs_at)
        self.slow = np.frombuffer(memory, np.uint32, layout.regions, layout.slow_at)
        self.before = np.frombuffer(memory, np.uint64, layout.runs, layout.before_at)
        self.run_starts = np.frombuffer(memory, np.uint64, layout.runs, layout.starts_at)
        self.filter = np.frombuffer(memory, np.uint8, (1 << lay.FILTER_BITS) // 8, layout.filter_at)
        self.noted = np.frombuffer(memory, lay.NOTE, lay.NOTED, layout.noted_at)
        self.before[:] = lay.BEHIND_ALL
        self.iovecs_address = int(self.iovecs.ctypes.data)
        # Of single numbers, a memoryview is several times as fast as an array.
        self._bytes = memoryview(memory)
        self._words = self._bytes[: lay.HEADER.itemsize].cast("I")
        self._sums = self._words[_FIRST_SUM : _LAST_SUM + 1]
        self._target_words = words = self._bytes[layout.targets_at : layout.regions_at].cast("I")
        # Of each target record: how many ranges it has, how many regions without a watched page, its status.
        self.ranges, self.unwatched, self.statuses = (words[at::_TARGET_WORDS] for at in (_RANGES, _UNWATCHED, _STATUS))

    def run(self, flags: int, first_target: int, end_target: int) -> None:
        """Run the program once for these target records."""
        words = self._words
        words[_FLAGS], words[_FIRST], words[_END] = flags, first_target, end_target
        self._test_run()

    def sums(self) -> list[int]:
        """What a sample's runs have added up: ranges, parts, slow and unwatched regions, bad targets, failed walks; and
        the notes there are for the panel."""
        return self._sums.tolist()

    def ranges_of(self, target: int) -> tuple[int, int]:
        """First range of a target record, and bytes in all of its ranges."""
        words, at = self._target_words, target * _TARGET_WORDS
        return words[at + _FIRST_RANGE], words[at + _BYTES] | words[at + _BYTES + 1] << 32

    def close(self) -> None:
        """Unload the program and release the map."""
        if self._loaded is not None:
            # The memory can be released only when nothing looks at it; what a caller still holds keeps it.
            for name in [name for name, held in vars(self).items() if isinstance(held, np.ndarray)]:
                del self.__dict__[name]
            views = (self.ranges, self.unwatched, self.statuses, self._sums)
            for view in (*views, self._words, self._target_words, self._bytes):
                view.release()
            self._loaded.close()
            self._loaded = None


def field_at(name: str, dtype: np.dtype[np.void] = lay.HEADER) -> int:
    """Bytes before that field of the record."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


_FLAGS, _FIRST, _END = (field_at(name) // 4 for name in ("flags", "first_target", "end_target"))
_FIRST_SUM, _LAST_SUM = field_at("ranges") // 4, field_at("noted") // 4
# Places among the sums.
BAD, NOTED = field_at("bad") // 4 - _FIRST_SUM, field_at("noted") // 4 - _FIRST_SUM
_TARGET_WORDS = lay.TARGET.itemsize // 4
_BYTES, _FIRST_RANGE, _RANGES, _UNWATCHED, _STATUS = (
    field_at(name, lay.TARGET) // 4 for name in ("bytes", "first_range", "ranges", "unwatched", "status")
)
