"""``pydamon export``: a record in another tool's format."""

from __future__ import annotations

import os
import sys

import click

from pydamon import lean
from pydamon.errors import RequestError

# As in records.formats.export, which --help does not import.
_FORMATS = ("damo", "perf-script", "parquet", "csv", "jsonl", "trace-events")


@click.command("export")
@click.argument("path", metavar="FILE")
@click.option(
    "--format", "kind", type=click.Choice(_FORMATS), required=True, help="damo: its record; trace-events: Perfetto."
)
@click.option("-o", "--output", metavar="FILE", required=True, help="The file to write (- is standard output).")
def command(path: str, kind: str, output: str) -> None:
    """Write a record (or any file that pydamon import takes) in another tool's format."""
    with lean.imports():
        from pydamon.cli.render.output import write_whole
        from pydamon.cli.render.screen import warn
        from pydamon.records.formats.export import export as write
        from pydamon.records.joined import open_record

    with open_record(path) as reader:
        if output == "-":
            write(reader, sys.stdout.buffer, kind)
        else:
            if os.path.exists(output) and os.path.exists(path) and os.path.samefile(path, output):
                raise RequestError(f"{output} is being read; choose another name", where="-o")
            write_whole(output, lambda file: write(reader, file, kind))
        warn(reader.warnings())
