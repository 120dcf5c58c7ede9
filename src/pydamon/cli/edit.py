"""``pydamon record cut``, ``merge`` and ``aggregate``: records from records, in one pass and bounded memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pydamon import lean
from pydamon.cli.completion.values import FILE, RECORD
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_record
from pydamon.cli.options import forced, record_path
from pydamon.cli.render.output import say_written
from pydamon.cli.report.choice import Choice, choice, windowed
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.core.snapshot import Snapshot
    from pydamon.records.batch import RegionBatch
    from pydamon.records.joined import AnyReader
    from pydamon.records.schema import RecordInfo
    from pydamon.records.writer import RecordWriter

_OUTPUT = click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    callback=record_path,
    help="The record to write (- is standard output).",
)
_MAX_MERGED = 256
_PLACE = re.compile(r"(?:kdamond|context|scheme)=\d+")
_HELD = 64  # snapshots that are combined at a time


@click.command("cut", cls=Verb)
@reads_record
@_OUTPUT
@forced
@click.option("--target", type=int, metavar="N", help="Only this target.")
@windowed
def cut(path: str, output: str, force: bool, target: int | None, **window: Any) -> None:
    """Write a record that holds only a part of another: some of the time, some addresses, one target."""
    with lean.imports():
        import pydamon.cli.report.common  # noqa: F401

    _cut(path, output, choice(target, **window), keep_old=not force)


@click.command("merge", cls=Verb)
@click.argument("files", nargs=-1, metavar="FILE...", type=RECORD)
@click.option("-i", "--input", "inputs", multiple=True, type=RECORD, help="A record, also without -i; repeatable.")
@_OUTPUT
@forced
def merge(files: tuple[str, ...], inputs: tuple[str, ...], output: str, force: bool) -> None:
    """Write one record that holds all the snapshots of several, in the order of their times."""
    with lean.imports():
        import pydamon.cli.report.common  # noqa: F401

    if not (found := files + inputs):
        raise click.MissingParameter(ctx=click.get_current_context(), param_hint="'FILE...'", param_type="argument")
    merge_files(found, output, keep_old=not force)


@click.command("aggregate", cls=Verb)
@reads_record
@_OUTPUT
@forced
@click.option("--factor", type=click.IntRange(2, 100_000), required=True, help="How many snapshots become one.")
def aggregate(path: str, output: str, force: bool, factor: int) -> None:
    """Write a coarser record: every N consecutive snapshots of a target become one."""
    with lean.imports():
        import pydamon.cli.report.common  # noqa: F401

    _aggregate(path, output, factor, keep_old=not force)


COMMANDS = {"cut": cut, "merge": merge, "aggregate": aggregate}


@contextmanager
def _writing(
    readers: Sequence[AnyReader], output: str, about: RecordInfo, *, keep_old: bool, **changes: Any
) -> Iterator[RecordWriter]:
    """A writer of what is made of these records, with that description and the optional columns of all.

    The file appears (or is replaced) only once it is complete. Raises RequestError for a file that is being
    read, or recorded to, or that is no record.
    """
    from pydamon.records.schema import describe
    from pydamon.records.writer import RecordWriter, check_output

    check_output(output, keep_old=keep_old)
    if os.path.exists(output) and any(os.path.samefile(path, output) for r in readers for path in _files(r)):
        raise RequestError(f"{output} is being read; choose another name", where="-o")
    metadata = describe(about) | changes
    optional = {name for reader in readers for name in reader.optional}
    with RecordWriter(output, metadata=metadata, optional=optional, whole=True, keep_old=keep_old) as writer:
        yield writer


def _cut(path: str, output: str, wanted: Choice, *, keep_old: bool) -> None:
    from pydamon.cli.report.common import chosen, opened, window_of
    from pydamon.records.copying import copy_tables

    with opened(path) as reader:
        batches, span = chosen(reader, wanted)
        window = window_of(wanted, span)
        keep = [asdict(t) for t in reader.info.targets if wanted.target in (None, t.target)]
        with _writing([reader], output, reader.info, keep_old=keep_old, targets=keep) as writer:
            # What is older than the window stays: mappings hold until they change, sums count from the start.
            _note_start(reader, writer, span[0])
            copy_tables(reader, writer, until_ns=window.end_ns, target=wanted.target, within=(window.low, window.high))
            for batch in batches:
                for snapshot in batch.snapshots():
                    writer.add_snapshot(snapshot)
    say_written(writer)


def _note_start(reader: AnyReader, writer: RecordWriter, start_ns: int) -> None:
    """Say that the costs, which are sums, were 0 at the start of the recording: the part does not begin there."""
    from pydamon.records.side_tables import TABLES

    times = [piece.column("time_ns").to_numpy().min() for piece in reader.table("cost") if piece.num_rows]
    if times and min(times) > start_ns:
        nothing = dict.fromkeys(TABLES["cost"].schema.names, 0) | {"time_ns": start_ns}
        writer.add_rows("cost", [nothing], time_ns=start_ns)


def merge_files(inputs: Sequence[str], output: str, *, keep_old: bool, one_recording: bool = False) -> None:
    """Write one record of several. ``one_recording``: they are its parts, in which what is called alike is the same."""
    from pydamon.cli.render.screen import warn
    from pydamon.errors import PydamonError
    from pydamon.records.copying import copy_tables

    if len(inputs) > _MAX_MERGED:
        raise RequestError(f"{len(inputs)} files are too many; the most is {_MAX_MERGED}", where="FILE")
    with ExitStack() as stack:
        readers: list[AnyReader] = []
        for path in inputs:
            readers.append(_opened_to_merge(path, alone=len(inputs) == 1))
            stack.callback(readers[-1].close)
        if len({reader.info.clock for reader in readers}) > 1:
            raise RequestError("virtual and real time cannot be in one record", where="FILE")
        first = min(readers, key=_began)
        parts = sorted((_Part(reader, _shift(first.info, reader.info)) for reader in readers), key=lambda p: p.start_ns)
        if not any(part.filled for part in parts):
            raise PydamonError("hold no snapshot: nothing was recorded", where=", ".join(inputs[:3]))
        targets = _number_parts(parts) if one_recording else _number(parts)
        with _writing(readers, output, first.info, keep_old=keep_old, targets=targets) as writer:
            for part in parts:
                copy_tables(part.reader, writer, numbers=part.numbers, shift_ns=part.shift_ns)
            for snapshot in _in_order_of_time(parts):
                writer.add_snapshot(snapshot)
        for reader in readers:
            warn(reader.warnings())
    say_written(writer)


def _opened_to_merge(path: str, *, alone: bool) -> AnyReader:
    """The record; an error names it, and says what can be done about the others."""
    from pydamon.errors import PydamonError
    from pydamon.records.joined import open_record

    try:
        return open_record(path)
    except PydamonError as error:
        if not alone:
            error.message += "; without this file the others can be merged"
        raise


def _began(reader: AnyReader) -> int:
    """When a record begins, as nanoseconds since the epoch where it says so; one without snapshots never does."""
    span = reader.time_range()
    return (1 << 64) if span is None else span[0] + (reader.info.wall_offset_ns or 0)


class _Part:
    """One of the records that are merged: on which clock it is, and what its targets are called in the result."""

    def __init__(self, reader: AnyReader, shift_ns: int) -> None:
        span = reader.time_range()
        self.reader = reader
        self.shift_ns = shift_ns
        self.filled = span is not None
        self.start_ns, self.end_ns = (time_ns + shift_ns for time_ns in span or (0, 0))
        self.numbers: dict[int, int] = {}

    def snapshots(self) -> Iterator[Snapshot]:
        """Its snapshots as they are in the result."""
        for snapshot in self.reader.snapshots():
            if snapshot.target not in self.numbers:  # of a damaged record: a target that nothing describes
                continue
            yield snapshot.replace(
                target=self.numbers[snapshot.target],
                start_ns=snapshot.start_ns + self.shift_ns,
                end_ns=snapshot.end_ns + self.shift_ns,
            )


def _number(parts: Sequence[_Part]) -> list[dict[str, Any]]:
    """Give each target its number in the result, and describe them.

    A process stays one target if its records follow one another. Recorded twice at the same time, or without an
    identity (a simulated one), it becomes two.
    """
    targets: list[dict[str, Any]] = []
    known: dict[tuple[int, int], tuple[int, int]] = {}  # process: its number, and until when it is recorded
    for part in parts:
        for target in part.reader.info.targets:
            number = len(targets)
            if target.pid is not None and target.start_ticks is not None:
                before, until_ns = known.get((target.pid, target.start_ticks), (number, part.start_ns))
                number = before if until_ns <= part.start_ns else number
                known[target.pid, target.start_ticks] = (number, max(part.end_ns, until_ns))
            if number == len(targets):
                targets.append(asdict(target) | {"target": number})
            part.numbers[target.target] = number
    return targets


def _number_parts(parts: Sequence[_Part]) -> list[dict[str, Any]]:
    """As `_number`, of the parts of one recording: in each a process has the same pid, what is none the same name.

    Of a process there is a target for each scheme (see `DamoRecord`), and a part need not tell its name.
    """
    targets: list[dict[str, Any]] = []
    numbers: dict[tuple[object, ...], int] = {}
    for part in parts:
        for target in part.reader.info.targets:
            words = [word for word in (target.command or "").split() if _PLACE.fullmatch(word)]
            key = (target.command,) if target.pid is None else (target.pid, *words)
            number = numbers.setdefault(key, len(targets))
            if number == len(targets):
                targets.append(asdict(target) | {"target": number})
            elif targets[number]["start_ticks"] is None:
                targets[number] = asdict(target) | {"target": number}
            part.numbers[target.target] = number
    return targets


def _in_order_of_time(parts: Sequence[_Part]) -> Iterator[Snapshot]:
    """The snapshots of all parts (sorted by their start); a part is read only once its time has come."""
    import heapq

    waiting = [part for part in reversed(parts) if part.filled]
    heads: list[tuple[int, int, Snapshot, Iterator[Snapshot]]] = []
    order = 0
    while waiting or heads:
        while waiting and (not heads or waiting[-1].start_ns <= heads[0][0]):
            snapshots = waiting.pop().snapshots()
            order += 1
            for snapshot in snapshots:
                heapq.heappush(heads, (snapshot.start_ns, order, snapshot, snapshots))
                break
        if not heads:
            continue
        _, place, snapshot, snapshots = heads[0]
        yield snapshot
        following = next(snapshots, None)
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following.start_ns, place, following, snapshots))


def _shift(first: RecordInfo, other: RecordInfo) -> int:
    """What brings times of ``other`` onto the clock of ``first``: another boot has another monotonic clock.

    Without wall time in one of them the records' clocks are taken as one.
    """
    if first.wall_offset_ns is None or other.wall_offset_ns is None:
        return 0
    drift = int(other.wall_offset_ns) - int(first.wall_offset_ns)
    return drift if abs(drift) > 60_000_000_000 else 0  # less is the wall clock being set right


def _aggregate(path: str, output: str, factor: int, *, keep_old: bool) -> None:
    from pydamon.cli.report.common import chosen, opened
    from pydamon.records.copying import copy_tables

    with opened(path) as reader:
        batches, _ = chosen(reader, Choice())
        with _writing([reader], output, reader.info, keep_old=keep_old) as writer:
            copy_tables(reader, writer)
            for snapshot in _coarser(batches, factor):
                writer.add_snapshot(snapshot)
    say_written(writer)


class _Group:
    """Consecutive snapshots of one target with the same intervals, combined many at a time."""

    def __init__(self, first: Snapshot) -> None:
        self.last = first
        self.count = 1
        self._held = [first]

    def like(self, snapshot: Snapshot) -> bool:
        """Whether that snapshot may join."""
        return (self.last.sample_us, self.last.aggr_us) == (snapshot.sample_us, snapshot.aggr_us)

    def add(self, snapshot: Snapshot) -> None:
        """Take one more."""
        from pydamon.analysis.aggregate import combine

        if len(self._held) >= _HELD:  # memory does not grow with the factor
            self._held = [combine(self._held)]
        self._held.append(snapshot)
        self.last = snapshot
        self.count += 1

    def combined(self) -> Snapshot:
        """All of them as one."""
        from pydamon.analysis.aggregate import combine

        return combine(self._held, newest=self.last)


def _coarser(batches: Iterable[RegionBatch], factor: int) -> Iterator[Snapshot]:
    """Every ``factor`` consecutive snapshots of a target as one; fewer where its intervals change or it ends."""
    groups: dict[int, _Group] = {}
    for batch in batches:
        for snapshot in batch.snapshots():
            group = groups.get(snapshot.target)
            if group is not None and group.count < factor and group.like(snapshot):
                group.add(snapshot)
                continue
            if group is not None:
                yield group.combined()
            groups[snapshot.target] = _Group(snapshot)
    for group in sorted(groups.values(), key=lambda group: group.last.end_ns):
        yield group.combined()


def _files(reader: AnyReader) -> list[str]:
    return reader.paths if hasattr(reader, "paths") else [reader.path]
