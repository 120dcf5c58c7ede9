"""Numbers, words and switches as the kernel's sysfs files read and write them.

Readers take the text of one write and raise OSError with the error number that the kernel gives (``kstrtoul`` and its
family: EINVAL for what is not a number, ERANGE for one that does not fit).
"""

from __future__ import annotations

import errno
import os
import re
from typing import NoReturn

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
I32_MAX = 2**31 - 1

_INTEGER = re.compile(r"(0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]+)\n?", re.ASCII)
_DIGITS = {8: frozenset("01234567"), 10: frozenset("0123456789"), 16: frozenset("0123456789abcdefABCDEF")}


def fail(number: int) -> NoReturn:
    """Raise OSError for the error ``number``."""
    raise OSError(number, os.strerror(number))


def text(data: bytes) -> str:
    """What is written, as the kernel's functions see it: up to the first NUL."""
    return data.split(b"\0", 1)[0].decode("latin-1")


def _magnitude(word: str, largest: int) -> int:
    match = _INTEGER.fullmatch(word)
    if match is None:
        fail(errno.EINVAL)
    prefix, digits = match.groups()
    base = 16 if prefix else 8 if digits.startswith("0") else 10
    if not _DIGITS[base].issuperset(digits):
        fail(errno.EINVAL)
    digits = digits.lstrip("0")
    if len(digits) > 64 or (value := int(digits or "0", base)) > largest:  # no huge number is ever made
        fail(errno.ERANGE)
    return value


def parse_ulong(data: bytes) -> int:
    """An unsigned long: decimal, 0x… or 0… (octal), maybe with ``+`` and one newline."""
    return _magnitude(text(data).removeprefix("+"), U64_MAX)


def parse_uint(data: bytes) -> int:
    """An unsigned int."""
    return _magnitude(text(data).removeprefix("+"), U32_MAX)


def parse_int(data: bytes) -> int:
    """An int."""
    word = text(data)
    if word.startswith("-"):
        return -_magnitude(word[1:], I32_MAX + 1)
    return _magnitude(word.removeprefix("+"), I32_MAX)


def parse_bool(data: bytes) -> bool:
    """A switch, by its first letter or two: y, t, 1 or on; n, f, 0 or of(f)."""
    word = text(data).lower()
    if word[:1] in ("y", "t", "1") or word[:2] == "on":
        return True
    if word[:1] in ("n", "f", "0") or word[:2] == "of":
        return False
    fail(errno.EINVAL)


def parse_word(data: bytes) -> str:
    """A word; one newline after it does not count."""
    return text(data).removesuffix("\n")
