"""The files of the page as they lie in the package: nothing else can be asked for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# In the order in which a page that is one file runs them: what a module imports stands before it.
SCRIPTS = ("format.js", "source.js", "colours.js", "axis.js", "heatmap.js", "curves.js", "details.js", "page.js")
CHARTS = ("vendor/uPlot.iife.min.js", "vendor/uPlot.min.css")
STYLE = "page.css"
PAGE = "page.html"
_KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html"}


@cache
def text(name: str) -> str:
    """One of the files above."""
    assert name in (*SCRIPTS, *CHARTS, STYLE, PAGE)
    return files("pydamon.web").joinpath("page", name).read_text("utf-8")


def served() -> dict[str, tuple[bytes, str]]:
    """What may be asked for, by name: content and its type."""
    names = (*SCRIPTS, *CHARTS, STYLE)
    return {name: (text(name).encode(), _KINDS[name.rpartition(".")[2]] + "; charset=utf-8") for name in names}
