"""Writing a file that a report was asked for: the whole of it or nothing, and no wider readable than the record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pydamon import messages
from pydamon.errors import PydamonError, RequestError
from pydamon.linux.outputs import Place, mode_for

if TYPE_CHECKING:
    from pydamon.records.writer import RecordWriter

OPTION = "-o"

Write = Callable[[BinaryIO], object]


def _parse_mode(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if mode < 0 or mode & ~0o666 or mode & 0o600 != 0o600:
        raise click.BadParameter(
            f"{value!r} is no mode of a file; 640 lets the group read it, 644 everybody", ctx, param
        )
    ctx.meta["mode"] = mode


MODE = click.option(
    "--mode",
    metavar="MODE",
    callback=_parse_mode,
    expose_value=False,
    help="Who may read FILE, e.g. 644. Default: no more than who may read the record.",
)


def write_whole(path: str, write: Write, made_from: Any) -> None:
    """Have ``write`` fill the file, which appears (or is replaced) only once it is complete.

    It is no wider readable than the record ``made_from`` (an open reader), unless --mode says otherwise. A device or a
    pipe stays what it is and gets the content. Raises RequestError if it cannot be written there, PydamonError if
    writing failed; nothing is left then.
    """
    context = click.get_current_context(silent=True)
    widened = None if context is None else context.meta.get("mode")
    _write(path, write, mode_for(_sources(made_from), widened))


def _sources(made_from: Any) -> list[str]:
    """The files that something is made from: those of several, or that of one."""
    return list(made_from.paths) if hasattr(made_from, "paths") else [made_from.path]


def write_public(path: str, text: str) -> None:
    """Write a text that anybody may read, as `write_whole` does."""
    _write(path, lambda file: file.write(text.encode()), 0o644)


def say_written(record: RecordWriter, before: str = "") -> None:
    """Say in one line that a record is complete, and what became of the one that was there."""
    kept = f"; what was there is kept as {record.kept}" if record.kept is not None else ""
    where = "standard output" if record.path == "/dev/stdout" else record.path  # as -o - has it
    messages.say(f"{before}wrote {where}, {record.bytes_written:,} bytes{kept}")


def check_whole(path: str) -> None:
    """Raise RequestError if it cannot be written there."""
    Place(path, OPTION).close()


def _write(path: str, write: Write, mode: int) -> None:
    with Place(path, OPTION) as place:
        if place.is_stream:
            _write_into(place, write)
        else:
            _write_beside(place, write, mode)


def _write_beside(place: Place, write: Write, mode: int) -> None:
    new = place.make_beside(mode)
    file = os.fdopen(new.fd, "wb")
    try:
        write(file)
        file.flush()
        new.appear()
    except BaseException as error:
        new.discard()
        if isinstance(error, OSError):
            raise PydamonError(f"cannot write {place.path}: {error.strerror}", where=OPTION) from None
        raise
    finally:
        with contextlib.suppress(OSError):  # what closing could say has been asked by `appear`
            file.close()


def _write_into(place: Place, write: Write) -> None:
    import tempfile

    with tempfile.TemporaryFile() as file:  # what writes may go back in it
        write(file)
        file.seek(0)
        stream = place.open_stream()
        try:
            while piece := file.read(1 << 20):
                left = memoryview(piece)
                while left:
                    left = left[stream.write(left) :]
        except OSError as error:
            raise RequestError(f"cannot write {place.path}: {error.strerror}", where=OPTION) from None
        finally:
            os.close(stream.fd)
