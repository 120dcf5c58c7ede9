"""``pydamon export``: a record in another tool's format."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pydamon import lean, messages
from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_record
from pydamon.cli.render.output import MODE, write_whole
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

Write = Callable[[BinaryIO], None]

# How damo calls its formats.
_OF_DAMO = ("damo", "json", "perf_", "perf-data", "record", "binary")
# As in records.formats.export, which --help does not import.
_FORMATS = ("damo", "perf-script", "parquet", "csv", "jsonl", "trace-events", "html")


class _Format(click.Choice):  # type: ignore[type-arg]  # it cannot be subscripted in older releases of click
    """One of the formats; what damo calls its own is answered by what of that is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value not in _FORMATS and value.startswith(_OF_DAMO):
            self.fail(
                f"{value!r}: of damo's formats the list of its releases 2 and 3 is written, packed by zlib (damo), and "
                "text (perf-script); binary records and the container of version 1 are only read",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


@click.command("export", cls=Verb)
@reads_record
@click.option(
    "--format",
    "kind",
    type=_Format(_FORMATS),
    required=True,
    help="damo: its record; trace-events: Perfetto; html: a page.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="The file to write (- is standard output).",
)
@MODE
def command(path: str, kind: str, output: str) -> None:
    """Write a record (or any file that pydamon import takes) in another tool's format, or as one page that zooms.

    parquet: beside OUTPUT.parquet a file for each side table, such as OUTPUT.schemes.parquet; damo: what it has beside
    its records, OUTPUT.kdamonds, OUTPUT.mem_footprint and OUTPUT.vmas.
    """
    if kind == "html":
        _page(path, output)
        return
    with lean.imports():
        from pydamon.cli.render.screen import warn
        from pydamon.records.formats.export import export as write
        from pydamon.records.joined import open_record

    with open_record(path) as reader:
        if output == "-":
            write(reader, sys.stdout.buffer, kind)
        else:
            _check_other(path, output)
            notes: list[str] = []
            beside = _side_files(reader, output) if kind == "parquet" else {}
            if kind == "damo":
                beside = _files_of_damo(reader, output, notes.append)
            write_whole(output, lambda file: write(reader, file, kind), reader)
            for path_beside, put in beside.items():
                write_whole(path_beside, put, reader)
            warn([f"{output}.kdamonds: {line}" for line in notes])
            if os.path.isfile(output):
                what = "side tables" if kind == "parquet" else "files"
                beside_it = f", and {len(beside)} {what} beside it" if beside else ""
                messages.say(f"wrote {output}, {os.stat(output).st_size:,} bytes{beside_it}")
        warn(reader.warnings())


def _page(path: str, output: str) -> None:
    """Write the page of `pydamon serve` as one file that needs no server."""
    with lean.imports():
        from pydamon.cli.render.screen import warn
        from pydamon.web.one_file import page
        from pydamon.web.recording import Recording

    with Recording(path, follow=False) as recording:
        recording.read_now()
        made = page(recording)
        if output == "-":
            sys.stdout.buffer.write(made)
        else:
            _check_other(path, output)
            write_whole(output, lambda file: file.write(made), recording.reader())
            if os.path.isfile(output):
                messages.say(f"wrote {output}, {len(made):,} bytes")
        warn(recording.reader().warnings())


def _check_other(path: str, output: str) -> None:
    """Raise RequestError if the output is the file that is read."""
    if os.path.exists(output) and os.path.exists(path) and os.path.samefile(path, output):
        raise RequestError(f"{output} is being read; choose another name", where="-o")


def _side_files(reader: AnyReader, output: str) -> dict[str, Write]:
    """A file for each side table, by its path: ``run.schemes.parquet`` beside ``run.parquet``; none beside a device.

    Raises RequestError if there is a file of that name that no export has written.
    """
    from pydamon.records.formats.export import is_exported_table, side_tables

    if os.path.exists(output) and not os.path.isfile(output):
        return {}
    stem, extension = os.path.splitext(output)
    found = {name: f"{stem}.{name}{extension}" for name in side_tables(reader)}
    for path in found.values():
        _check_ours(path, is_exported_table, "no side table of an export")
    return {path: partial(_write_table, reader, name) for name, path in found.items()}


def _files_of_damo(reader: AnyReader, output: str, warn: Callable[[str], None]) -> dict[str, Write]:
    """What damo wants beside its record, by its path: ``r.data.kdamonds`` and others; none beside a device.

    Raises RequestError if there is one that no export has written: it is of another record, and importing this one
    would take it for its own.
    """
    from pydamon.records.formats.damo_beside import FOOTPRINTS, MAPPINGS, PROCESSES
    from pydamon.records.formats.damo_export_beside import files_beside, is_ours

    if os.path.exists(output) and not os.path.isfile(output):
        return {}
    for kind in ("kdamonds", FOOTPRINTS, MAPPINGS, PROCESSES):
        _check_ours(f"{output}.{kind}", is_ours, "of another record of damo")
    found = {f"{output}.{kind}": put for kind, put in files_beside(reader, warn).items()}
    for path in (f"{output}.{kind}" for kind in (FOOTPRINTS, MAPPINGS)):
        if path not in found and os.path.lexists(path):
            os.unlink(path)  # of an export that was there before
    return found


def _check_ours(path: str, is_ours: Callable[[str], bool], what: str) -> None:
    if os.path.lexists(path) and not is_ours(path):
        raise RequestError(f"{path} exists and is {what}; choose another name", where="-o")


def _write_table(reader: AnyReader, name: str, file: BinaryIO) -> None:
    from pydamon.records.formats.export import export_table

    export_table(reader, name, file)
