"""Specs, schemes and costs that a user gives as files or as text."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from pydamon import messages
from pydamon.errors import RequestError, located
from pydamon.spec import Scheme, Spec
from pydamon.spec.forms import scheme_files
from pydamon.spec.forms.scheme_short import parse_short

if TYPE_CHECKING:
    from pydamon.spec.costs import Costs

_NUMBERED = re.compile(r"schemes\[(\d+)\]")


def read_text(path: str, option: str = "") -> bytes:
    """What is in a file (``-``: standard input). Raises RequestError naming the option, if it is one, and the file."""
    where = f"{option} {path}".lstrip()
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
        raise RequestError("is not the name of a file", where=f"{option} {path!r}".lstrip()) from None
    return text


def load_spec(ctx: click.Context, path: str) -> Spec:
    """The spec in the file of ``--spec``; its targets are not validated. Raises RequestError naming file and field.

    Errors that are raised later call its fields as they are called in the file.
    """
    where = f"--spec {path}"
    spec = _load(read_text(path, "--spec"), where, "vaddr").spec
    if spec is None:
        raise RequestError('is not a spec: it must be an object with "kdamonds"', where=where)
    ctx.meta["spec"] = path
    return spec


def load_schemes(ctx: click.Context, path: str | None, texts: tuple[str, ...], ops: str) -> Schemes | None:
    """The schemes of ``--schemes`` and ``--scheme``; None if neither was given. Raises RequestError.

    Errors that are raised later refer to them by where they were given.
    """
    if path is None and not texts:
        return None
    ctx.meta["schemes"] = found = Schemes(path, texts, ops)
    return found


def schemes_in(path: str, ops: str) -> tuple[Scheme, ...]:
    """Those in one file of ``--schemes``, at least one. Raises RequestError."""
    return _load(read_text(path, "--schemes"), f"--schemes {path}", ops).schemes


def schemes_of(text: str, ops: str) -> tuple[Scheme, ...]:
    """Those of one ``--scheme``: a short form, or JSON as `schemes show` prints it. Raises RequestError."""
    if text.lstrip()[:1] in ("{", "["):
        return _load(text.encode("utf-8", "surrogateescape"), "--scheme", ops).schemes
    with located("--scheme", ": "):
        return (parse_short(text),)


def _load(text: bytes, where: str, ops: str) -> scheme_files.Loaded:
    with located(where, ": "):
        loaded = scheme_files.load(text, ops=ops)
    for warning in loaded.warnings:
        messages.say(f"{where}: {warning}")
    return loaded


def load_costs(path: str) -> Costs:
    """Those in the file of ``--costs``. Raises RequestError naming the file and the cost."""
    from pydamon.spec import costs

    text = read_text(path, "--costs")
    with located(f"--costs {path}", ": "):
        return costs.load(text).costs


class Schemes:
    """The schemes of ``--schemes FILE`` and of each ``--scheme TEXT``, in this order. Raises RequestError."""

    def __init__(self, path: str | None, texts: tuple[str, ...], ops: str) -> None:
        self.schemes: tuple[Scheme, ...] = ()
        self._where: list[str] = []
        if path is not None:
            where = f"--schemes {path}"
            text = read_text(path, "--schemes")
            if b"".join(text.split()) in (b"[]", b'{"schemes":[]}'):
                loaded = scheme_files.Loaded("json", (), ())  # that is how all are removed
            else:
                loaded = _load(text, where, ops)
            self.schemes += loaded.schemes
            self._where += [f"{where}: {place}" for place in loaded.paths]
        for short in texts:
            schemes = schemes_of(short, ops)
            self.schemes += schemes
            self._where += ["--scheme" if len(texts) == 1 else f"--scheme {short!r}"] * len(schemes)

    def where(self, field: str) -> str:
        """Where the user gave what a spec calls ``schemes[0].…``."""
        match = _NUMBERED.match(field)
        if match is None or int(match[1]) >= len(self._where):
            return field
        rest = field[match.end() :]
        return self._where[int(match[1])] + (f": {rest.lstrip('.')}" if rest else "")
