"""Compaction: many small files of a partition become few large ones of valid rows, each once, and roll-ups of hours.

Of each partition: new files are written, which do not count yet; then the manifest names them and what they replace;
then what is replaced is deleted. Killed anywhere, each row still counts once, and the next compaction clears away.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydamon.dataset import files
from pydamon.dataset.schema import COLUMNS, HOURS, MINUTES, REGIONS
from pydamon.errors import PydamonError, RequestError
from pydamon.fleet import inventory as inventories
from pydamon.fleet import manifest as manifests
from pydamon.fleet.engine import SPILL, Means, connected, looked_at
from pydamon.fleet.files import NEW, NewFile, made_folder
from pydamon.fleet.inventory import DAY_S, LeftOut, Partition
from pydamon.fleet.manifest import Manifest
from pydamon.fleet.measures import HOUR, LABEL_NAMES, MEASURES, hour_columns, rolled
from pydamon.fleet.pool import each
from pydamon.fleet.query import ALL

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_BYTES = 384 << 20  # a file is ended at this size, so that it stays between 128 and 512 MB
_ROWS = 100_000  # of a row group: a day of a host of 70 cgroups
_LABELS = ", ".join(LABEL_NAMES)


@dataclass
class Compacted:
    """What was done: partitions that were written anew, rows in them, files before and after, what was left out."""

    partitions: int = 0
    rows: int = 0
    files_before: int = 0
    files_after: int = 0
    deleted_dates: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, other: Compacted) -> None:
        self.partitions += other.partitions
        self.rows += other.rows
        self.files_before += other.files_before
        self.files_after += other.files_after
        self.left_out.add(other.left_out)


def compact(
    path: str, *, keep_days: int | None = None, keep_hours_days: int | None = None, jobs: int | None = None,
    means: Means | None = None,
) -> Compacted:  # fmt: skip
    """Compact a data set; delete minutes (and regions) older than ``keep_days`` days, roll-ups older than the other.

    ``means`` is what all processes may use together. Raises RequestError, also if another compaction is at it,
    MachineError, PydamonError.
    """
    root = inventories.root_of(path)
    means = means or Means()
    found = Compacted()
    kept = _Kept(keep_days, keep_hours_days)
    with _alone(root):
        stock = list(inventories.partitions(root, found.left_out))
        _clear(root, stock)
        stock = [part for part in stock if _to_do(part, kept)]
        jobs = min(jobs or len(os.sched_getaffinity(0)), max(len(stock), 1))
        # One folder for all, since a process that is ended by a signal removes nothing.
        with tempfile.TemporaryDirectory(prefix=SPILL, dir=means.spill) as spill:
            own = Means(means.memory_bytes // jobs, max(means.threads // jobs, 1), spill)
            for one in each(_partition, [(root, part, own) for part in stock], jobs):
                found.add(one)
        found.deleted_dates = _expire(root, kept)  # last: minutes that came late are in roll-ups before they go
    return found


def _to_do(part: Partition, kept: _Kept) -> bool:
    """Without a manifest that can be believed, what is stray may be all that there is."""
    return part.believed and bool(part.raw or part.stray) and not all(kept.gone(part.date))


def _clear(root: Path, stock: Sequence[Partition]) -> None:
    """Remove what a compaction that was killed had not finished: there is no other now."""
    folders = {manifests.place(root, part.date, part.number).parent for part in stock}
    folders |= {root / files.folder(table, part.date, part.number) for part in stock for table in (MINUTES, HOURS)}
    for folder in folders:
        if not folder.is_symlink() and not folder.parent.is_symlink():
            for path in folder.glob(f"{NEW}*"):
                with suppress(IsADirectoryError, FileNotFoundError):
                    path.unlink()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One compaction at a time."""
    folder = made_folder(root, manifests.FOLDER)
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError("is being compacted by another process", where=str(root)) from None
        yield
    finally:
        os.close(fd)


# -- a partition --------------------------------------------------------------------------------------------------


def _partition(root: Path, part: Partition, means: Means) -> Compacted:
    """Write it anew, if hosts have put anything there, and clear away what does not count."""
    done = Compacted()
    stray, written = list(part.stray), Manifest()
    job, admitted = _job(root, part, done.left_out)
    if job is not None:
        written, kept = _written(root, part, job, means, done)
        if kept:
            merged = [one for one in admitted if one.name in kept]
            old = part.manifest or Manifest()
            written.replaces = sorted({*old.replaces, *(one.name for one in merged)})
            for reason, count in old.left_out.items():
                written.left_out[reason] = written.left_out.get(reason, 0) + count
            manifests.write(root, part.date, part.number, written)
            stray += [*merged, *_gone(root, part, written)]
            done.partitions, done.rows = 1, written.rows
            done.files_before, done.files_after = len(kept), len(written.minutes)
    counts = {*written.minutes, *written.hours}
    for path in stray:
        if path.name not in counts:  # what was written before a kill is written again, under the same name
            path.unlink(missing_ok=True)
    return done


def _job(root: Path, part: Partition, left_out: LeftOut) -> tuple[inventories.Job | None, list[Path]]:
    """The files that are put together, and those of them that hosts have put there."""
    if not part.raw:
        return None, []
    admitted = []
    have: set[str] = set()
    for path in part.raw:
        try:
            opened = inventories.admitted(path, root)
        except RequestError as error:
            left_out.file(error.where or str(path), error.message)
            continue
        admitted.append(path)
        have |= set(opened.schema_arrow.names)
        opened.close()
    if not admitted:
        return None, []
    folder = root / files.folder(MINUTES, part.date, part.number)
    old = [folder / name for name in part.manifest.minutes] if part.manifest else []
    names = {one.name for one in COLUMNS}
    missing = frozenset() if old else frozenset(names - have)
    paths = tuple(str(one) for one in (*old, *admitted))
    return inventories.Job(MINUTES, paths, False, part.number, part.first, inventories.latest(), missing), admitted


