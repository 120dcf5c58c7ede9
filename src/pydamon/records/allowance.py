"""What the side tables of a record may become, by the size of its file: a small file must not fill the memory."""

from __future__ import annotations

from pydamon.records.framing import BadMessage

# Of every file, and of each of its bytes. What pydamon writes becomes at most some hundred times as large as it is
# packed, and a row of it takes more than a byte, or (see `side_tables.Declared`) more than a sixteenth.
_BYTES, _BYTES_PER_BYTE = 1 << 26, 512
_ROWS, _ROWS_PER_BYTE = 1 << 16, 1


class TooMuch(BadMessage):
    """More than the file may become."""


class Allowance:
    """What is left of it. Each piece counts once, however often it is read."""

    def __init__(self, file_bytes: int) -> None:
        self._bytes = _BYTES + _BYTES_PER_BYTE * file_bytes
        self._rows = float(_ROWS + _ROWS_PER_BYTE * file_bytes)
        self._paid: set[int] = set()

    def take(self, offset: int, size: int, rows: float) -> None:
        """Take what the piece at ``offset`` becomes: bytes, and rows; raises TooMuch if so much is not left."""
        if offset in self._paid:
            return
        if size > self._bytes or rows > self._rows:
            raise TooMuch(f"a side table of {size} bytes and {rows:.0f} rows")
        self._bytes -= size
        self._rows -= rows
        self._paid.add(offset)
