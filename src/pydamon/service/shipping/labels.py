"""What others have chosen, as labels of the data set."""

from __future__ import annotations

import zlib

from pydamon.dataset.files import MOST_TEXT
from pydamon.plain import encodable, printable


def label(text: str, most: int = MOST_TEXT) -> str:
    """Printable, and cut with a checksum behind it if it is too long: what was different stays different."""
    text = encodable(printable(text))
    return text if len(text) <= most else f"{text[: most - 9]}~{zlib.crc32(text.encode()):08x}"