def _written(
    root: Path, part: Partition, job: inventories.Job, means: Means, done: Compacted
) -> tuple[Manifest, set[str]]:
    """The manifest that is to name the new files, which do not count yet; and the names of what they are made of.

    Nothing, if what an earlier compaction wrote cannot be read: then nothing may take its place.
    """
    left_out = LeftOut()
    told = Manifest()
    with connected(means) as connection, looked_at(connection, job, ALL, left_out) as (source, good):
        kept = {Path(name).name for name in good.files}
        if not kept or (part.manifest is not None and not kept.issuperset(part.manifest.minutes)):
            done.left_out.add(left_out)
            return told, set()
        columns = ", ".join(one.name for one in COLUMNS)
        sql = f"SELECT {columns} FROM {source} ORDER BY host, cgroup, minute"
        told.minutes, told.rows = _files(root, part, MINUTES, connection.sql(sql), files.arrow_schema(), told)
        hour = "minute - minute % 3600"
        sums = ", ".join(f"({rolled(name)})::BIGINT AS {name}" for name in MEASURES)
        sql = f"SELECT {_LABELS}, {hour} AS {HOUR.name}, {sums} FROM {source} GROUP BY {_LABELS}, {hour} ORDER BY ALL"
        told.hours, _ = _files(root, part, HOURS, connection.sql(sql), files.arrow_schema(hour_columns()), told)
    told.left_out = dict(left_out.rows)
    done.left_out.add(left_out)
    return told, kept


def _files(
    root: Path, part: Partition, table: str, rows: Any, schema: pa.Schema, told: Manifest
) -> tuple[list[str], int]:
    """The rows as files: (names, rows)."""
    folder = made_folder(root, table, f"date={part.date}", f"bucket={part.number:02}")
    names: list[str] = []
    count = 0
    new: NewFile | None = None
    try:
        for batch in rows.to_arrow_reader(_ROWS):
            new = new or NewFile(folder, schema, manifests.PREFIX)
            new.write(batch.cast(schema))
            count += batch.num_rows
            if new.bytes_written > LARGEST_BYTES:
                names.append(_finished(new, table, told))
                new = None
        if new is not None:
            names.append(_finished(new, table, told))
            new = None
    except OSError as error:
        raise PydamonError(f"cannot write it: {error.strerror or error}", where=str(folder)) from None
    finally:
        if new is not None:
            new.discard()
    return names, count


def _finished(new: NewFile, table: str, told: Manifest) -> str:
    name = new.finish()
    sizes = told.columns.setdefault(table, {})
    for column, size in new.column_bytes().items():
        sizes[column] = sizes.get(column, 0) + size
    return name


def _gone(root: Path, part: Partition, new: Manifest) -> Iterator[Path]:
    """Files of an older compaction that the new manifest does not name."""
    for table, kept in ((MINUTES, new.minutes), (HOURS, new.hours)):
        folder = root / files.folder(table, part.date, part.number)
        for path in sorted(folder.glob(f"{manifests.PREFIX}*.parquet")):
            if path.name not in kept and manifests.is_compacted(path.name):
                yield path


# -- retention ----------------------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """For how many days minutes and roll-ups are kept; None: for ever."""

    days: int | None
    hours_days: int | None

    def gone(self, day: str) -> tuple[bool, bool]:
        """Whether minutes, and whether roll-ups of a date are too old."""
        today = datetime.now(UTC).date().isoformat()
        age = (inventories.first_of(today) - inventories.first_of(day)) // DAY_S
        return self.days is not None and age > self.days, self.hours_days is not None and age > self.hours_days


def _expire(root: Path, kept: _Kept) -> int:
    """Delete what is older; returns how many dates lost something."""
    dates = 0
    for day in sorted(inventories.dates(root)):
        minutes, hours = kept.gone(day)
        if minutes or hours:
            dates += _expire_date(root, day, minutes=minutes, hours=hours)
    return dates


def _expire_date(root: Path, day: str, *, minutes: bool, hours: bool) -> bool:
    """Whether anything was deleted. The manifest says it first, so that what is replaced does not count again."""
    any_gone = False
    for part in inventories.partitions(root, LeftOut(), inventories.Days.of(day)):
        told = part.manifest
        if minutes and told is not None and not told.expired:
            told.expired, told.minutes = True, []
            told.columns.pop(MINUTES, None)
            manifests.write(root, day, part.number, told)
        if hours and told is not None and told.hours:
            told.hours = []
            manifests.write(root, day, part.number, told)
        if minutes and hours and told is not None:
            any_gone |= _removed(root, files.folder(MINUTES, day, part.number))
            manifests.place(root, day, part.number).unlink(missing_ok=True)
        for table in ((MINUTES, REGIONS) if minutes else ()) + ((HOURS,) if hours else ()):
            any_gone |= _removed(root, files.folder(table, day, part.number))
    for table in (MINUTES, REGIONS, HOURS, manifests.FOLDER):
        folder = root / table / f"date={day}"
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return any_gone


def _removed(root: Path, name: str) -> bool:
    """Remove a partition's files, and its folder if nothing else is in it."""
    folder = root / name
    if not folder.is_dir() or folder.is_symlink() or folder.parent.is_symlink():
        return False
    for path in folder.glob("*.parquet"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"{NEW}*"):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    return True
