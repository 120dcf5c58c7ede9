"""The format of a record: an Arrow IPC stream of region rows, and what its schema metadata says.

One row is one region of one snapshot. Everything else travels in the same stream without disturbing a reader that
knows nothing of us: the description of the recording as JSON under the schema metadata key ``pydamon``, side tables
(see ``tables``) in the metadata of empty batches.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from pydamon.core import columns
from pydamon.errors import RequestError
from pydamon.learned import learned
from pydamon.linux.swap import swap_bytes
from pydamon.plain import json_bytes
from pydamon.version import __version__

# What is written. Version 1 had no optional columns, no checksums, and side tables of whatever types their values had.
FORMAT_VERSION = 2
READABLE = (1, 2)
METADATA_KEY = b"pydamon"
# Where a message has its checksum: the CRC-32 of all its bytes, with noughts in place of its eight hexadecimal digits.
# In the schema it is that of the description alone: other programs copy that, and write the message anew.
SUM_KEY = "pydamon.crc32"
NO_SUM = "00000000"
DEFAULT_NAME = "pydamon.damon"
IMPORTED = "imported"  # beside what was asked for: what an import says of itself
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

# A batch holds whole snapshots; it is closed once it has this many rows.
BATCH_ROWS = 1 << 16
# What a reader takes in one piece: bounds its memory whatever a file claims.
MAX_BATCH_ROWS = 1 << 20
MAX_METADATA_BYTES = 1 << 24

HEADS = tuple(column.name for column in columns.PER_SNAPSHOT)
REGION_FIELDS: tuple[tuple[str, pa.DataType], ...] = tuple(
    (column.name, pa.from_numpy_dtype(column.dtype)) for column in (*columns.PER_SNAPSHOT, *columns.required())
)
COLUMNS = tuple(name for name, _ in REGION_FIELDS)
# What of a region is always decoded; its age, and what is optional, only where it is wanted.
ALWAYS = ("start", "end", "nr_accesses")


def optional_names() -> tuple[str, ...]:
    """The optional columns that this version knows."""
    return tuple(column.name for column in columns.optional())


def measured_names() -> tuple[str, ...]:
    """The optional columns of what pydamon itself records."""
    return tuple(column.name for column in columns.optional() if column.kept == "recorded")


def region_fields(optional: Iterable[str]) -> list[pa.Field]:
    """The columns of the region rows, with these optional ones. Raises KeyError for one that there is not."""
    known = {column.name: pa.from_numpy_dtype(column.dtype) for column in columns.optional()}
    fields = [pa.field(name, kind, nullable=False) for name, kind in REGION_FIELDS]
    wanted = {name: known[name] for name in optional}
    return fields + [pa.field(name, wanted[name]) for name in known if name in wanted]


def region_schema(metadata: bytes, optional: Iterable[str] = ()) -> pa.Schema:
    """The schema of the region rows, with this JSON as its description, and the checksum of that."""
    return pa.schema(region_fields(optional), metadata={METADATA_KEY: metadata, SUM_KEY: _sum(metadata)})


def is_sound(schema: pa.Schema) -> bool:
    """Whether the checksum of the description, where it has one, is right."""
    told = schema.metadata.get(SUM_KEY.encode())
    return told is None or told == _sum(schema.metadata[METADATA_KEY])


def _sum(metadata: bytes) -> bytes:
    return b"%08x" % zlib.crc32(metadata)


def optional_in(schema: pa.Schema, version: int) -> tuple[str, ...]:
    """The optional columns of a record of that version."""
    return () if version < 2 else tuple(name for name in optional_names() if name in schema.names)


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What a record says about one target; None where it says nothing."""

    target: int
    pid: int | None = None
    command: str | None = None
    start_ticks: int | None = None


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """The description of a recording: the schema metadata, checked."""

    version: int
    pydamon: str
    clock: str  # "monotonic" or "virtual"
    wall_offset_ns: int | None  # added to a time it gives nanoseconds since the epoch
    ops: str | None
    primitive: str | None
    primitive_reason: str | None
    targets: tuple[TargetInfo, ...]
    spec: Mapping[str, Any] = field(repr=False)
    machine: Mapping[str, Any] = field(repr=False)
    _by_number: dict[int, TargetInfo] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for, as `pydamon.spec.from_builtins` takes it."""
        return {name: value for name, value in self.spec.items() if name != IMPORTED}

    def target(self, number: int) -> TargetInfo:
        """What is known about that target; an empty description if nothing is."""
        return self._by_number.get(number) or TargetInfo(number)

    def __post_init__(self) -> None:
        # The first of a number counts; a record of many short processes has thousands of targets.
        self._by_number.update({target.target: target for target in reversed(self.targets)})


def describe(info: RecordInfo) -> dict[str, Any]:
    """The description as `encode_metadata` and `RecordWriter` take it, for a record that is written now."""
    return {
        "version": FORMAT_VERSION,
        "pydamon": info.pydamon,
        "clock": info.clock,
        "wall_offset_ns": info.wall_offset_ns,
        "ops": info.ops,
        "primitive": info.primitive,
        "primitive_reason": info.primitive_reason,
        "targets": [asdict(target) for target in info.targets],
        "spec": dict(info.spec),
        "machine": dict(info.machine),
    }


def machine_info() -> dict[str, Any]:
    """This machine as a record describes it: kernel release, architecture, CPUs; swap, memory, page in bytes."""
    uname = os.uname()
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "kernel": uname.release,
        "arch": uname.machine,
        "cpus": os.cpu_count(),
        "swap_bytes": swap_bytes(),
        "memory_bytes": page * os.sysconf("SC_PHYS_PAGES"),
        "page_bytes": page,
    }


def build_metadata(
    *,
    targets: Iterable[Mapping[str, Any]],
    spec: Mapping[str, Any] | None = None,
    ops: str | None = None,
    primitive: str | None = None,
    primitive_reason: str | None = None,
    clock: str = "monotonic",
    wall_offset_ns: int | None = None,
) -> dict[str, Any]:
    """The description that `RecordWriter` stores.

    ``targets``: objects with ``target`` and, where there are any, ``pid``, ``command``, ``start_ticks``. ``spec``: the
    request as plain JSON values. ``clock``: ``monotonic`` or ``virtual``.
    """
    return {
        "version": FORMAT_VERSION,
        "pydamon": __version__,
        "clock": clock,
        "wall_offset_ns": wall_offset_ns,
        "ops": ops,
        "primitive": primitive,
        "primitive_reason": primitive_reason,
        "targets": [dict(target) for target in targets],
        "spec": dict(spec or {}),
        "machine": machine_info(),
    }


class _Target(msgspec.Struct):
    target: int
    pid: int | None = None
    command: str | None = None
    start_ticks: int | None = None


class _Metadata(msgspec.Struct):
    version: int
    pydamon: str = ""
    clock: str = "monotonic"
    wall_offset_ns: int | None = None
    ops: str | None = None
    primitive: str | None = None
    primitive_reason: str | None = None
    targets: list[_Target] = []
    spec: dict[str, Any] = {}
    machine: dict[str, Any] = {}


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The JSON of a description; ValueError or TypeError if it is not one that `decode_metadata` reads."""
    text = json_bytes(metadata)
    msgspec.json.decode(text, type=learned(_Metadata))
    return text


def decode_metadata(text: bytes, path: str) -> RecordInfo:
    """The checked description in a record; RequestError if it is damaged or of a version we cannot read."""
    try:
        found = msgspec.json.decode(text, type=learned(_Metadata))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"its description is damaged ({_one_line(error)})", where=path) from None
    if found.version not in READABLE:
        raise RequestError(
            f"is a record of format version {found.version}; this pydamon reads up to version {FORMAT_VERSION}",
            where=path,
        )
    targets = tuple(TargetInfo(t.target, t.pid, t.command, t.start_ticks) for t in found.targets)
    return RecordInfo(
        found.version,
        found.pydamon,
        found.clock,
        found.wall_offset_ns,
        found.ops,
        found.primitive,
        found.primitive_reason,
        targets,
        found.spec,
        found.machine,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
