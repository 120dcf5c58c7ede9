"""Lines of a screen as plain values: texts, each in a style that is known by its name."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """A part of a line in one style (`lines.STYLES`); the text is printable, and has no markup."""

    text: str
    style: str = ""


Line = tuple[Span, ...]
EMPTY: Line = ()


def text_line(text: str, style: str = "") -> Line:
    """A line in one style."""
    return (Span(text, style),)


def plain(line: Line) -> str:
    """Its text."""
    return "".join(span.text for span in line).rstrip()
