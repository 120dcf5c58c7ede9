"""What damo wants beside its record, written from what our record holds: its parameters, sizes and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any, BinaryIO

import msgspec

from pydamon.errors import RequestError
from pydamon.records.formats.damo_beside import FOOTPRINTS, MAPPINGS
from pydamon.records.joined import AnyReader
from pydamon.records.tables import MAPS, mappings_of
from pydamon.spec.forms.damo_write import damo_spec
from pydamon.spec.model import Context, Intervals, Kdamond, NrRegions, Spec, Target, from_builtins

_PAGE_BYTES = 4096  # what damo takes pages for
# At the beginning of each file: by this it is known again, and damo passes over it.
_MARK = b'[{"data_source": "pydamon", '

Write = Callable[[BinaryIO], None]


def is_ours(path: str) -> bool:
    """Whether the file is one that was written here."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


def files_beside(reader: AnyReader, warn: Callable[[str], None]) -> dict[str, Write]:
    """What can be written beside the exported record, by what is added to its name. ``warn`` gets lines for what of the
    parameters damo has no words for."""
    found: dict[str, Write] = {"kdamonds": lambda file: _put(file, iter([_kdamond(reader, warn)]))}
    tables, pids = {entry.name for entry in reader.tables()}, _pids(reader)
    if "footprint" in tables and pids:
        found[FOOTPRINTS] = lambda file: _put(file, _footprints(reader, pids))
    if MAPS in tables and pids:
        found[MAPPINGS] = lambda file: _put(file, _mappings(reader, pids))
    return found


def _put(file: BinaryIO, objects: Iterator[dict[str, Any]]) -> None:
    for number, one in enumerate(objects):
        text = msgspec.json.encode(one)
        file.write(_MARK + text[1:] if not number else b",\n" + text)
    file.write(b"]\n")


def _pids(reader: AnyReader) -> dict[int, int]:
    """The process of each target that is one."""
    return {target.target: target.pid for target in reader.info.targets if target.pid is not None}


def _kdamond(reader: AnyReader, warn: Callable[[str], None]) -> dict[str, Any]:
    """The kdamond, with the targets that there were in the end."""
    context = _context(reader)
    targets = tuple(Target(pid=target.pid) for target in reader.info.targets)
    context = msgspec.structs.replace(context, targets=targets, faithful=False, primitive="auto")
    if context.ops not in ("vaddr", "fvaddr", "paddr"):
        context = msgspec.structs.replace(context, ops="vaddr" if _pids(reader) else "paddr")
    said: list[str] = []
    try:
        found = _damo(context, said.append)
    except RequestError as error:
        said = [f"{error.where}: {error.message}; no scheme is told"]
        found = _damo(msgspec.structs.replace(context, schemes=()), lambda _line: None)
    for line in said:
        warn(line)
    return {"state": "off", "pid": None, **found}


def _damo(context: Context, warn: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = damo_spec(Spec(kdamonds=(Kdamond(contexts=(context,)),)), warn)["kdamonds"][0]
    return found


def _context(reader: AnyReader) -> Context:
    """What was asked for; where that is not told, what the snapshots show."""
    try:
        return from_builtins(reader.info.request).context
    except (RequestError, IndexError):
        pass
    most, intervals = 10, Intervals()
    for number, batch in enumerate(reader.batches(columns=())):
        most = max(most, int(batch.counts.max()))
        if not number:
            intervals = Intervals(sample_us=int(batch.sample_us[0]), aggr_us=int(batch.aggr_us[0]))
    return Context(intervals=intervals, nr_regions=NrRegions(min=10, max=max(most, 1000)))


def _footprints(reader: AnyReader, pids: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Of each time the sizes in pages. What damo has besides is not known, but for what is always 0."""
    for time_ns, rows in groupby(reader.table_rows("footprint"), key=lambda row: row["time_ns"]):
        sizes = [
            {
                "pid": pids[row["target"]],
                "footprint": {
                    "size": row["virtual_bytes"] // _PAGE_BYTES,
                    "resident": row["resident_bytes"] // _PAGE_BYTES,
                    "shared": None,
                    "trs": None,
                    "lrs": 0,
                    "drs": None,
                    "dt": 0,
                },
            }
            for row in rows
            if row["target"] in pids
        ]
        if sizes:
            yield {"time": time_ns / 10**9, "footprints": sizes}


def _mappings(reader: AnyReader, pids: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """The mappings each time they changed: of one process at a time."""
    for entry, piece in reader.pieces(MAPS):
        if entry.target is not None and entry.target in pids and entry.time_ns is not None:
            vmas = [{"start": one.start, "end": one.end, "name": one.name or "0"} for one in mappings_of(piece)]
            yield {"time": entry.time_ns / 10**9, "procvmas": [{"pid": pids[entry.target], "vmas": vmas}]}
