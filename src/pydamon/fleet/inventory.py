"""Which files of a data set a question is about, and which are left out: found by names, footers and manifests."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydamon.dataset import files
from pydamon.dataset.schema import BUCKETS, COLUMNS, HOURS, MINUTES, bucket
from pydamon.errors import PydamonError, RequestError
from pydamon.fleet import manifest as manifests
from pydamon.fleet.manifest import Manifest
from pydamon.plain import printable

if TYPE_CHECKING:
    from pydamon.fleet.where import Where

DAY_S = 86400
CLOCKS_S = 300  # by which a host's clock may be ahead
_MOST_SAID = 5
_DATE = re.compile(r"date=(\d{4}-\d\d-\d\d)", re.ASCII)
_BUCKET = re.compile(r"bucket=(\d\d)", re.ASCII)


@dataclass(frozen=True)
class Job:
    """Files that are asked together. ``checked``: compaction wrote them, each row is valid and is there once.

    ``first``: the first second of the date; ``until``: no minute may begin later; ``missing``: what no file has.
    """

    table: str
    files: tuple[str, ...]
    checked: bool
    number: int
    first: int
    until: int
    missing: frozenset[str] = frozenset()


@dataclass
class LeftOut:
    """Rows by reason, and files with the reason: as many are named as fit a few lines."""

    rows: dict[str, int] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)
    nr_files: int = 0

    def row(self, reason: str, count: int) -> None:
        if count:
            self.rows[reason] = self.rows.get(reason, 0) + count

    def file(self, path: str, reason: str) -> None:
        self.nr_files += 1
        if len(self.files) < _MOST_SAID:
            self.files.append((path, reason))

    def add(self, other: LeftOut) -> None:
        for reason, count in other.rows.items():
            self.row(reason, count)
        self.files = (self.files + other.files)[:_MOST_SAID]
        self.nr_files += other.nr_files

    def lines(self) -> list[str]:
        """For people, a line each."""
        found = [f"left out {path}: {reason}" for path, reason in self.files]
        if self.nr_files > len(self.files):
            found.append(f"left out files beside those: {self.nr_files - len(self.files):,}")
        if self.rows:
            words = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(self.rows.items()))
            count = sum(self.rows.values())
            found.append(f"left out {count:,} row{'' if count == 1 else 's'}: {words}")
        return [printable(line) for line in found]


@dataclass
class Inventory:
    """What a question reads: jobs, bytes of the columns that it needs, and what is left out already."""

    jobs: list[Job]
    left_out: LeftOut
    bytes: int
    files: int
    from_roll_ups: int
    partitions: int


@dataclass(frozen=True)
class Partition:
    """A date and bucket of minutes: what counts of it. ``manifest`` None: never compacted, or it is not ``believed``:
    then only a reader may make do with what hosts have put there.
    """

    date: str
    number: int
    raw: tuple[Path, ...]
    manifest: Manifest | None
    stray: tuple[Path, ...]  # that count no more, or not yet: of a compaction that was killed
    believed: bool = True

    @property
    def first(self) -> int:
        return first_of(self.date)


def first_of(day: str) -> int:
    """The first second of a date, since 1970."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def latest() -> int:
    """The last second in which a minute may begin, by this machine's clock."""
    return int(time.time()) + CLOCKS_S


def root_of(path: str) -> Path:
    """The folder of a data set. Raises RequestError if there is none."""
    if "://" in path:
        text = "is an object store; questions and compaction read a directory: copy or mount what is asked"
        raise RequestError(text, where=printable(path))
    root = Path(path)
    if not (root / MINUTES).is_dir() and not (root / HOURS).is_dir():
        raise RequestError(f"is no data set of a fleet: it has no folder {MINUTES}", where=printable(path))
    if any(mark in str(root.resolve()) for mark in "*?[]{}"):
        raise RequestError("has *, ?, [ or { in its name, which DuckDB takes for patterns", where=printable(path))
    return root.resolve()


def partitions(
    root: Path, left_out: LeftOut, days: Days | None = None, numbers: set[int] | None = None
) -> Iterator[Partition]:
    """Those there are, by date and bucket, also where only roll-ups are left; bad manifests go to ``left_out``."""
    for day in sorted(dates(root)):
        if days is not None and not days.has(day):
            continue
        found: set[int] = set()
        for table in (MINUTES, manifests.FOLDER):
            found |= set(_numbers(root / table / f"date={day}"))
        for number in sorted(found if numbers is None else found & numbers):
            believed = True
            try:
                told = manifests.read(root, day, number)
            except RequestError as error:
                left_out.file(error.where or "", error.message)
                told, believed = None, False
            raw, stray = _split(root / files.folder(MINUTES, day, number), told)
            yield Partition(day, number, tuple(raw), told, tuple(stray), believed)


@dataclass(frozen=True)
class Days:
    """The dates in which seconds from ``start`` to ``end`` lie."""

    start: int | None
    end: int | None

    @classmethod
    def of(cls, day: str) -> Days:
        return cls(first_of(day), first_of(day) + DAY_S)

    def has(self, day: str) -> bool:
        first = first_of(day)
        return (self.start is None or first + DAY_S > self.start) and (self.end is None or first < self.end)


def dates(root: Path) -> set[str]:
    """The days that a data set has anything of."""
    found = set()
    for table in (MINUTES, manifests.FOLDER):
        for entry in _entries(root / table):
            match = _DATE.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False) and _is_date(match[1]):
                found.add(match[1])
    return found


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return text >= "1970-01-01"


