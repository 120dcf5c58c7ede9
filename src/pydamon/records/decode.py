"""From messages to checked snapshots: decompression, grouping of rows, and what is left out of a damaged record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from pydamon.core import columns
from pydamon.core.columns import Array
from pydamon.errors import RequestError
from pydamon.records.batch import RegionBatch
from pydamon.records.framing import BadMessage, Frame, check_batch, check_sum, custom_metadata
from pydamon.records.index import END_NS, ROWS, START_NS, TARGET, read_index
from pydamon.records.schema import ALWAYS, COLUMNS, END_OF_STREAM, HEADS, MAX_BATCH_ROWS
from pydamon.spans import distinct

# One snapshot of more regions than this is no monitoring result.
_MAX_SNAPSHOT_ROWS = 1 << 22
# Overlapping regions are looked at one by one; in a pass, no more than so many: what nobody recorded is left out whole.
_MOST_OVERLAPPING = 1 << 17


class Rows(columns.PerRegion):
    """Decoded rows. ``index`` describes the snapshots they belong to (columns: see `index`), in order."""

    __slots__ = ("columns", "index")

    def __init__(self, index: NDArray[np.int64], columns: Mapping[str, Array]) -> None:
        self.index = index
        self.columns = columns

    def split(self, snapshots: int) -> tuple[Rows, Rows]:
        """The first so many snapshots, and the rest."""
        at = int(self.index[:snapshots, ROWS].sum())
        return (
            Rows(self.index[:snapshots], columns.select(self.columns, slice(at))),
            Rows(self.index[snapshots:], columns.select(self.columns, slice(at, None))),
        )

    def batch(self) -> RegionBatch:
        """The same as a batch, unchecked; at least one snapshot."""
        heads = {name: self.index[:, place] for place, name in enumerate(HEADS, ROWS + 1)}
        return RegionBatch(heads, np.concatenate([[0], np.cumsum(self.index[:, ROWS])]), self.columns)

    @classmethod
    def of(cls, batch: RegionBatch) -> Rows:
        """The rows of a batch."""
        return cls(np.column_stack([batch.counts, *(batch.heads[name] for name in HEADS)]), batch.columns)


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, copied; neighbours that are of the same snapshot become one snapshot."""
    described = np.concatenate([part.index for part in parts])
    same = (described[1:, TARGET : END_NS + 1] == described[:-1, TARGET : END_NS + 1]).all(axis=1)
    if same.any():
        firsts = np.concatenate([[0], np.flatnonzero(~same) + 1])
        counts = np.add.reduceat(described[:, ROWS], firsts)
        described = described[firsts]
        described[:, ROWS] = counts
    return Rows(described, columns.concatenate([part.columns for part in parts]))


@dataclass(slots=True)
class Damage:
    """What one pass over a record left out."""

    messages: int = 0  # batches that could not be decoded …
    message_rows: int = 0  # … and the rows that they claimed to have
    regions: int = 0  # regions that cannot be
    snapshots: int = 0  # snapshots out of order or with impossible times
    tables: int = 0
    absurd: int = 0  # side tables that would become more than a file of that size can hold
    description: bool = False  # its checksum is wrong

    @property
    def total(self) -> int:
        """To compare two passes: the one that saw more of the record found more."""
        return self.message_rows + self.messages + self.regions + self.snapshots + self.tables

    def lines(self) -> list[str]:
        """What to tell the user."""
        found = []
        if self.description:
            found.append("its description is damaged: what it says of targets and spec may be wrong")
        if self.messages:
            found.append(f"{_count(self.messages, 'damaged block')} ({self.message_rows} regions) left out")
        if self.regions:
            found.append(
                f"{_count(self.regions, 'impossible region')} left out "
                "(overlapping, backwards, or more accesses than samples)"
            )
        if self.snapshots:
            found.append(f"{_count(self.snapshots, 'snapshot')} out of time order left out")
        if self.tables:
            found.append(f"{_count(self.tables, 'damaged side table')} left out")
        if self.absurd:
            found.append(f"{_count(self.absurd, 'side table')} left out: unpacked, absurdly large for this file")
        return found


