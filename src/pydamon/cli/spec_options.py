"""Specs and schemes that a user gives as files or as text, for ``start`` and ``tune``."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from pydamon.errors import RequestError

_MOST = 16 << 20  # bytes of a file


def read_text(path: str, option: str) -> bytes:
    """What is in a file (``-``: standard input). Raises RequestError naming the option."""
    where = f"{option} {path}"
    try:
        if path == "-":
            text = sys.stdin.buffer.read(_MOST + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(_MOST + 1)
    except OSError as error:
        raise RequestError(f"cannot be read: {error.strerror}", where=where) from None
    if len(text) > _MOST:
        raise RequestError(f"is larger than {_MOST >> 20} MiB", where=where)
    return text


def decode(text: bytes | str, where: str) -> Any:
    """The value that JSON text stands for. Raises RequestError."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"is not JSON: {error}", where=where) from None


def load_spec(path: str, option: str = "--spec") -> dict[str, Any]:
    """A spec as plain values, not validated. Raises RequestError."""
    where = f"{option} {path}"
    data = decode(read_text(path, option), where)
    if not isinstance(data, dict) or "kdamonds" not in data:
        raise RequestError('is not a spec: it must be an object with "kdamonds"', where=where)
    return data


def load_schemes(path: str, option: str = "--schemes") -> list[Any]:
    """The schemes in a file: a list of them, an object with "schemes", or a spec. Raises RequestError."""
    where = f"{option} {path}"
    data = decode(read_text(path, option), where)
    if isinstance(data, dict) and "kdamonds" in data:
        try:
            (kdamond,) = data["kdamonds"]
            (data,) = kdamond["contexts"]
        except (TypeError, ValueError, KeyError):
            raise RequestError("is a spec of other than one kdamond with one context", where=where) from None
    if isinstance(data, dict) and "schemes" in data:
        data = data["schemes"]
    if not isinstance(data, list):
        raise RequestError('is no list of schemes, and no object with "schemes"', where=where)
    return data


def parse_scheme(text: str, option: str = "--scheme") -> Any:
    """One scheme, as text. Raises RequestError."""
    data = decode(text, option)
    if not isinstance(data, dict):
        raise RequestError(f"{text[:40]!r} is not a scheme; it must be a JSON object", where=option)
    return data
