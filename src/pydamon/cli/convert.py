"""``pydamon import``: a record from another tool's file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pydamon import lean
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_file
from pydamon.cli.options import forced, record_path
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.records.formats.input_file import InputFile

    _ParamType = click.ParamType[int]
else:  # it cannot be subscripted in older releases of click
    _ParamType = click.ParamType


class _Interval(_ParamType):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from pydamon.spec.units import parse_time_us

        if isinstance(value, int):
            return value
        try:
            found = parse_time_us(value)
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if not 0 < found < 1 << 40:
            self.fail("must be between 1us and 12 days", param, ctx)
        return found


@click.command("import", cls=Verb)
@reads_file
@click.option(
    "-o",
    "--output",
    metavar="RECORD",
    required=True,
    callback=record_path,
    help="The record to write (- is standard output).",
)
@forced
@click.option("--sample", "sample_us", type=_Interval(), metavar="TIME", help="Sampling interval, if not in the file.")
@click.option("--aggr", "aggr_us", type=_Interval(), metavar="TIME", help="Aggregation interval, if not in the file.")
def command(path: str, output: str, force: bool, sample_us: int | None, aggr_us: int | None) -> None:
    """Make a record of another tool's FILE (- is standard input); its kind is recognised by its content.

    Text of perf script and trace-cmd report (damon_aggregated events, also packed by gzip or xz), perf.data, records
    of damo (also a folder of parts), address samples of perf mem, and the Parquet, CSV and JSON lines that pydamon
    export writes.
    """
    with lean.imports():
        from pydamon.records.formats.detect import ADDRESS_SAMPLES, detect
        from pydamon.records.formats.foreign import Hints
        from pydamon.records.formats.input_file import InputFile

    if sample_us is not None and aggr_us is not None and sample_us > aggr_us:
        raise RequestError("must not be longer than --aggr", where="--sample")
    if path != "-" and os.path.isfile(path) and _is_record(path):
        raise RequestError("is a pydamon record already", where=path)
    if path != "-" and (parts := _parts(path, sample_us, aggr_us)):
        from pydamon.cli.edit import merge_files

        merge_files(parts, output, keep_old=not force, one_recording=True)
        return
    with InputFile(path) as source:
        if detect(source) == ADDRESS_SAMPLES:
            _monitor(source, output, sample_us, aggr_us, force=force)
        else:
            _import(source, output, Hints(sample_us, aggr_us), keep_old=not force)


def _is_record(path: str) -> bool:
    from pydamon.records.writer import is_record

    with open(path, "rb") as file:
        return is_record(file.fileno())


def _parts(path: str, sample_us: int | None, aggr_us: int | None) -> list[str]:
    """The files of a recording that damo has divided; none where it has not."""
    from pydamon.records.formats.damo_parts import parts_of

    parts = parts_of(path)
    if not parts and os.path.isdir(path):
        raise RequestError(
            "is a directory, not a file, and holds no record of damo (FILE with FILE.kdamonds beside it)", where=path
        )
    for option, value in (("--sample", sample_us), ("--aggr", aggr_us)):
        if parts and value is not None:
            raise RequestError("is told in the parts of a recording; import one of them for another", where=option)
    return parts


def _import(source: InputFile, output: str, hints: Any, *, keep_old: bool) -> None:
    from pydamon.cli.render.output import say_written
    from pydamon.cli.render.screen import warn
    from pydamon.records.formats.convert import convert
    from pydamon.records.formats.detect import open_foreign
    from pydamon.records.writer import RecordWriter, check_output

    check_output(output, keep_old=keep_old)
    written: list[RecordWriter] = []
    if os.path.exists(output) and os.path.exists(source.path) and os.path.samefile(source.path, output):
        raise RequestError(f"{output} is being read; choose another name", where="-o")

    def begin(metadata: Mapping[str, Any], optional: tuple[str, ...]) -> RecordWriter:
        written.append(RecordWriter(output, metadata=metadata, optional=optional, whole=True, keep_old=keep_old))
        return written[-1]

    done = convert(open_foreign(source, hints), begin)
    warn([f"{source.path}: {line}" for line in [*done.notes, *done.left_out, *done.not_read]])
    say_written(written[-1], f"{done.format}: {done.snapshots:,} snapshots, {done.rows:,} regions; ")


def _monitor(source: InputFile, output: str, sample_us: int | None, aggr_us: int | None, *, force: bool) -> None:
    """Address samples become regions by monitoring: as ``record --ops reported --source perf-script:FILE``."""
    from pydamon.cli.record import command as record

    if not source.plain:
        raise RequestError(
            "holds address samples in packed or binary form; print them first: perf script -F "
            "comm,pid,tid,cpu,time,event,addr,data_src,weight > text",
            where=source.path,
        )
    # Opened once more by name: what came through a pipe has been copied.
    name = f"/proc/self/fd/{source.fd}"
    arguments = ["--ops", "reported", "--source", f"perf-script:{name}", "-o", output]
    if force:
        arguments += ["--force"]
    if sample_us is not None:
        arguments += ["--sample", f"{sample_us}us"]
    if aggr_us is not None:
        arguments += ["--aggr", f"{aggr_us}us"]
    with record.make_context("import", arguments, parent=click.get_current_context().parent) as context:
        record.invoke(context)
