"""Colours of heat on a terminal: matplotlib's `inferno` (public domain, CC0), perceptually uniform."""

from __future__ import annotations

from functools import lru_cache

from pydamon.cli.render.screen import Screen
from pydamon.markup import RAMP

# The same among the 256 colours of older terminals, chosen by hand so that each is brighter than the one before.
_STOPS_256 = (17, 53, 54, 90, 126, 161, 166, 202, 208, 214, 220, 227, 229)

RESET = "\x1b[0m"
DIM = "\x1b[2m"
BOLD = "\x1b[1m"

LEVELS = 64


@lru_cache(maxsize=256)
def colour(level: int, colours: int, background: bool = False) -> str:
    """The escape sequence for heat ``level`` (0..LEVELS - 1)."""
    kind = 48 if background else 38
    if colours < 1 << 24:
        return f"\x1b[{kind};5;{_STOPS_256[round(level / (LEVELS - 1) * (len(_STOPS_256) - 1))]}m"
    at = level / (LEVELS - 1) * (len(RAMP) - 1)
    low = min(int(at), len(RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (at - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True))
    return f"\x1b[{kind};2;{red};{green};{blue}m"


def styled(text: str, style: str, screen: Screen) -> str:
    """The text in a style, where the screen has colours."""
    return f"{style}{text}{RESET}" if screen.colours and text else text
