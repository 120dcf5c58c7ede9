"""What an app has drawn, as text: compared with a file, whatever a version of Textual makes of colours and styles."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from textual.app import App

FOLDER = Path(__file__).parent / "screens"
_CELL = 12.2  # the width of a character in a picture that Textual makes
_TEXT = re.compile(r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', re.DOTALL)


def text_of(app: App[Any]) -> str:
    """The lines of the screen of a running app, without blanks at their ends."""
    lines: dict[float, list[str]] = {}
    for x, y, text in _TEXT.findall(app.export_screenshot()):
        line = lines.setdefault(float(y), [])
        column, characters = round(float(x) / _CELL), list(html.unescape(text).replace("\xa0", " "))
        line.extend(" " * (column + len(characters) - len(line)))
        line[column : column + len(characters)] = characters
    return "\n".join("".join(lines[y]).rstrip() for y in sorted(lines)) + "\n"


def as_it_was(name: str, drawn: str) -> bool:
    """Whether that is what the file of this name has; with PYDAMON_DRAW=1 the file is made of it."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("PYDAMON_DRAW"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn)
    return drawn == path.read_text()
