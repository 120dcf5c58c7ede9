"""The ways in which what was found is shown: text, JSON or a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydamon.cli.render.picture import write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit, warn
from pydamon.plain import json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pydamon.records.reader import RecordReader


@dataclass(frozen=True, slots=True)
class Shown:
    """What each way makes of it, once it is wanted; ``remarks`` are said beside it, ``title`` is that of a page."""

    text: Callable[[Screen], str]
    values: Callable[[], dict[str, Any]]
    figure: Callable[[], Figure]
    title: str
    remarks: list[str]


def show(shown: Shown, reader: RecordReader, as_json: bool, output: str | None) -> None:
    """Print or draw it. Raises as `write_picture`."""
    if as_json:
        emit(json_text(shown.values()) + "\n")
    if output is not None:
        write_picture(output, shown.figure(), reader, shown.title)
        emit("" if as_json else f"wrote {output}\n")
    elif not as_json:
        emit(shown.text(current_screen()))
    if not as_json:
        warn(shown.remarks)
