"""``pydamon export``: a record in another tool's format."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import click

from pydamon import lean, messages
from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_record
from pydamon.cli.render.output import MODE, write_whole
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

# As in records.formats.export, which --help does not import.
_FORMATS = ("damo", "perf-script", "parquet", "csv", "jsonl", "trace-events", "html")


@click.command("export", cls=Verb)
@reads_record
@click.option(
    "--format",
    "kind",
    type=click.Choice(_FORMATS),
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

    parquet: beside OUTPUT.parquet a file for each side table, such as OUTPUT.schemes.parquet.
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
            beside = _side_files(reader, output) if kind == "parquet" else {}
            write_whole(output, lambda file: write(reader, file, kind), reader)
            for name, path_beside in beside.items():
                write_whole(path_beside, partial(_write_table, reader, name), reader)
            if os.path.isfile(output):
                beside_it = f", and {len(beside)} side tables beside it" if beside else ""
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


def _side_files(reader: AnyReader, output: str) -> dict[str, str]:
    """A file for each side table, by its name: ``run.schemes.parquet`` beside ``run.parquet``; none beside a device.

    Raises RequestError if there is a file of that name that no export has written.
    """
    from pydamon.records.formats.export import is_exported_table, side_tables

    if os.path.exists(output) and not os.path.isfile(output):
        return {}
    stem, extension = os.path.splitext(output)
    found = {name: f"{stem}.{name}{extension}" for name in side_tables(reader)}
    for path in found.values():
        if os.path.lexists(path) and not is_exported_table(path):
            raise RequestError(f"{path} exists and is no side table of an export; choose another name", where="-o")
    return found


def _write_table(reader: AnyReader, name: str, file: BinaryIO) -> None:
    from pydamon.records.formats.export import export_table

    export_table(reader, name, file)
