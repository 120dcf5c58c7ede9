"""Specs and schemes that a user gives as files or as text, for ``record``, ``start`` and ``tune``."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from pydamon.errors import RequestError
from pydamon.spec import Spec, to_builtins
from pydamon.spec.forms import scheme_files
from pydamon.spec.forms.scheme_short import parse_short

_NUMBERED = re.compile(r"schemes\[(\d+)\]")


def given(ctx: click.Context) -> dict[str, str]:
    """The parameters that were given on the command line, by name, and what the user calls them."""
    return {
        param.name or "": param.opts[-1] if isinstance(param, click.Option) else "pid"
        for param in ctx.command.params
        if ctx.get_parameter_source(param.name or "") == click.core.ParameterSource.COMMANDLINE
    }


def read_text(path: str, option: str) -> bytes:
    """What is in a file (``-``: standard input). Raises RequestError naming the option."""
    where = f"{option} {path}"
    most = scheme_files.MAX_BYTES
    try:
        if path == "-":
            text = sys.stdin.buffer.read(most + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(most + 1)
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror}", where=where) from None
    except ValueError:  # a NUL character
        raise RequestError("is not the name of a file", where=f"{option} {path!r}") from None
    return text


def load_spec(path: str, option: str = "--spec") -> dict[str, Any]:
    """A spec as plain values; its targets are not validated. Raises RequestError naming the file and the field."""
    where = f"{option} {path}"
    loaded = _load(read_text(path, option), where, "vaddr")
    if loaded.spec is None:
        raise RequestError('is not a spec: it must be an object with "kdamonds"', where=where)
    return _as_object(loaded.spec)


def _as_object(spec: Spec) -> dict[str, Any]:
    plain: dict[str, Any] = to_builtins(spec)
    return plain


def _load(text: bytes, where: str, ops: str) -> scheme_files.Loaded:
    try:
        loaded = scheme_files.load(text, ops=ops)
    except RequestError as error:
        raise RequestError(error.message, where=f"{where}: {error.where}" if error.where else where) from None
    for warning in loaded.warnings:
        click.echo(f"pydamon: {where}: {warning}", err=True)
    return loaded


class Schemes:
    """The schemes of ``--schemes FILE`` and of each ``--scheme TEXT``, in this order. Raises RequestError."""

    def __init__(self, path: str | None, texts: tuple[str, ...], ops: str) -> None:
        self._schemes: list[dict[str, Any]] = []
        self._where: list[str] = []
        if path is not None:
            where = f"--schemes {path}"
            text = read_text(path, "--schemes")
            if b"".join(text.split()) in (b"[]", b'{"schemes":[]}'):
                loaded = scheme_files.Loaded("json", (), ())  # that is how all are removed
            else:
                loaded = _load(text, where, ops)
            self._schemes += map(scheme_files.to_builtins, loaded.schemes)
            self._where += [f"{where}: {place}" for place in loaded.paths]
        for short in texts:
            if short.lstrip()[:1] in ("{", "["):  # as `schemes show` prints it
                schemes = _load(short.encode("utf-8", "surrogateescape"), "--scheme", ops).schemes
            else:
                try:
                    schemes = (parse_short(short),)
                except RequestError as error:
                    where = f"--scheme: {error.where}" if error.where else "--scheme"
                    raise RequestError(error.message, where=where) from None
            self._schemes += map(scheme_files.to_builtins, schemes)
            self._where += ["--scheme" if len(texts) == 1 else f"--scheme {short!r}"] * len(schemes)

    def builtins(self) -> list[dict[str, Any]]:
        """As plain values."""
        return self._schemes

    def where(self, field: str) -> str:
        """Where the user gave what a spec calls ``schemes[0].…``."""
        match = _NUMBERED.match(field)
        if match is None or int(match[1]) >= len(self._where):
            return field
        rest = field[match.end() :]
        return self._where[int(match[1])] + (f": {rest.lstrip('.')}" if rest else "")
