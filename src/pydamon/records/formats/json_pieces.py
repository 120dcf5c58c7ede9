"""JSON that is larger than memory: the objects in its lists called ``snapshots``, one by one, and what is around them.

Nothing is parsed here. The text is cut at brackets outside of strings, which are found for a whole chunk at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pydamon.errors import RequestError

# What is held in memory at a time: one object of a list, or all that is outside of the lists.
MAX_OBJECT_BYTES = 1 << 26
MAX_AROUND_BYTES = 1 << 22
_MAX_DEPTH = 32

_LIST = re.compile(rb'"snapshots"\s*:\s*\[')
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Head:
    """A list begins: the text of all open objects as far as it has come, closed so that it can be parsed."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """The text of one object of the list."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """The text ends (``complete``: with all brackets closed), with what came after the last list."""

    text: bytes
    complete: bool


def pieces(chunks: Iterable[bytes], path: str) -> Iterator[Head | Item | Tail]:
    """Cut the text. Raises RequestError for an object, or a rest, that is larger than any of a recording."""
    splitter = _Splitter(path)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield splitter.end()


class _Splitter:
    def __init__(self, path: str) -> None:
        self._path = path
        self._around = b""  # text outside of lists, from the last list on, behind the brackets that were open there
        self._searched = 0
        self._inside = False
        self._item = bytearray()  # the object that has begun
        self._depth = 0
        self._in_string = False
        self._held = b""  # a backslash at the end of a chunk waits for what it escapes

    def feed(self, chunk: bytes) -> Iterator[Head | Item]:
        while chunk:
            if not self._inside:
                chunk = self._outside(chunk)
                if self._inside:
                    yield Head(_closed(self._around))
                continue
            chunk = self._held + chunk
            self._held = b""
            if chunk.endswith(b"\\") and len(chunk) - len(chunk.rstrip(b"\\")) & 1:
                chunk, self._held = chunk[:-1], b"\\"
            begin = 0
            ends, last = self._scan(chunk)
            for end in ends:
                self._item += chunk[begin:end]
                begin = end
                yield Item(bytes(self._item).lstrip(b" \t\r\n,"))
                self._item.clear()
            if last is None:
                self._item += chunk[begin:]
                if len(self._item) > MAX_OBJECT_BYTES:
                    raise RequestError(f"has a snapshot of more than {MAX_OBJECT_BYTES >> 20} MiB", where=self._path)
                return
            chunk = chunk[last:] + self._held
            self._held = b""
            self._item.clear()
            self._inside = False
            self._around = _reopened(_open_brackets(self._around)[:-1])
            self._searched = len(self._around)

    def _outside(self, chunk: bytes) -> bytes:
        """Look for the next list; returns what follows its bracket."""
        self._around += chunk
        match = _LIST.search(self._around, max(self._searched - 64, 0))
        if match is None:
            self._searched = len(self._around)
            if len(self._around) > MAX_AROUND_BYTES:
                raise RequestError(
                    f"is no record: {MAX_AROUND_BYTES >> 20} MiB of JSON without a list of snapshots", where=self._path
                )
            return b""
        rest = self._around[match.end() :]
        self._around = self._around[: match.end()]
        self._inside, self._depth, self._in_string = True, 0, False
        return rest

    def _scan(self, chunk: bytes) -> tuple[list[int], int | None]:
        """(where objects of the list end, where the list ends if it does): offsets behind the brackets."""
        if b"\\" in chunk:
            chunk = _ESCAPED.sub(b"__", chunk)
        text = np.frombuffer(chunk, np.uint8)
        # All four brackets have these bits; so have Y, y and _, which are sorted out below.
        places = np.flatnonzero((text & np.uint8(0xD9) == 0x59) | (text == 0x22))
        signs = text[places]
        quotes = signs == 0x22
        inside = (np.cumsum(quotes) + self._in_string) & 1 == 1
        opens = (signs == 0x5B) | (signs == 0x7B)
        closes = (signs == 0x5D) | (signs == 0x7D)
        counts = ~quotes & ~inside & (opens | closes)
        places, steps = places[counts], np.where(opens[counts], 1, -1)
        depth = self._depth + np.cumsum(steps)
        below = np.flatnonzero(depth < 0)
        last = int(places[below[0]]) + 1 if len(below) else None
        if last is not None:
            places, depth, steps = places[: below[0]], depth[: below[0]], steps[: below[0]]
        elif len(depth):
            self._depth = int(depth[-1])
        if last is None:
            self._in_string = bool((int(quotes.sum()) + self._in_string) & 1)
        return (places[(depth == 0) & (steps < 0)] + 1).tolist(), last

    def end(self) -> Tail:
        """What is left at the end of the text."""
        if self._inside:
            return Tail(_closed(self._around), False)
        return Tail(_closed(self._around), not _open_brackets(self._around))


def _open_brackets(text: bytes) -> list[int]:
    """The brackets that are open at the end of the text, ``[`` and ``{``; at most so many as JSON of a record has."""
    stack: list[int] = []
    for byte in _STRING.sub(b"", text):
        if byte in b"[{":
            stack.append(byte)
        elif byte in b"]}" and stack:
            stack.pop()
        if len(stack) > _MAX_DEPTH:
            break
    return stack


def _reopened(stack: list[int]) -> bytes:
    """Text with these brackets open; a key that nobody has, "", stands for what came before."""
    text = b"".join(b"[" if bracket == b"["[0] else b'{"":' for bracket in stack)
    return text + b"0" if text.endswith(b":") else text


def _closed(text: bytes) -> bytes:
    """The text with all brackets closed."""
    return text + bytes(byte + 2 for byte in reversed(_open_brackets(text)))  # ] and } follow [ and { by two
