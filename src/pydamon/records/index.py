"""The snapshot index of a batch: what its first five columns say, without one value per row.

Readers of ours need the times, target and intervals once per snapshot. The index travels in the custom metadata of its
batch and makes the five columns, which are there for every other reader, unnecessary to decode: two thirds of the
bytes. Where it is missing or damaged, the columns serve.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

from pydamon.records.schema import HEADS, NO_SUM, SUM_KEY

INDEX_KEY = "pydamon.snapshots"

# Columns of an index, int64: how many rows each snapshot has, then what it says once.
_COLUMNS = ("rows", *HEADS)
_WIDTH = len(_COLUMNS)
ROWS, TARGET, START_NS, END_NS = (_COLUMNS.index(name) for name in ("rows", "target", "start_ns", "end_ns"))


def write_index(index: NDArray[np.int64]) -> dict[str, str]:
    """The custom metadata that carries the index: steps from snapshot to snapshot, little-endian, zlib, base64.

    With room for the message's checksum.
    """
    steps = np.diff(index, axis=0, prepend=0).astype("<i8")
    return {SUM_KEY: NO_SUM, INDEX_KEY: base64.b64encode(zlib.compress(steps.tobytes(), 1)).decode("ascii")}


def read_index(metadata: dict[str, str], rows: int) -> NDArray[np.int64] | None:
    """The index in a batch's custom metadata; None if there is none that fits a batch of ``rows`` rows."""
    text = metadata.get(INDEX_KEY)
    if text is None:
        return None
    try:
        # A snapshot has at least one row, which bounds what the index can decompress to.
        decompressor = zlib.decompressobj()
        data = decompressor.decompress(base64.b64decode(text, validate=True), rows * _WIDTH * 8 + 1)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if not decompressor.eof or not data or len(data) % (_WIDTH * 8):
        return None
    index = np.frombuffer(data, dtype="<i8").reshape(-1, _WIDTH).cumsum(axis=0, dtype=np.int64)
    counts = index[:, ROWS]
    if counts.min() < 1 or counts.max() > rows or int(counts.sum()) != rows:
        return None
    return index
