"""The files of the page as they lie in the package: nothing else can be asked for."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

from pydamon.plain import encodable_value

# In the order in which a page that is one file runs them: what a module imports stands before it.
SCRIPTS = (
    "format.js", "source.js", "colours.js", "axis.js", "heatmap.js", "curves.js", "details.js", "whatif.js", "page.js",
)  # fmt: skip
CHARTS = ("vendor/uPlot.iife.min.js", "vendor/uPlot.min.css")
STYLE = "page.css"
PAGE = "page.html"
ALL = "all.js"  # the scripts as one: what the browser would find out and ask for one after another
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html"}


@cache
def text(name: str) -> str:
    """One of the files above."""
    assert name in (*SCRIPTS, *CHARTS, STYLE, PAGE)
    return files("pydamon.web").joinpath("page", name).read_text("utf-8")


@cache
def scripts() -> str:
    """All scripts as one: what a module imports stands before it, under the same names."""
    return "\n".join(_IMPORT.sub("", text(name)).replace("\nexport ", "\n") for name in SCRIPTS)


def served() -> dict[str, tuple[bytes, str]]:
    """What may be asked for, by name: content and its type."""
    found = {ALL: scripts(), **{name: text(name) for name in (*CHARTS, STYLE)}}
    return {
        name: (content.encode(), _KINDS[name.rpartition(".")[2]] + "; charset=utf-8") for name, content in found.items()
    }


def inert(data: object) -> str:
    """JSON that is nothing else wherever in a page it stands: no character of it begins or ends markup or a line."""
    found = json.dumps(encodable_value(data), separators=(",", ":"))  # escapes what is not ASCII, U+2028 too
    return found.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
