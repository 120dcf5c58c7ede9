"""The ways in which what was found is shown: text, JSON or a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydamon.cli.render.axes import percent
from pydamon.cli.render.picture import write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit, warn
from pydamon.plain import json_text
from pydamon.spec.units import format_duration_ns, format_size

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


# -- words --------------------------------------------------------------------------------------------------------


def age_words(age_s: float) -> str:
    """A time in s for people."""
    return format_duration_ns(round(age_s * 1e9))


def size_words(size: float) -> str:
    """Bytes for people."""
    return format_size(round(size))


def acted_line(acted: list[str]) -> str:
    """What to say of a record that these actions took effect in."""
    return (
        f"schemes acted while it was recorded ({', '.join(acted)}): ages of what they took are of their making; "
        "record without schemes, or with a dry run"
    )


def thrash_line(name: str, share: float, goal: float) -> str:
    """What to say of a policy that brings back more than ``goal`` of the working set a minute."""
    return f"{name} would thrash: {percent(share)} of the working set comes back a minute, more than {percent(goal)}"
