"""All messages of a record; where the way to the next one is damaged, those behind are found by their checksums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydamon.records.framing import BadMessage, Frame, check_sum, frame_at

_MARK = b"\xff\xff\xff\xff"
_ALIGNED = 8  # every message begins at a multiple of it
_PIECE = 1 << 20
# What a hostile file can make us look at: places that look like a message, and bytes of what begins there.
_MOST_PLACES = 10_000
_MOST_READ = 64 << 20

Read = Callable[[int, int], bytes]


@dataclass
class Walked:
    """The messages in the order of the file; ``gaps`` is how often something between them could not be understood.

    ``end`` is where the last good one ends; ``complete`` whether the mark of the end follows it.
    """

    frames: list[Frame] = field(default_factory=list)
    gaps: int = 0
    end: int = 0
    complete: bool = False


def walk(read: Read, size: int, offset: int) -> Walked:
    """The messages from ``offset`` on."""
    found = Walked(end=offset)
    finder = _Finder(read, size)
    while True:
        try:
            frame = frame_at(read, size, offset)
        except BadMessage:
            # The length that led here may be what is damaged: then what is behind it begins earlier.
            last = found.frames[-1] if found.frames else None
            wrong = last is not None and last.end == offset and not finder.is_sound(last)
            place = finder.next_after(last.offset if wrong and last is not None else offset)
            if place is None:
                return found
            found.gaps += not wrong  # else it is counted when it is decoded
            offset = place
            continue
        if frame is None:
            found.complete = True  # what comes after it is no part of this record
            return found
        found.frames.append(frame)
        found.end = offset = frame.end


class _Finder:
    """Looks for messages by their marks and checksums, within bounds."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size = read, size
        self._places, self._bytes = _MOST_PLACES, _MOST_READ + size

    def is_sound(self, frame: Frame) -> bool:
        """Whether it has a checksum, which is right; False as well where too much has been looked at."""
        self._bytes -= frame.end - frame.offset
        if self._bytes < 0:
            return False
        try:
            check_sum(self._read(frame.offset, frame.end - frame.offset), frame, needed=True)
        except BadMessage:
            return False
        return True

    def next_after(self, offset: int) -> int | None:
        """Where the next sound message begins; None if there is none, or too much has been looked at."""
        at = offset + 1
        while at < self._size:
            piece = self._read(at, _PIECE + len(_MARK) - 1)
            index = piece.find(_MARK)
            while index >= 0:
                if (at + index) % _ALIGNED == 0 and self._begins(at + index):
                    return at + index
                index = piece.find(_MARK, index + 1)
            if self._places < 0 or self._bytes < 0:
                return None
            at += _PIECE
        return None

    def _begins(self, offset: int) -> bool:
        self._places -= 1
        if self._places < 0:
            return False
        try:
            frame = frame_at(self._read, self._size, offset)
        except BadMessage:
            return False
        return frame is not None and self.is_sound(frame)
