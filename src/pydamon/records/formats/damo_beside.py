"""What damo has put beside a record: its parameters (``FILE.kdamonds``), and processes, their sizes and mappings."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from pydamon.errors import RequestError
from pydamon.learned import learned
from pydamon.linux.process import Mapping as MappingLine
from pydamon.plain import printable
from pydamon.records.formats.json_pieces import Item, Tail, pieces
from pydamon.records.writer import RecordWriter
from pydamon.spec.forms.damo_layout import DamoReader
from pydamon.spec.forms.scheme_files import values
from pydamon.spec.model import Spec, from_builtins, read, to_builtins
from pydamon.spec.probes import Probe, validate_probes
from pydamon.spec.schemes import MAX_SCHEMES

_MOST_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 20
_PAGE_BYTES = 4096  # damo writes pages, and reads them as of this size
_U63 = (1 << 63) - 1
_MOST_MAPPINGS = 1 << 16  # of a process: what the kernel allows, unless it is told otherwise
_MOST_LOOKS = 64  # at processes, until each is known
_ROWS = 1 << 12
_HOUR_NS = 3600 * 10**9
_HUNDRED_YEARS_S = 100 * 366 * 86400

FOOTPRINTS, MAPPINGS, PROCESSES = "mem_footprint", "vmas", "proc_stats"
# What has no place in a record, and where to go with it.
_NOT_READ = {
    "profile": "perf's samples of functions, on another clock: perf report -i",
    "trace": "a recording by perf or trace-cmd, which pydamon import takes by itself:",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A process that a target stands for; None for what is not told."""

    pid: int
    name: str | None
    start_ticks: int | None


class _Size(msgspec.Struct):
    size: int
    resident: int


class _SizeOf(msgspec.Struct):
    pid: int | None
    footprint: Any


class _Sizes(msgspec.Struct):
    time: float
    footprints: list[_SizeOf]


class _Vma(msgspec.Struct, gc=False):
    start: int
    end: int
    name: str


class _VmasOf(msgspec.Struct):
    pid: int | None
    vmas: list[_Vma]


class _Vmas(msgspec.Struct):
    time: float
    procvmas: list[_VmasOf]


class _Stat(msgspec.Struct):
    fields: list[str] | None


class _Stats(msgspec.Struct):
    proc_stats: list[_Stat]


