"""How results show themselves in notebooks: tables in HTML, pictures in PNG. Imported only when one is shown."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Seventeen colours from cold to hot: matplotlib's `inferno` (public domain, CC0), perceptually uniform; the coldest is
# not black, so that cold memory differs from a black background.
RAMP = (
    (22, 16, 62), (33, 14, 74), (48, 12, 92), (68, 10, 104), (92, 18, 110), (116, 26, 110), (140, 35, 105),
    (163, 44, 97), (188, 55, 84), (208, 69, 69), (226, 87, 52), (239, 110, 33), (248, 135, 14), (252, 163, 9),
    (250, 192, 38), (244, 221, 79), (243, 246, 138),
)  # fmt: skip
_UNKNOWN = (232, 232, 236)


def html_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all texts are escaped. The first column is aligned to the left, the others to the right."""

    from html import escape  # its table of names costs 3 ms, which the reports need not pay for a ramp of colours

    def line(cells: Sequence[str], kind: str) -> str:
        sides = ("left", *(["right"] * (len(cells) - 1)))
        return "".join(
            f'<{kind} style="text-align:{side}">{escape(cell)}</{kind}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{line(headings, 'th')}</tr></thead>" if headings else ""
    return f"<div><b>{escape(title)}</b><table>{head}<tbody>{body}</tbody></table></div>"


def heat_colours(heat: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """Each heat (0..top; NaN is not monitored) as a colour: shape + (3,)."""
    ramp = np.array(RAMP, np.float64)
    at = np.nan_to_num(heat / top).clip(0, 1) * (len(ramp) - 1)
    low = np.minimum(at.astype(np.int64), len(ramp) - 2)
    share = (at - low)[..., np.newaxis]
    mixed = ramp[low] * (1 - share) + ramp[low + 1] * share
    return np.where(np.isnan(heat)[..., np.newaxis], np.array(_UNKNOWN), np.rint(mixed)).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (height, width), grey, or (height, width, 3), in colour, as PNG (RFC 2083)."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, pixels[0].size + 1), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def html_picture(caption: str, pixels: NDArray[np.uint8], height: int) -> str:
    """A picture that is stretched to the width of the page, with a caption below."""
    from html import escape

    data = base64.b64encode(png(pixels)).decode("ascii")
    style = f"width:100%;height:{height}px;image-rendering:pixelated"
    return f'<div><img style="{style}" src="data:image/png;base64,{data}"><br><small>{escape(caption)}</small></div>'