def _numbers(folder: Path) -> Iterator[int]:
    for entry in _entries(folder):
        match = _BUCKET.fullmatch(entry.name.removesuffix(".json"))
        if match and int(match[1]) < BUCKETS and not entry.is_symlink():
            yield int(match[1])


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _split(folder: Path, told: Manifest | None) -> tuple[list[Path], list[Path]]:
    """(files that hosts have put there and that count, files that do not), sorted."""
    replaced = set(told.replaces) if told else set()
    counting = set(told.minutes) if told else set()
    raw, stray = [], []
    linked = folder.is_symlink() or folder.parent.is_symlink()  # what is stray is deleted: not elsewhere
    for entry in () if linked else _entries(folder):
        if not entry.name.endswith(".parquet") or not entry.is_file(follow_symlinks=False):
            continue
        path = folder / entry.name
        if manifests.is_compacted(entry.name):
            if entry.name not in counting:
                stray.append(path)
        elif entry.name in replaced or (told is not None and told.expired):
            stray.append(path)
        else:
            raw.append(path)
    return sorted(raw), sorted(stray)


def admitted(path: Path, root: Path) -> Any:
    """The opened Parquet file that a host has put there. Raises RequestError if it is not as it should be."""
    import pyarrow as pa

    where = str(path.relative_to(root))
    parsed = files.parse_name(where)
    if parsed is None:
        raise RequestError("has no name of a file of a data set", where=where)
    found = files.check(str(path), where)
    schema = found.schema_arrow
    for column in COLUMNS:
        at = schema.get_all_field_indices(column.name)
        if len(at) > 1 or (not at and not column.null):
            raise RequestError(f"the column {column.name} is {'there twice' if at else 'missing'}", where=where)
        if not at:
            continue
        kind, unit = schema.field(at[0]).type, (schema.field(at[0]).metadata or {}).get(b"unit")
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_int64(plain) if column.type == "int64" else _is_text(plain)):
            raise RequestError(f"the column {column.name} is {kind}; it must be {column.type}", where=where)
        if unit is not None and unit != column.unit.encode():
            said = printable(unit.decode(errors="replace"))[:20]
            raise RequestError(f"the column {column.name} is in {said}; it must be in {column.unit}", where=where)
    return found


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def inventory(root: Path, where: Where, columns: dict[str, frozenset[str]], *, roll_ups: bool) -> Inventory:
    """What answers a question that needs these ``columns`` of each table; from roll-ups where they are complete.

    Raises PydamonError if there is nothing.
    """
    left_out = LeftOut()
    found = Inventory([], left_out, 0, 0, 0, 0)
    until = latest()
    numbers = None if where.host is None else {bucket(where.host)}
    grouped: dict[str, list[str]] = {}
    for part in partitions(root, left_out, Days(where.start, where.end), numbers):
        told = part.manifest
        if told is not None:
            for reason, count in told.left_out.items():
                left_out.row(reason, count)
        if told is None or part.raw:
            _take_raw(found, root, part, until)
        elif roll_ups and told.hours:
            _take(found, root, part, HOURS, told.hours, columns[HOURS], grouped)
            found.from_roll_ups += 1
        elif not told.expired:  # also where minutes are kept for longer than roll-ups
            _take(found, root, part, MINUTES, told.minutes, columns[MINUTES], grouped)
        else:
            if told.hours:
                left_out.file(files.folder(MINUTES, part.date, part.number), "minutes are not kept; roll-ups are")
            continue
        found.partitions += 1
    for table, paths in grouped.items():
        found.jobs.insert(0, Job(table, tuple(paths), True, 0, 0, until))
    if not found.jobs:
        for line in left_out.lines():
            raise PydamonError(f"nothing can be asked; {line}", where=str(root))
        raise RequestError("has no rows of that time", where=str(root))
    return found


def _take(
    found: Inventory, root: Path, part: Partition, table: str, names: list[str], columns: frozenset[str],
    grouped: dict[str, list[str]],
) -> None:  # fmt: skip
    """Files that compaction has written."""
    folder = root / files.folder(table, part.date, part.number)
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            found.left_out.file(str(path.relative_to(root)), "is named by the manifest, and is not there")
            continue
        grouped.setdefault(table, []).append(str(path))
        found.files += 1
    sizes = part.manifest.columns.get(table, {}) if part.manifest else {}
    found.bytes += sum(size for name, size in sizes.items() if name in columns)


def _take_raw(found: Inventory, root: Path, part: Partition, until: int) -> None:
    """Files that hosts have put there, with those that compaction wrote of the same partition: all are checked."""
    paths, have = [], set()
    told = part.manifest
    if told is not None:
        folder = root / files.folder(MINUTES, part.date, part.number)
        paths += [folder / name for name in told.minutes if (folder / name).is_file()]
        have = {one.name for one in COLUMNS} if paths else set()
        found.bytes += sum(told.columns.get(MINUTES, {}).values())
    for path in part.raw:
        try:
            opened = admitted(path, root)
        except RequestError as error:
            found.left_out.file(error.where or str(path), error.message)
            continue
        paths.append(path)
        have |= set(opened.schema_arrow.names)
        opened.close()
        found.bytes += path.stat().st_size
    if paths:
        missing = frozenset(one.name for one in COLUMNS) - have
        found.jobs.append(Job(MINUTES, tuple(map(str, paths)), False, part.number, part.first, until, missing))
        found.files += len(paths)