def open_beside(path: str, kind: str) -> int | None:
    """A descriptor of ``PATH.KIND``; None where there is no such file."""
    try:
        fd = os.open(f"{path}.{kind}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def text_beside(path: str) -> bytes | None:
    """What damo has put beside its record ``path``, in ``PATH.kdamonds``; None where there is no such file.

    At most a byte more than such a file may have, so that a larger one is seen to be one.
    """
    if (fd := open_beside(path, "kdamonds")) is None:
        return None
    try:
        return os.read(fd, _MOST_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(fd)


class Beside:
    """The files beside the record ``path`` (none beside a pipe); ``problems`` are lines about what cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[str] = []
        self._probes: dict[tuple[int, int], tuple[Probe, ...]] = {}

    @cached_property
    def kdamonds(self) -> Any:
        """The list of kdamonds, as plain values; None where it is not told. May be set by a record that tells it."""
        text = None if self.path == "-" else text_beside(self.path)
        if text is None:
            return None
        try:
            if len(text) > _MOST_BYTES:
                raise RequestError(f"is larger than {_MOST_BYTES >> 20} MiB")
            found = values(text)
        except RequestError as error:
            self._complain("kdamonds", error.message)
            return None
        if isinstance(found, dict):
            found = found.get("kdamonds")
        if not isinstance(found, list):
            self._complain("kdamonds", "is no list of kdamonds")
            return None
        return found

    @cached_property
    def spec(self) -> dict[str, Any] | None:
        """What was asked for, as plain values in our layout; None where that is not told, or not all understood."""
        if self.kdamonds is None:
            return None
        try:
            layout = DamoReader(lambda _line: None).spec({"kdamonds": self.kdamonds})
            found = from_builtins(layout)
        except RequestError as error:
            self._complain("kdamonds", f"{error}; what was asked for is not known")
            return None
        # The kernel's DAMON has done it.
        return to_builtins(found.with_context(msgspec.structs.replace(found.context, faithful=True)))

    def probes(self, kdamond: int, context: int) -> tuple[Probe, ...]:
        """The probes of a context by its numbers; none where they are not told, or in a way that is not understood."""
        place = kdamond, context
        if place not in self._probes:
            self._probes[place] = self._read_probes(kdamond, context)
        return self._probes[place]

    def _read_probes(self, kdamond: int, context: int) -> tuple[Probe, ...]:
        try:
            told = self.kdamonds[kdamond]["contexts"][context]["probes"]
            # Only them: what else the context says need not be known here.
            layout = DamoReader(lambda _line: None).spec({"kdamonds": [{"contexts": [{"probes": told}]}]})
            probes = read(layout, Spec).kdamonds[0].contexts[0].probes
            validate_probes(probes, ops="vaddr", window=1)  # the file may have been written by anybody
        except (RequestError, TypeError, LookupError):
            return ()
        return probes

    def ops(self) -> str | None:
        """The operations set of the first context; None where it is not told."""
        try:
            told = self.kdamonds[0]["contexts"][0]["ops"]
        except (TypeError, LookupError):
            return None
        return told if told in ("vaddr", "fvaddr", "paddr") else None

    def scheme(self, kdamond: int, context: int, scheme: int) -> tuple[int, str] | None:
        """(the number of a scheme among all that were asked for, its action); None for one that was not."""
        number = 0
        try:
            for k, one in enumerate(self.kdamonds):
                for c, each in enumerate(one["contexts"]):
                    schemes = each["schemes"]
                    if (k, c) == (kdamond, context):
                        action = schemes[scheme]["action"] if scheme >= 0 else None
                        return (number + scheme, action) if isinstance(action, str) and number < MAX_SCHEMES else None
                    number += len(schemes)
        except (TypeError, LookupError):
            pass
        return None

    def process(self, kdamond: int, context: int, target_id: object) -> Process | None:
        """The process that a target is: by its number in the context; without one, if the context has a single target.

        None for physical memory, for the ids of older kernels, and where it is not told.
        """
        try:
            targets = self.kdamonds[kdamond]["contexts"][context]["targets"]
            place = 0 if target_id in (None, "None") and len(targets) == 1 else int(str(target_id))
            pid = targets[place]["pid"] if place >= 0 else None
        except (TypeError, LookupError, ValueError):
            return None
        if not isinstance(pid, int) or not 0 < pid <= _U63:
            return None
        return self._processes.get(pid) or Process(pid, None, None)

    @cached_property
    def _processes(self) -> dict[int, Process]:
        """The processes of which there is a line of ``/proc/PID/stat``: damo has cut it at its blanks."""
        found: dict[int, Process] = {}
        looks = self._items(PROCESSES, _Stats)
        for _, look in zip(range(_MOST_LOOKS), looks, strict=False):
            for told in look.proc_stats:
                if (one := _process(" ".join(told.fields or ()))) is not None:
                    found.setdefault(one.pid, one)
        looks.close()
        return found

    def write(self, writer: RecordWriter, targets: Mapping[int, Sequence[int]], first_ns: int) -> list[str]:
        """Sizes and mappings of processes go into the side tables ``footprint`` and ``maps``.

        ``targets``: the numbers of the targets that are a process, by its pid. ``first_ns``: when the first snapshot
        began; files on another clock (traces have the kernel's, these files the wall's) are taken to begin then.
        Returns lines to tell.
        """
        if self.path == "-":
            return []
        told, shifted = [], []
        for kind, put in ((FOOTPRINTS, self._put_footprints), (MAPPINGS, self._put_mappings)):
            if (fd := open_beside(self.path, kind)) is None:
                continue
            os.close(fd)
            if not targets:
                told.append(f"{self._name(kind)} left out: which process is which target is not told")
                continue
            put(writer, targets, clock := _Clock(first_ns))
            if clock.shifted:
                shifted.append(self._name(kind))
        if shifted:
            how = "on another clock; taken to begin with the first snapshot, which may be up to a second off"
            told.append(f"{' and '.join(shifted)}: {how}")
        return told

    def _put_footprints(self, writer: RecordWriter, targets: Mapping[int, Sequence[int]], clock: _Clock) -> None:
        rows: list[dict[str, Any]] = []
        strange = 0
        for look in self._items(FOOTPRINTS, _Sizes):
            if (time_ns := clock.time_ns(look.time)) is None:
                strange += 1
                continue
            for one in look.footprints:
                numbers = targets.get(one.pid or 0, ())
                size = _size(one.footprint) if numbers else None
                if numbers and size is None:
                    strange += 1
                if size is not None and size.size:  # a process that has ended has none
                    sizes = {"virtual_bytes": size.size * _PAGE_BYTES, "resident_bytes": size.resident * _PAGE_BYTES}
                    rows += [{"time_ns": time_ns, "target": number, **sizes} for number in numbers]
            if len(rows) >= _ROWS:
                writer.add_rows("footprint", rows)
                writer.flush()
                rows = []
        writer.add_rows("footprint", rows)
        self._left_out(FOOTPRINTS, strange)

    def _put_mappings(self, writer: RecordWriter, targets: Mapping[int, Sequence[int]], clock: _Clock) -> None:
        before: dict[int, list[_Vma]] = {}
        count = strange = 0
        for look in self._items(MAPPINGS, _Vmas):
            if (time_ns := clock.time_ns(look.time)) is None:
                strange += 1
                continue
            for one in look.procvmas:
                numbers = targets.get(one.pid or 0, ())
                if not numbers or not one.vmas or before.get(one.pid or 0) == one.vmas:
                    continue
                before[one.pid or 0] = one.vmas
                mappings = _mappings(one.vmas)
                strange += mappings is None
                for number in numbers if mappings is not None else ():
                    writer.add_mappings(time_ns, number, mappings or ())
                    count += len(one.vmas)
            if count >= _ROWS:
                writer.flush()
                count = 0
        self._left_out(MAPPINGS, strange)

    def not_read(self) -> list[str]:
        """A line for each other file of damo's beside the record: why nothing of it is in the record."""
        found = []
        for kind, why in _NOT_READ.items():
            if self.path != "-" and (fd := open_beside(self.path, kind)) is not None:
                os.close(fd)
                found.append(f"{self._name(kind)} is not read ({why} {self._name(kind)})")
        return found

    def _items(self, kind: str, of: type[Any]) -> Any:
        """The objects of a file's list one by one, decoded; what is damaged is left out and told."""
        return self._decoded(kind, msgspec.json.Decoder(learned(of)))

    def _decoded(self, kind: str, decoder: msgspec.json.Decoder[Any]) -> Iterator[Any]:
        fd = None if self.path == "-" else open_beside(self.path, kind)
        if fd is None:
            return
        damaged, count, complete, begun = 0, 0, True, False
        try:
            for piece in pieces(_as_snapshots(fd), self._name(kind)):
                if isinstance(piece, Item):
                    count += 1
                    try:
                        found = decoder.decode(piece.text)
                    except (msgspec.MsgspecError, ValueError, RecursionError):
                        damaged += 1
                        continue
                    yield found
                elif isinstance(piece, Tail):
                    complete = piece.complete and begun
                else:
                    begun = True
            damaged += complete and not count and os.pread(fd, 64, 0).strip() != b"[]"
        except RequestError as error:
            self._complain(kind, error.message)
        finally:
            os.close(fd)
        self._left_out(kind, damaged)
        if not complete:
            self._complain(kind, "ends early, or is damaged; this is what came before")

    def _left_out(self, kind: str, amount: int) -> None:
        if amount:
            self._complain(kind, f"{amount} part{'' if amount == 1 else 's'} that cannot be understood left out")

    def _complain(self, kind: str, what: str) -> None:
        line = f"{self._name(kind)}: {what}"
        if line not in self.problems:
            self.problems.append(line)

    def _name(self, kind: str) -> str:
        return f"{printable(self.path.rpartition('/')[2])}.{kind}"


class _Clock:
    """Times of damo's files, seconds of the wall clock, on the clock of the snapshots."""

    def __init__(self, first_ns: int) -> None:
        self._first_ns = first_ns
        self._shift_ns: int | None = None
        self.shifted = False

    def time_ns(self, time_s: float) -> int | None:
        """None for what is no time."""
        if not math.isfinite(time_s) or not 0 <= time_s < _HUNDRED_YEARS_S:
            return None
        time_ns = round(time_s * 10**9)
        if self._shift_ns is None:
            self._shift_ns = self._first_ns - time_ns
            if abs(self._shift_ns) < _HOUR_NS:
                self._shift_ns = 0
            self.shifted = self._shift_ns != 0
        return max(time_ns + self._shift_ns, 0)


def _as_snapshots(fd: int) -> Iterator[bytes]:
    """The file's list as that of an object's ``snapshots``, which is how lists are cut into their objects."""
    yield b'{"snapshots":'
    offset = 0
    while data := os.pread(fd, _CHUNK_BYTES, offset):
        yield data
        offset += len(data)
    yield b"}"


def _process(line: str) -> Process | None:
    """What ``/proc/PID/stat`` says of a process; None for a line of another form."""
    pid, _, rest = line.partition(" (")
    name, found, fields = rest.rpartition(") ")
    if not found or not pid.isascii() or not pid.isdigit() or len(pid) > 10:
        return None
    behind = fields.split()
    start = behind[19] if len(behind) > 19 else ""
    ticks = int(start) if start.isascii() and start.isdigit() and len(start) <= 18 else None
    return Process(int(pid), name[:64], ticks)


def _size(told: object) -> _Size | None:
    try:
        found = msgspec.convert(told, learned(_Size))
    except (msgspec.ValidationError, ValueError):
        return None
    return found if 0 <= found.resident <= found.size <= _U63 // _PAGE_BYTES else None


def _mappings(told: Sequence[_Vma]) -> list[MappingLine] | None:
    """Without permissions, offsets and inodes, which damo does not write; None if they cannot be."""
    if len(told) > _MOST_MAPPINGS or not all(0 <= one.start < one.end <= 2 * _U63 for one in told):
        return None
    # Of an anonymous one damo takes the inode for the name.
    names = ("" if one.name.isdigit() else one.name for one in told)
    return [
        MappingLine(start=one.start, end=one.end, perms="", offset=0, inode=0, name=name[:4096])
        for one, name in zip(told, names, strict=True)
    ]
