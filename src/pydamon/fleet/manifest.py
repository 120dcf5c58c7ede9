"""What compaction says of a partition: which files are its rows now, and which they take the place of.

    ROOT/compacted/date=2026-11-27/bucket=07.json

A file that compaction writes (``c-HASH.parquet``) counts only where a manifest names it, and a file that a manifest
says is replaced counts no more, whether it is still there or comes again. So the manifest is the switch: whenever a
compaction is killed, each row counts once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from pydamon.errors import RequestError
from pydamon.fleet.files import made_folder, write_text
from pydamon.learned import learned

FOLDER = "compacted"
PREFIX = "c-"
_NAME = re.compile(r"c-[0-9a-f]{32}\.parquet", re.ASCII)
_MOST_BYTES = 64 << 20
VERSION = 1


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """``minutes`` and ``hours``: names of files; ``columns``: bytes of each column of those, by table.

    ``left_out``: rows that were left out for good, by reason. ``expired``: minutes are gone, by retention.
    """

    version: int = VERSION
    minutes: list[str] = []
    hours: list[str] = []
    replaces: list[str] = []
    rows: int = 0
    left_out: dict[str, int] = {}
    columns: dict[str, dict[str, int]] = {}
    expired: bool = False


def is_compacted(name: str) -> bool:
    """Whether it is the name of a file that compaction writes."""
    return _NAME.fullmatch(name) is not None


def place(root: Path, date: str, number: int) -> Path:
    """Where the manifest of a partition lies."""
    return root / FOLDER / f"date={date}" / f"bucket={number:02}.json"


def read(root: Path, date: str, number: int) -> Manifest | None:
    """None if the partition was never compacted. Raises RequestError for a manifest that cannot be believed."""
    path = place(root, date, number)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror}", where=str(path)) from None
    with os.fdopen(fd, "rb") as file:
        try:
            data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise RequestError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > _MOST_BYTES:
        raise RequestError(f"is larger than {_MOST_BYTES} bytes", where=str(path))
    try:
        found = msgspec.json.decode(data, type=learned(Manifest))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("is no manifest of a compaction", where=str(path)) from None
    if found.version > VERSION:
        raise RequestError(f"is of version {found.version}; this pydamon reads up to {VERSION}", where=str(path))
    if not all(is_compacted(name) for name in (*found.minutes, *found.hours)):
        raise RequestError("names files that compaction does not write", where=str(path))
    return found


def write(root: Path, date: str, number: int, manifest: Manifest) -> None:
    """Put it in its place: from now on it holds."""
    made_folder(root, FOLDER, f"date={date}")
    write_text(place(root, date, number), msgspec.json.encode(manifest).decode())