def _continues(rows: Rows, more: Rows) -> bool:
    """Whether ``more`` begins with regions of the snapshot that ``rows`` end with."""
    columns = slice(TARGET, END_NS + 1)
    return len(more.index) > 0 and bool((rows.index[-1, columns] == more.index[0, columns]).all())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


class Decoder:
    """Decodes the region batches of one record; ``summed``: each of them must have a checksum."""

    def __init__(self, schema: pa.Schema, schema_bytes: bytes, optional: Sequence[str], summed: bool) -> None:
        self._summed = summed
        self._schema_bytes = schema_bytes
        self._widths = tuple(field.type.bit_width // 8 for field in schema)
        self._required = tuple(field.name in COLUMNS for field in schema)
        self._places = {name: schema.get_field_index(name) for name in (*COLUMNS, *optional)}
        self._optional = tuple(optional)

    def decode(
        self, read: Callable[[int, int], bytes], chunk: list[Frame], wanted: Collection[str] | None, damage: Damage
    ) -> Rows | None:
        """The rows of these messages, one message after the other; None if there are none.

        ``wanted``: which of ``age`` and the optional columns to decode; None is all. Ages are 0 else. Messages that
        cannot be decoded are counted in ``damage``.
        """
        names = [*ALWAYS, *(name for name in ("age", *self._optional) if wanted is None or name in wanted)]
        plain: list[tuple[Frame, bytes]] = []
        indexed: list[tuple[Frame, bytes]] = []
        parts: dict[int, Rows] = {}
        indices = {}
        for frame, message in zip(chunk, _messages(read, chunk), strict=True):
            try:
                found = self._index(frame, message)
            except BadMessage:
                damage.messages += 1
                damage.message_rows += max(frame.rows, 0)
                continue
            if found is None:
                plain.append((frame, message))
            else:
                indices[frame.offset] = found
                indexed.append((frame, message))
        for messages, these in ((indexed, names), (plain, [*HEADS, *names])):
            for frame, batch in self._batches(messages, these, damage):
                described = indices.get(frame.offset)
                parts[frame.offset] = Rows(index_of(batch) if described is None else described, columns_of(batch))
        return join([parts[offset] for offset in sorted(parts)]) if parts else None

    def targets(self, read: Callable[[int, int], bytes], frame: Frame) -> set[int]:
        """The targets that the message has snapshots of, found without decoding its regions."""
        found = self._heads(read, frame)
        return set() if found is None else set(found[:, TARGET].tolist())

    def times(self, read: Callable[[int, int], bytes], frame: Frame) -> tuple[int, int]:
        """The earliest start and the latest end (ns) of the message's snapshots; (0, -1) if it is damaged."""
        found = self._heads(read, frame)
        return (0, -1) if found is None else (int(found[:, START_NS].min()), int(found[:, END_NS].max()))

    def _heads(self, read: Callable[[int, int], bytes], frame: Frame) -> NDArray[np.int64] | None:
        """The index of a message; None if it is damaged."""
        (message,) = _messages(read, [frame])
        try:
            found = self._index(frame, message)
        except BadMessage:
            return None
        if found is not None:
            return found
        for _, batch in self._batches([(frame, message)], HEADS, Damage()):
            return index_of(batch)
        return None

    def _index(self, frame: Frame, message: bytes) -> NDArray[np.int64] | None:
        """The index of a sound message, None if it has none; raises BadMessage if it is damaged."""
        if len(message) != frame.end - frame.offset:
            raise BadMessage("cut short")
        check_batch(message, frame, self._widths, self._required)
        check_sum(message, frame, self._summed)
        return read_index(custom_metadata(message, frame), frame.rows) if frame.tagged else None

    def _batches(
        self, messages: list[tuple[Frame, bytes]], names: Sequence[str], damage: Damage
    ) -> list[tuple[Frame, pa.RecordBatch]]:
        if not messages:
            return []
        try:
            batches = self._stream([message for _, message in messages], names)
            return [(frame, batch) for (frame, _), batch in zip(messages, batches, strict=True)]
        except _UNDECODABLE:
            if len(messages) > 1:
                return [pair for one in messages for pair in self._batches([one], names, damage)]
        damage.messages += 1
        damage.message_rows += messages[0][0].rows
        return []

    def _stream(self, messages: list[bytes], names: Sequence[str]) -> list[pa.RecordBatch]:
        data = b"".join((self._schema_bytes, *messages, END_OF_STREAM))
        # The buffers are small: threads would cost more than they bring.
        options = ipc.IpcReadOptions(included_fields=[self._places[name] for name in names], use_threads=False)
        batches = list(ipc.open_stream(pa.py_buffer(data), options=options))
        for batch in batches:
            batch.validate()
        return batches


def columns_of(batch: pa.RecordBatch) -> dict[str, Array]:
    """The columns of the regions as arrays; an optional one of which nothing is known is left out."""
    found: dict[str, Array] = {}
    for column in columns.PER_REGION:
        if column.name == "age" and "age" not in batch.schema.names:
            found["age"] = _NO_AGES[: batch.num_rows]
        elif column.name in batch.schema.names:
            values = batch.column(column.name)
            if values.null_count < batch.num_rows:
                filled = values.fill_null(column.unknown) if values.null_count else values
                found[column.name] = filled.to_numpy()
    return found


_NO_AGES = np.broadcast_to(np.uint32(0), MAX_BATCH_ROWS)


def index_of(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The index of a batch that came without one, from its columns."""
    # Intervals beyond 2**63 us are as absurd as negative ones and fare like them.
    columns = [batch.column(name).to_numpy().astype(np.int64) for name in HEADS]
    begins = np.zeros(batch.num_rows, dtype=np.bool_)
    begins[:1] = True
    for column in columns[:3]:
        begins[1:] |= column[1:] != column[:-1]
    firsts = np.flatnonzero(begins)
    counts = np.diff(np.append(firsts, batch.num_rows))
    return np.column_stack([counts, *(column[firsts] for column in columns)])


_UNDECODABLE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError)


def _messages(read: Callable[[int, int], bytes], chunk: list[Frame]) -> list[bytes]:
    """The bytes of each message, neighbours fetched in one read."""
    found: list[bytes] = []
    index = 0
    while index < len(chunk):
        first = index
        while index + 1 < len(chunk) and chunk[index + 1].offset == chunk[index].end:
            index += 1
        begin = chunk[first].offset
        data = read(begin, chunk[index].end - begin)
        found += [data[f.offset - begin : f.end - begin] for f in chunk[first : index + 1]]
        index += 1
    return found


class Grouper:
    """Puts rows together to whole, checked snapshots; holds a snapshot back until its last row is known."""

    def __init__(self, path: str, damage: Damage, most_targets: int) -> None:
        self._path = path
        self._most_targets = most_targets
        self._may_look_at = _MOST_OVERLAPPING
        self._damage = damage
        self._held: Rows | None = None
        self._newest_ns: dict[int, int] = {}

    def add(self, rows: Rows | None, *, last: bool) -> list[RegionBatch]:
        """The snapshots that are complete by now, in few batches or none; all of them if these are the last rows."""
        held, self._held = self._held, None
        whole: list[Rows] = []
        if held is not None:
            if rows is None:
                rows = held
            elif _continues(held, rows):
                rows = join([held, rows])
            else:
                whole.append(held)  # by itself: joining would copy everything
        if rows is not None and not last:
            rows, self._held = rows.split(len(rows.index) - 1)
            if len(self._held.start) > _MAX_SNAPSHOT_ROWS:
                raise RequestError(f"has a snapshot of more than {_MAX_SNAPSHOT_ROWS} regions", where=self._path)
        if rows is not None and len(rows.index):
            whole.append(rows)
        return [batch for part in whole if len(batch := self._checked(part.batch()))]

    def _checked(self, batch: RegionBatch) -> RegionBatch:
        plausible = (
            (batch.start_ns >= 0)
            & (batch.end_ns >= batch.start_ns)
            & (batch.sample_us >= 0)
            & (batch.aggr_us >= 0)
            & self._in_order(batch)
        )
        if len(self._newest_ns) > self._most_targets:
            raise RequestError(
                f"has more than {self._most_targets} targets, which is absurd for its size", where=self._path
            )
        self._damage.snapshots += len(batch) - int(plausible.sum())
        batch = batch.select(plausible)
        valid = self._valid_rows(batch)
        if valid is None:
            return batch
        self._damage.regions += len(valid) - int(valid.sum())
        return batch.regions(valid)

    def _in_order(self, batch: RegionBatch) -> NDArray[np.bool_]:
        """Which snapshots end no earlier than all the target's snapshots before them."""
        ends = batch.end_ns
        newest = max(self._newest_ns.values(), default=-1)
        if ends[0] >= newest and (ends[1:] >= ends[:-1]).all():
            targets, from_end = np.unique(batch.target[::-1], return_index=True)
            self._newest_ns.update(zip(targets.tolist(), ends[::-1][from_end].tolist(), strict=True))
            return np.ones(len(batch), dtype=np.bool_)
        order = np.argsort(batch.target, kind="stable")
        targets, firsts = np.unique(batch.target[order], return_index=True)
        before = np.array([self._newest_ns.get(target, -1) for target in targets.tolist()], np.int64)
        of_target = np.repeat(np.arange(len(targets)), np.diff(np.append(firsts, len(order))))
        # The newest end of the target up to each snapshot, as its rank, so that those of later targets are higher.
        _, ranks = np.unique(np.concatenate([ends[order], before]), return_inverse=True)
        rank, rank_before = ranks[: len(order)], ranks[len(order) :]
        steps = of_target * (len(ranks) + 1) + np.maximum(rank, rank_before[of_target])
        reached = np.maximum.accumulate(steps)
        kept = np.empty(len(batch), dtype=np.bool_)
        kept[order] = of_target * (len(ranks) + 1) + rank >= reached
        ends_kept = np.maximum(np.maximum.reduceat(ends[order], firsts), before)
        self._newest_ns.update(zip(targets.tolist(), ends_kept.tolist(), strict=True))
        return kept

    def _valid_rows(self, batch: RegionBatch) -> NDArray[np.bool_] | None:
        """Which regions are possible, or None if all are: a byte long or more, sorted, disjoint, nr_accesses <= max."""
        start, end = batch.start, batch.end
        if not len(start):
            return None
        limits = batch.max_nr_accesses
        valid = start < end
        if int(batch.nr_accesses.max()) > int(limits.min()):
            valid &= batch.nr_accesses <= np.repeat(limits, batch.counts)
        overlaps = start[1:] < end[:-1]
        overlaps[batch.offsets[1:-1] - 1] = False
        if not overlaps.any():
            return None if valid.all() else valid
        # Rare: within the snapshots concerned keep, in order, each region that does not reach back into a kept one.
        for index in distinct(np.searchsorted(batch.offsets, np.flatnonzero(overlaps) + 1, "right") - 1).tolist():
            first, behind = batch.offsets[index : index + 2].tolist()
            self._may_look_at -= behind - first
            if self._may_look_at < 0:
                valid[first:behind] = False
                continue
            reach = 0
            for row in range(first, behind):
                if valid[row] and start[row] >= reach:
                    reach = int(end[row])
                else:
                    valid[row] = False
        return valid
