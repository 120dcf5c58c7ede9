"""``pydamon report files``: what all targets together use of each file that they map."""

from __future__ import annotations

from typing import Any

from pydamon.analysis.files import FileUse, uses
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, count, opened
from pydamon.cli.report.distribution import latest
from pydamon.linux.mapping_names import SHARED_ANONYMOUS, mapping_name
from pydamon.linux.process import Mapping
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_size

_MOST_SHOWN = 20
_HEADINGS = ["file", "users", "mapped", "hot", "warm", "cold", "unknown", "each summed", "private"]


def report(path: str, choice: Choice, as_json: bool, every: bool) -> None:
    """Print it, of the last snapshot of each target in the window."""
    screen = current_screen()
    with opened(path) as reader:
        chosen(reader, choice)  # says so if there is nothing in the window
        found = uses(_looked_at(reader, choice))
        if as_json:
            emit(json_text({"files": [_object(use) for use in found]}) + "\n")
        elif not found:
            emit(screen.fit("no mapped file is known: the record has no mappings, or none of files") + "\n")
        else:
            emit("\n".join(_text(found, screen, len(found) if every else _MOST_SHOWN)) + "\n")


def _looked_at(reader: RecordReader, choice: Choice) -> list[tuple[int, Any, list[Mapping]]]:
    snapshots = [batch.snapshot(0) for batch in latest(reader, choice)]
    return [(one.target, one, reader.mappings_at(one.target, one.end_ns)) for one in snapshots]


def _object(use: FileUse) -> dict[str, Any]:
    return {
        "name": printable(use.name),
        "inode": use.inode,
        "targets": sorted(use.users),
        "mapped_bytes": use.mapped,
        "hot_bytes": use.hot,
        "warm_bytes": use.warm,
        "cold_bytes": use.cold,
        "unknown_bytes": use.unknown,
        "summed_bytes": use.summed,
        "private_bytes": use.private,
    }


def _text(found: list[FileUse], screen: Screen, most: int) -> list[str]:
    users = len(set().union(*(use.users for use in found)))
    lines = [
        screen.fit(
            f"files of {count(users, 'target')}: what is shared counts once; hot: accessed by any, cold: by none"
        )
    ]
    cells = []
    for use in found[:most]:
        sizes = (use.mapped, use.hot, use.warm, use.cold, use.unknown, use.summed, use.private)
        cells.append([_name(use), str(len(use.users)), *map(format_size, sizes)])
    lines += table(_HEADINGS, cells, screen)
    more = len(found) - most
    return [*lines, screen.fit(f"and {count(more, 'file')} more; --all shows each")] if more > 0 else lines


def _name(use: FileUse) -> str:
    """Shared memory without a name is told apart by its inode."""
    name = mapping_name(Mapping(0, 1, "", 0, use.inode, use.name))
    return f"{name} {use.inode}" if name == SHARED_ANONYMOUS else printable(name)
