"""Writing a picture file: the whole of it or nothing."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from pydamon.cli.render.output import OPTION, check_whole, write_whole
from pydamon.errors import MachineError, RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_FORMATS = {".png": "png", ".svg": "svg", ".html": "html", ".htm": "html"}


def is_picture(path: str) -> bool:
    """Whether the file's name is that of a picture."""
    return _extension(path) in _FORMATS


def check_picture(path: str) -> str:
    """The format for the file's name; RequestError if it is not one of ours, MachineError without matplotlib."""
    if not is_picture(path):
        raise RequestError(f"{path}: pictures are .png, .svg or .html; choose such a name", where=OPTION)
    check_whole(path)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MachineError("drawing needs matplotlib: pip install matplotlib", where=OPTION) from None
    return _FORMATS[_extension(path)]


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def write_picture(path: str, figure: Figure, made_from: Any, title: str) -> None:
    """Draw the figure into the file, as `write_whole`; a page of HTML is called ``title``, and loads nothing."""
    import matplotlib
    from matplotlib.text import Text

    kind = check_picture(path)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names are no formulas: $…$ would be one

    def draw(file: BinaryIO) -> None:
        with matplotlib.rc_context({"svg.hashsalt": "pydamon"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # a box stands for the character
            # Without a date the same record gives the same file.
            if kind == "png":
                figure.savefig(file, format=kind, metadata={"Software": "pydamon"})
            else:
                drawing = BytesIO()
                figure.savefig(drawing, format="svg", metadata={"Date": None})
                file.write(_page(title, drawing.getvalue()) if kind == "html" else drawing.getvalue())

    write_whole(path, draw, made_from)


def _page(title: str, drawing: bytes) -> bytes:
    """A page with nothing but the drawing (SVG), in which no script runs."""
    import base64
    from html import escape  # costs 3 ms, which other reports need not pay

    data, shown = base64.b64encode(drawing).decode("ascii"), escape(title)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:">'
        f"<title>{shown}</title></head>\n"
        f'<body><img width="1100" alt="{shown}" src="data:image/svg+xml;base64,{data}"></body></html>\n'
    )
    return text.encode("utf-8", "replace")
