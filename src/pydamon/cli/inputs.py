"""The record that a verb reads: an argument, or what stands with -i; without both it is ``pydamon.damon``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pydamon.cli.completion.values import FILE, RECORD
from pydamon.errors import RequestError

# As records.schema.DEFAULT_NAME, which would import pyarrow.
DEFAULT = "pydamon.damon"

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def reads_record(verb: _Verb) -> _Verb:
    """The argument FILE and the option -i of a verb, which gets one of the two as ``path``."""
    return _reads(verb, RECORD, DEFAULT, f"The record, also without -i.  [default: {DEFAULT}]")


def reads_file(verb: _Verb) -> _Verb:
    """The same where there is no default: the verb reads what others have written."""
    return _reads(verb, FILE, None, "The file, also without -i (- is standard input).")


def _reads(verb: _Verb, kind: Any, default: str | None, words: str) -> _Verb:
    @functools.wraps(verb)
    def with_path(*args: Any, file: str | None, path: str | None, **options: Any) -> Any:
        return verb(*args, path=_one(file, path, default), **options)

    option = click.option("-i", "--input", "path", type=kind, help=words)
    argument = click.argument("file", required=False, type=kind, metavar="[FILE]" if default is not None else "FILE")
    result: Any = argument(option(with_path))
    return result  # type: ignore[no-any-return]


def _one(file: str | None, path: str | None, default: str | None) -> str:
    context = click.get_current_context()
    if file is not None and path is not None and file != path:
        raise RequestError(f"{path!r}: {file!r} is given without it, too; give one file", where="-i")
    found = file if file is not None else path
    if found is None:
        found = default
    if found is None:
        raise click.MissingParameter(ctx=context, param_hint="'FILE'", param_type="argument")
    if context.meta.get("mode") is not None and not context.params.get("output"):
        raise RequestError("is about the file that is drawn; say which with -o", where="--mode")
    return found


def two_records(files: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, str]:
    """(before, after): two arguments, or -i twice. Raises RequestError."""
    if files and given:
        raise RequestError(
            f"{given[0]!r}: {files[0]!r} is given without it; which is before? name both alike", where="-i"
        )
    found = files or given
    if len(found) != 2:
        raise RequestError(f"needs two records, BEFORE and AFTER; there {_are(len(found))}", where="report diff")
    return found[0], found[1]


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count or 'none'}"
