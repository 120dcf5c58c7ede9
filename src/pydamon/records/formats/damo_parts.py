"""The parts of a recording of damo: a folder for each so many seconds (``r.data.2026-11-27-02-14-25/r.data``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pydamon.errors import RequestError
from pydamon.plain import printable

MOST_PARTS = 256
_MOST_ENTRIES = 1 << 14
_FOLDER = re.compile(r"(?P<name>.+)\.\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d")
_BESIDE = (".kdamonds", ".mem_footprint", ".vmas", ".proc_stats", ".profile", ".trace", ".old")


def parts_of(path: str) -> list[str]:
    """The records of a recording that damo has divided, in the order of time.

    ``path``: one of the folders, a folder that holds them, or the name that the recording was to have. Empty if there
    are none; RequestError for a folder with the parts of several recordings.
    """
    if not os.path.isdir(path):
        if os.path.lexists(path):
            return []
        folder, _, name = path.rpartition("/")
        return _of_recordings({name: _folders(folder or ("/" if path[:1] == "/" else ".")).get(name, [])}, path)
    own = _record_in(path)
    if own is not None:
        return [own]
    return _of_recordings(_folders(path), path)


def _of_recordings(folders: dict[str, list[str]], path: str) -> list[str]:
    records = {name: list(filter(None, map(_record_in, sorted(found)))) for name, found in folders.items()}
    names = sorted(name for name, found in records.items() if found)
    if len(names) > 1:
        shown = ", ".join(map(printable, names[:3])) + (", …" if len(names) > 3 else "")
        raise RequestError(f"holds parts of several recordings ({shown}); name one: {path}/{names[0]}", where=path)
    parts = records[names[0]] if names else []
    if len(parts) > MOST_PARTS:
        raise RequestError(f"has {len(parts)} parts; the most is {MOST_PARTS}", where=path)
    return parts


def _folders(path: str) -> dict[str, list[str]]:
    """The folders of parts in a folder, by the name of the recording."""
    found: dict[str, list[str]] = {}
    for entry in _entries(path):
        match = _FOLDER.fullmatch(entry.name)
        if match is not None and entry.is_dir(follow_symlinks=False):
            found.setdefault(match["name"], []).append(entry.path)
    return found


def _record_in(folder: str) -> str | None:
    """The record of a folder: the one file that has another beside it, by its name and ``.kdamonds``."""
    names = {entry.name for entry in _entries(folder) if entry.is_file(follow_symlinks=False)}
    records = sorted(name for name in names if f"{name}.kdamonds" in names and not name.endswith(_BESIDE))
    if len(records) > 1:
        raise RequestError(
            f"holds {len(records)} records of damo, not one: {', '.join(map(printable, records[:3]))}; name one",
            where=folder,
        )
    return os.path.join(folder, records[0]) if records else None


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_ENTRIES:
                    raise RequestError(f"holds more than {_MOST_ENTRIES} files", where=folder)
                yield entry
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror}", where=folder) from None
