"""What reading a large record has come to, kept beside it as ``RECORD.heat``: the page is there at once the next time.

Beside the record, and not in a cache of the user's: it goes where the record goes, and goes when that folder does. It
is as readable as the record, is made as all outputs are, and is believed only if the record has the size, time and end
that it was made from, and if it is the user's or the record's owner's. Where it cannot be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.curves import Curves
from pydamon.analysis.pyramid import Axis, Piece, Pyramid
from pydamon.errors import PydamonError
from pydamon.learned import learned
from pydamon.linux.outputs import Place, mode_for
from pydamon.web.target import Drawn

_FORM = 1
_MOST_BYTES = 1 << 28  # of all arrays, unpacked
_END = 1 << 16  # bytes of the record's end that are compared
_WRONG = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, msgspec.MsgspecError, EOFError)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Targets, the bytes of each target at last, and `RecordReader.frame_times`."""

    drawn: dict[int, Drawn]
    sizes: dict[int, int]
    frame_times: NDArray[np.int64]


class _Target(msgspec.Struct):
    start_ns: int
    end_ns: int
    column_ns: int
    rows: int
    levels: int
    pieces: list[tuple[int, int, int, int]]
    curves_ns: int


class _Head(msgspec.Struct):
    form: int
    record: list[int]
    sizes: dict[int, int]
    targets: dict[int, _Target]


def _identity(path: str) -> list[int]:
    """Size, time of the last change, and a checksum of the end of the record."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        file.seek(max(found.st_size - _END, 0))
        return [found.st_size, found.st_mtime_ns, zlib.crc32(file.read(_END))]


def keep(path: str, what: Kept) -> None:
    """Keep it beside the record ``path``; where that cannot be, nothing is."""
    targets = {}
    arrays: dict[str, NDArray[Any]] = {"frame_times": what.frame_times}
    for number, one in what.drawn.items():
        pyramid = one.pyramid
        pieces = [(piece.start, piece.end, piece.first, piece.behind) for piece in pyramid.axis.pieces]
        head = (pyramid.start_ns, pyramid.end_ns, pyramid.column_ns, pyramid.rows, len(pyramid.levels))
        targets[number] = _Target(*head, pieces, one.curves.column_ns)
        arrays |= {f"{number}.start": pyramid.axis.start, f"{number}.end": pyramid.axis.end}
        arrays |= {f"{number}.level.{at}": level for at, level in enumerate(pyramid.levels)}
        arrays |= {f"{number}.curves.{name}": array for name, array in one.curves.state().items()}
    with contextlib.suppress(PydamonError, OSError):
        head_bytes = msgspec.json.encode(_Head(_FORM, _identity(path), what.sizes, targets))
        arrays["head"] = np.frombuffer(head_bytes, np.uint8)
        _write(path, arrays)


def _write(path: str, arrays: dict[str, NDArray[Any]]) -> None:
    with Place(f"{path}.heat", "heat") as place:
        if place.is_stream:
            return
        new = place.make_beside(mode_for([path]))
        try:
            with os.fdopen(new.fd, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
                file.flush()
                new.appear()
        except BaseException:
            new.discard()
            raise


def kept(path: str) -> Kept | None:
    """What was kept of this record; None if nothing, or of another, or it cannot be trusted or read."""
    with contextlib.suppress(*_WRONG), _opened(path) as file:
        with zipfile.ZipFile(file) as packed:
            if sum(member.file_size for member in packed.infolist()) > _MOST_BYTES:
                return None
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            head = msgspec.json.decode(arrays["head"].tobytes(), type=learned(_Head))
            if head.form != _FORM or head.record != _identity(path):
                return None
            drawn = {number: _target(number, target, arrays) for number, target in head.targets.items()}
            return Kept(drawn, head.sizes, _checked(arrays["frame_times"], np.int64, 2))
    return None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The file beside the record; OSError if it is none of the user's or of the record's owner."""
    fd = os.open(f"{path}.heat", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        trusted = found.st_uid in (os.geteuid(), os.stat(path).st_uid) and not found.st_mode & 0o022
        if not stat.S_ISREG(found.st_mode) or not trusted:
            raise PermissionError
        yield file


def _target(number: int, told: _Target, arrays: Any) -> Drawn:
    start, end = (_checked(arrays[f"{number}.{name}"], np.uint64, 1) for name in ("start", "end"))
    levels = [_checked(arrays[f"{number}.level.{at}"], np.uint8, 2) for at in range(told.levels)]
    pieces = tuple(Piece(*piece) for piece in told.pieces)
    fits = all(level.shape == (len(levels[0]) >> at, len(start)) for at, level in enumerate(levels))
    sound = len(start) == len(end) > 0 and (start < end).all() and (start[1:] >= end[:-1]).all()
    bounds = [piece.first for piece in pieces] + [len(start)]
    if not (fits and sound and bounds == [0, *(piece.behind for piece in pieces)] and told.column_ns > 0):
        raise ValueError("it does not fit together")
    pyramid = Pyramid(Axis(start, end, pieces), told.start_ns, told.column_ns, levels)
    pyramid.end_ns, pyramid.rows = told.end_ns, told.rows
    state = {name: arrays[f"{number}.curves.{name}"] for name in ("time", "sums", "least", "most")}
    return Drawn(number, pyramid, Curves.of_state(told.start_ns, told.curves_ns, state))


def _checked(array: NDArray[Any], dtype: type[np.generic], dimensions: int) -> NDArray[Any]:
    if array.dtype != dtype or array.ndim != dimensions:
        raise ValueError("an array of another type")
    return array
