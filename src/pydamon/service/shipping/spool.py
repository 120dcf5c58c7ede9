"""What waits on this machine's disk for the store: minutes in journals, then files of the data set cut of them.

    journal-000000000007.log                       minutes that come in, each made to last at once
    journal-000000000006.cut                       closed; its files are being made
    out-000000000005-minutes-DATE-07-750-HASH.parquet   to be put as it is, and then removed
    seen.json                                      minutes that were told already

A kill at any point loses and doubles nothing. A journal is closed by renaming it, before any file is made of it; until
it is removed, which is when all its files are there, none of them is sent, and those that are there are not made again.
A file is put under the hash of its content, so that putting it again changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from pydamon.dataset.files import Part, content_hash
from pydamon.errors import MachineError, RequestError
from pydamon.learned import learned
from pydamon.plain import printable
from pydamon.service.shipping import journal
from pydamon.service.shipping.minutes import Minutes

FIELD = "spool"
LEAST_BYTES = 1 << 20
MOST_JOURNAL = 16 << 20  # of one that is written to
_SEEN = "seen.json"
_JOURNAL = re.compile(r"journal-(\d{12})\.(log|cut)", re.ASCII)
_OUT = re.compile(
    r"out-(\d{12})-(minutes|regions)-(\d{4}-\d\d-\d\d)-(\d\d)-(\d{1,12})-([0-9a-f]{32})\.parquet", re.ASCII
)
_TEMPORARY = "tmp-"
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MOST_SEEN = 1 << 20

# Makes files of the records of one journal: table, date, bucket, number of rows and the bytes of each.
Pack = Callable[[Sequence[journal.Record]], "Iterable[Packed]"]


class Packed(NamedTuple):
    """A file of the data set: where it belongs, its rows, and its bytes."""

    table: str
    date: str
    bucket: int
    rows: int
    data: bytes


class Waiting(NamedTuple):
    """A file that waits to be put: its name in the spool, where it goes, how many rows and bytes it has."""

    file: str
    segment: int
    part: Part
    rows: int
    bytes: int


class Counts(msgspec.Struct):
    """What became of minutes and files, since the start."""

    minutes: int = 0  # written down
    repeated_minutes: int = 0  # not written: they had been told before (a clock that was set back)
    dropped_files: int = 0  # beyond the bound, or broken
    dropped_rows: int = 0
    dropped_journals: int = 0
    damaged_bytes: int = 0
    newer_files: int = 0  # of a later pydamon: left alone


class _Seen(msgspec.Struct):
    version: int = 1
    spans: list[tuple[int, int]] = []


class Spool:
    """The directory ``path``, of at most ``most_bytes``; it is made, and nobody else may have it meanwhile.

    Raises RequestError and MachineError. All methods may be called from any thread.
    """

    def __init__(self, path: str, most_bytes: int, say: Callable[[str], object] = lambda line: None) -> None:
        self.path = path
        self.counts = Counts()
        self._most_bytes = most_bytes
        self._say = say
        self._lock = threading.RLock()
        self._fd = _opened(path)
        self._open: tuple[int, int, int] | None = None  # number, descriptor and length of the journal written to
        try:
            self._recover()
        except OSError as error:
            os.close(self._fd)
            raise MachineError(f"{printable(path)}: {error.strerror or error}", where=FIELD) from None

    def close(self) -> None:
        """Let go of the directory."""
        with self._lock:
            if self._open is not None:
                os.close(self._open[1])
            os.close(self._fd)

    # -- minutes come in ----------------------------------------------------------------------------------------------

    def knows(self, minute: int) -> bool:
        """Whether the minute was told already."""
        return minute in self._minutes

    def add(self, minute: int, payload: bytes) -> bool:
        """Write down what is told of a minute; it lasts when this returns. False: the minute was told before.

        Raises OSError, and nothing is written then.
        """
        with self._lock:
            if minute in self._minutes:
                self.counts.repeated_minutes += 1
                return False
            record = journal.encode(minute, payload)
            if self._open is None:
                self._begin(record)
            else:
                self._append(record)
            self._minutes.add(minute)
            self.counts.minutes += 1
            return True

    @property
    def open_bytes(self) -> int:
        """Of the journal that is written to; 0: there is none."""
        return 0 if self._open is None else self._open[2]

    def _begin(self, record: bytes) -> None:
        numbers = [number for number, _ in self._journals()] + [each.segment for each in self._outs()]
        number = max(numbers, default=0) + 1
        name = f"journal-{number:012d}.log"
        data = journal.header() + record
        self._write_whole(name, data)
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | _FILE, dir_fd=self._fd)
        self._open = number, fd, len(data)

    def _append(self, record: bytes) -> None:
        assert self._open is not None
        number, fd, length = self._open
        try:
            _write(fd, record)
            os.fdatasync(fd)
        except OSError:
            try:
                os.ftruncate(fd, length)
            except OSError:  # then what is broken stays where it is, and nothing comes behind it
                os.close(fd)
                self._open = None
            raise
        self._open = number, fd, length + len(record)

    # -- files are made of them ---------------------------------------------------------------------------------------

    def cut(self, pack: Pack) -> int:
        """Close the journal, and make files of all that are closed; how many were made. Raises OSError.

        After an error it may be called again: nothing is lost or doubled.
        """
        with self._lock:
            if self._open is not None:
                os.close(self._open[1])
                self._open = None
            made = 0
            for number, name in self._journals():
                contents = journal.read(self._read(name))
                if contents.is_newer:
                    continue
                if name.endswith(".log"):
                    self._close_journal(number)
                made += self._make(number, contents.records, pack)
                self._remember()
                self._remove(f"journal-{number:012d}.cut")
            return made

    def _close_journal(self, number: int) -> None:
        name = f"journal-{number:012d}"
        os.rename(f"{name}.log", f"{name}.cut", src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def _make(self, number: int, records: Sequence[journal.Record], pack: Pack) -> int:
        there = {each.part[:3] for each in self._outs() if each.segment == number}
        made = 0
        for one in pack(records):
            if (one.table, one.date, one.bucket) in there:
                continue
            digest = content_hash(one.data)
            name = f"out-{number:012d}-{one.table}-{one.date}-{one.bucket:02d}-{one.rows}-{digest}.parquet"
            self._write_whole(name, one.data)
            made += 1
        return made

    def _remember(self) -> None:
        """Make it last which minutes were told: the journal that says so is about to go."""
        self._write_whole(_SEEN, msgspec.json.encode(_Seen(spans=self._minutes.spans())))

    # -- files go -----------------------------------------------------------------------------------------------------

    def waiting(self) -> list[Waiting]:
        """Files that are to be put, the oldest first."""
        with self._lock:
            unfinished = {number for number, _ in self._journals()}
            return sorted(each for each in self._outs() if each.segment not in unfinished)

    def content(self, waiting: Waiting) -> bytes | None:
        """The bytes of a file that is to be put; None: it was dropped meanwhile, or is broken (and is dropped then)."""
        try:
            data = self._read(waiting.file)
        except FileNotFoundError:
            return None
        if content_hash(data) == waiting.part.hash:
            return data
        self._say(f"{waiting.file} in the spool is damaged; its {waiting.rows} rows are lost")
        self._drop(waiting)
        return None

    def sent(self, waiting: Waiting) -> None:
        """It is in the store."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(waiting.file, dir_fd=self._fd)

    def bound(self) -> None:
        """Drop the oldest beyond the most bytes: files first, then closed journals; never what is written to."""
        with self._lock:
            over = self.size_bytes() - self._most_bytes
            dropped = 0
            for each in self.waiting():
                if over <= 0:
                    break
                over -= each.bytes
                dropped += each.rows
                self._drop(each)
            for _, name in self._journals():
                if over <= 0:
                    break
                if name.endswith(".cut"):
                    over -= self._size(name)
                    self.counts.dropped_journals += 1
                    self._remember()
                    self._remove(name)
            if dropped:
                self._say(f"the spool is full: the oldest {dropped} rows were dropped")

    def size_bytes(self) -> int:
        """Of all files in it."""
        with self._lock:
            return sum(self._size(name) for name in os.listdir(self._fd))

    def _drop(self, waiting: Waiting) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(waiting.file, dir_fd=self._fd)
            self.counts.dropped_files += 1
            self.counts.dropped_rows += waiting.rows

    def note(self, name: str, data: bytes) -> None:
        """Write a file for others to read, which need not last. Raises OSError."""
        with self._lock:
            self._write_whole(name, data, lasts=False)

    # -- the directory ------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Read what is there, and go on with the journal that was written to."""
        for name in os.listdir(self._fd):
            if name.startswith(_TEMPORARY):
                os.unlink(name, dir_fd=self._fd)
        self._minutes = self._seen()
        journals = self._journals()
        for number, name in journals:
            contents = journal.read(self._read(name))
            if contents.is_newer:
                self.counts.newer_files += 1
                self._say(f"{name} in the spool is of a newer pydamon and is left alone")
                continue
            for record in contents.records:
                self._minutes.add(record.minute)
            if contents.damaged:
                self.counts.damaged_bytes += contents.damaged
                self._say(f"{name} in the spool is damaged: {contents.damaged} bytes are lost, the rest is shipped")
            if name.endswith(".log"):
                self._resume(number, name, contents, is_last=number == journals[-1][0])

    def _resume(self, number: int, name: str, contents: journal.Contents, *, is_last: bool) -> None:
        if not is_last or contents.version is None or contents.damaged:
            self._close_journal(number)
            return
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | _FILE, dir_fd=self._fd)
        if contents.torn:
            os.ftruncate(fd, contents.end)
            os.fsync(fd)
        self._open = number, fd, contents.end

    def _seen(self) -> Minutes:
        try:
            data = self._read(_SEEN)
        except FileNotFoundError:
            return Minutes()
        try:
            spans = msgspec.json.decode(data[:_MOST_SEEN], type=learned(_Seen)).spans
            if all(0 <= first <= last for first, last in spans):
                return Minutes(spans)
        except msgspec.MsgspecError:
            pass
        # It was written after all of these minutes: none before that is told again.
        last = int(os.stat(_SEEN, dir_fd=self._fd, follow_symlinks=False).st_mtime) // 60 * 60
        self._say(f"{_SEEN} in the spool is damaged; minutes before it was written are not told again")
        return Minutes([(0, max(last, 0))])

    def _journals(self) -> list[tuple[int, str]]:
        """Number and name of each, in order."""
        found = [_JOURNAL.fullmatch(name) for name in os.listdir(self._fd)]
        return sorted((int(each[1]), each[0]) for each in found if each is not None)

    def _outs(self) -> Iterator[Waiting]:
        for name in os.listdir(self._fd):
            found = _OUT.fullmatch(name)
            if found is not None:
                with contextlib.suppress(FileNotFoundError):
                    size = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
                    part = Part(found[2], found[3], int(found[4]), found[6])
                    yield Waiting(name, int(found[1]), part, int(found[5]), size)

    def _size(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def _read(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | _FILE, dir_fd=self._fd)
        with open(fd, "rb") as file:
            return file.read()

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
        os.fsync(self._fd)

    def _write_whole(self, name: str, data: bytes, *, lasts: bool = True) -> None:
        """A file that is there whole and lasts, or not at all. Raises OSError."""
        beside = _TEMPORARY + name
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FILE, 0o600, dir_fd=self._fd)
        try:
            _write(fd, data)
            if lasts:
                os.fsync(fd)
            os.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            if lasts:
                os.fsync(self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _opened(path: str) -> int:
    """A descriptor of the directory, which is made and locked. It must be ours alone."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{printable(path)}: {error.strerror}", where=FIELD) from None
    found = os.fstat(fd)
    try:
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RequestError(f"{printable(path)} is not ours alone; name a directory of our own", where=FIELD)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RequestError(f"{printable(path)} is in use by another service", where=FIELD) from None
    except RequestError:
        os.close(fd)
        raise
    return fd
