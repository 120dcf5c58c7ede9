"""What standard output is, and writing to it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from pydamon import messages
from pydamon.linux.causes import about
from pydamon.plain import fit, json_text, printable


@dataclass(frozen=True, slots=True)
class Screen:
    """The place that text goes to. ``colours``: 0, 256 or 2**24; ``terminal``: whether a person looks at it."""

    width: int
    height: int
    colours: int
    unicode: bool
    terminal: bool

    @property
    def limit(self) -> int | None:
        """The number of columns that a line must not exceed; None where it does not matter."""
        return self.width if self.terminal else None

    @property
    def ellipsis(self) -> str:
        """What stands for the rest of a text that was cut."""
        return self.pick("…", "...")

    def fit(self, text: str) -> str:
        """The text, cut to the width of a terminal."""
        return text if self.limit is None else fit(text, self.limit, self.ellipsis)

    def pick(self, unicode: str, ascii: str) -> str:
        """The first if the screen can show it, else the second."""
        return unicode if self.unicode else ascii


def current_screen() -> Screen:
    """The screen that standard output is: 80 x 24 if it is none, unless COLUMNS and LINES say otherwise."""
    import shutil  # with all kinds of compression: 3 ms of CPU time, which starting to record can do without

    stream = sys.stdout
    terminal = stream is not None and stream.isatty()
    size = shutil.get_terminal_size((80, 24))
    colours = 0
    if terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb":
        colours = 1 << 24 if os.environ.get("COLORTERM") in ("truecolor", "24bit") else 256
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return Screen(max(size.columns, 20), max(size.lines, 8), colours, encoding.startswith("utf"), terminal)


def emit(text: str) -> None:
    """Write text to standard output; what its encoding lacks is escaped. Raises OSError."""
    if sys.stdout is None:  # it was closed when the process began: nobody wants to see it
        return
    with about("standard output"):
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "ascii"
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def echo(text: str) -> None:
    """Write lines of plain text to standard output, without what would drive the terminal. Raises as `emit`."""
    emit("".join(f"{printable(line)}\n" for line in text.split("\n")))


def emit_json(value: object) -> None:
    """Write a value to standard output as JSON that is indented. Raises as `emit`."""
    emit(json_text(value, indent=2) + "\n")


def warn(lines: list[str]) -> None:
    """One diagnostic per line on standard error."""
    for line in lines:
        messages.say(line)
