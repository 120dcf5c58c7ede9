"""One answer per mapped file for all who map it: what several targets share counts once, in the file's own offsets.

A part is as hot as its hottest user has it, and cold only if all of them have it cold; where one of them could not be
watched and no other used it, it is unknown. Private mappings that may be written are left out (and counted beside it):
what was written there is a copy of the process's own, and a record does not tell which pages those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import unaccessed_s
from pydamon.analysis.summary import WARM_S, Layout, divided
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]


@dataclass(slots=True)
class FileUse:
    """What all targets together use of a file, in bytes; files of one name and inode are one.

    ``mapped``: all of it that anybody maps so that it is shared. Of what is in memory ``hot`` was accessed in the last
    snapshot of a user, ``warm`` within `WARM_S` before, ``cold`` by nobody. ``summed`` is what counting each user's
    would give. ``private`` is memory of private mappings that may be written, summed over the users.
    """

    name: str
    inode: int
    users: set[int] = field(default_factory=set)
    mapped: int = 0
    hot: int = 0
    warm: int = 0
    cold: int = 0
    unknown: int = 0
    summed: int = 0
    private: int = 0

    @property
    def memory(self) -> int:
        """All of which it is known how hot it is."""
        return self.hot + self.warm + self.cold


class _Rows(NamedTuple):
    """Parts of a file (shape (n,), bytes) as one target has them: idle for ``since_s`` (-1: accessed).

    ``known`` and ``unknown``: which share of a part is memory of which that is known, and of which it is not.
    """

    start: U64
    end: U64
    since_s: F64
    known: F64
    unknown: F64


def uses(looked_at: Iterable[tuple[int, Snapshot, Sequence[Mapping]]]) -> list[FileUse]:
    """Of targets, a snapshot of each and its mappings; the file with the most memory first."""
    files: dict[tuple[str, int], FileUse] = {}
    rows: dict[tuple[str, int], list[_Rows]] = {}
    for target, snapshot, mappings in looked_at:
        held = sorted((m for m in mappings if m.inode), key=lambda mapping: mapping.start)
        batch, _ = divided(snapshot, Layout(held))
        first = np.searchsorted(batch.start, np.array([m.start for m in held], np.uint64), "left")
        last = np.searchsorted(batch.start, np.array([m.end for m in held], np.uint64), "left")
        for mapping, begin, end in zip(held, first.tolist(), last.tolist(), strict=True):
            key = (mapping.name, mapping.inode)
            use = files.setdefault(key, FileUse(*key))
            use.users.add(target)
            size = int(batch.memory[begin:end].sum())
            if mapping.perms[1:2] == "w" and mapping.perms[3:4] == "p":
                use.private += size
                continue
            use.summed += size
            rows.setdefault(key, []).append(_of_mapping(batch, mapping, begin, end))
    for key, found in rows.items():
        _unite(files[key], found)
    return sorted(files.values(), key=lambda use: (-use.memory - use.unknown, -use.private, use.name))


def _of_mapping(batch: RegionBatch, mapping: Mapping, begin: int, end: int) -> _Rows:
    """The pieces of one mapping, by offset in its file; what of it was not monitored is not among them."""
    start, behind = batch.start[begin:end], batch.end[begin:end]
    size = (behind - start).astype(np.float64)
    to_file = np.uint64((mapping.offset - mapping.start) % (1 << 64))  # sums of arrays wrap around
    return _Rows(
        start + to_file,
        behind + to_file,
        unaccessed_s(batch)[begin:end],
        batch.memory[begin:end] / size,
        batch.unknown_memory[begin:end] / size,
    )


def _unite(use: FileUse, found: Sequence[_Rows]) -> None:
    """Add the parts up, each once."""
    rows = _Rows(*(np.concatenate(column) for column in zip(*found, strict=True)))
    bounds = distinct(np.concatenate([rows.start, rows.end]))
    if len(bounds) < 2:
        return
    count = len(bounds) - 1
    since, known, unknown = np.full(count, np.inf), np.zeros(count), np.zeros(count)
    mapped = np.zeros(count, np.bool_)
    first, last = np.searchsorted(bounds, rows.start), np.searchsorted(bounds, rows.end)
    for begin, end, idle, share, blind in zip(
        first.tolist(), last.tolist(), rows.since_s.tolist(), rows.known.tolist(), rows.unknown.tolist(), strict=True
    ):
        part = slice(begin, end)
        mapped[part] = True
        if share:
            np.minimum(since[part], idle, out=since[part])
        np.maximum(known[part], share, out=known[part])
        np.maximum(unknown[part], blind, out=unknown[part])
    size = np.diff(bounds).astype(np.float64)
    hot = since < 0
    blind_part = ~hot & (unknown > 0)
    warm = ~hot & ~blind_part & (since < WARM_S)
    use.mapped = int(size[mapped].sum())
    use.hot = round(float((size * known)[hot].sum()))
    use.warm = round(float((size * known)[warm].sum()))
    use.cold = round(float((size * known)[~hot & ~blind_part & ~warm].sum()))
    use.unknown = round(float((size * np.maximum(known, unknown))[blind_part].sum()))
