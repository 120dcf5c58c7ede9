"""What is searched: the notation of a module or a scheme in which ``LOW..HIGH`` or ``A|B`` stands for some of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from pydamon.analysis.whatif.playable import always_active, of_module
from pydamon.core.panel import BOUNDS_S
from pydamon.errors import RequestError, located
from pydamon.modules.registry import MODULES
from pydamon.spec import Scheme, units
from pydamon.spec.actions import ACTIONS
from pydamon.spec.forms.scheme_short import exact_time_us, guess, parse_short, shown
from pydamon.spec.schemes import validate_schemes

Kind = Literal["time", "size", "share", "count", "choice"]
Point = tuple[int, ...]  # a value of each knob: us, bytes, 1/10,000, a number; of a choice, which of them

MOST_KNOBS, MOST_VALUES = 6, 64
_FEW = 8
_EXAMPLE = "write it like 'reclaim min_age=5s..5min quota=16M..1G'"
_NUMBER = r"\d[\d,_]*(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})([A-Za-zµ%]*)\.\.({_NUMBER})([A-Za-zµ%]*)", re.ASCII)
_PATTERN = re.compile(r"(?:size|rate|age)=")  # a range behind it is one of regions, in a scheme
_SIZE_UNIT = re.compile(r"[KMGTPE]?(?:i?B)?", re.ASCII | re.IGNORECASE)
_TIMES = frozenset({"ns", "us", "usec", "µs", "ms", "msec", "s", "sec", "min", "h", "d"})
_PARSERS: dict[Kind, Callable[[str], int]] = {
    "time": units.parse_time_us,
    "size": units.parse_size,
    "share": units.parse_permyriad,
    "count": units.parse_count,
}
_LONGEST = 4096
_PAGE = 4096
_TENTHS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)  # of a decade


@dataclass(frozen=True, slots=True)
class Knob:
    """What is looked for between ``low`` and ``high`` (see `Point`), or among ``choices``; ``name`` is as written."""

    name: str
    kind: Kind
    low: int
    high: int
    choices: tuple[str, ...] = ()

    def write(self, value: int) -> str:
        """As it stands in the notation."""
        if self.kind == "choice":
            return self.choices[value]
        if self.kind == "time":
            return exact_time_us(value)
        if self.kind == "size":
            return _exact_size(value)
        return units.exact_bp(value) if self.kind == "share" else str(value)

    def values(self) -> list[int]:
        """At most `MOST_VALUES` from low to high, evenly by their logarithm, and round; all choices."""
        if self.kind == "choice":
            return list(range(len(self.choices)))
        round_ones = {one for one in _round_numbers(self.kind, self.high) if self.low < one < self.high}
        if len(round_ones) < _FEW:
            round_ones |= {self._between(step / _FEW) for step in range(1, _FEW)}
        inner = sorted(one for one in round_ones if self.low < one < self.high)
        most = MOST_VALUES - 2
        step = -(-len(inner) // most) if inner else 1
        return [self.low, *inner[::step], self.high]

    def nearest(self, text: str) -> int | None:
        """The value that a text stands for; None if it is none between low and high."""
        if self.kind == "choice":
            return self.choices.index(text) if text in self.choices else None
        try:
            value = _PARSERS[self.kind](text)
        except RequestError:
            return None
        return value if self.low <= value <= self.high else None

    def scaled(self, value: int, times: Fraction) -> int:
        """So many times as much, in whole pages, ms or what it is counted in."""
        step = _PAGE if self.kind == "size" else 1000 if self.kind == "time" and value >= 2000 else 1
        return max(round(value * times / step) * step, 1)

    def _between(self, share: float) -> int:
        return self._rounded(self.low * (self.high / self.low) ** share)

    def _rounded(self, value: float) -> int:
        step = 1.0
        if self.kind == "size":
            step = _PAGE if value < 1 << 20 else 1 << 20
        elif self.kind == "time" and value >= 1000:
            step = 1000.0 if value < 1e5 else 10.0 ** max(math.floor(math.log10(value)) - 1, 3)
        return max(round(round(value / step) * step), 1)


@dataclass(frozen=True, slots=True)
class Space:
    """All policies that a text stands for: ``pieces`` of it, text and the places of ``knobs`` by turns.

    ``module`` is the name of the module, empty where it is a scheme. ``usual`` is the text without the knobs that are
    looked for: a module's defaults.
    """

    source: str
    module: str
    pieces: tuple[str | int, ...]
    knobs: tuple[Knob, ...]
    usual: str

    def text(self, point: Point) -> str:
        """A policy as it is written."""
        return "".join(one if isinstance(one, str) else self.knobs[one].write(point[one]) for one in self.pieces)

    def schemes(self, point: Point) -> tuple[Scheme, ...]:
        """Its schemes. Raises RequestError for values that cannot be."""
        return schemes_of(self.text(point), self.module)

    @property
    def lowest(self) -> Point:
        """All knobs at their lowest."""
        return tuple(knob.low for knob in self.knobs)


def schemes_of(text: str, module: str) -> tuple[Scheme, ...]:
    """The schemes of a module or a scheme as text, always active: how much memory is free no recording tells.

    Raises RequestError for what cannot be, or is a loop beside schemes.
    """
    found = of_module(text) if module else (parse_short(text),)
    validate_schemes(found, ops="sim", nr_targets=1)
    return tuple(map(always_active, found))


def parse_space(text: str) -> Space:
    """What ``reclaim min_age=5s..5min quota=16M..1G`` stands for, or ``pageout rate=0% age>=5s..5min``.

    Raises RequestError that names the word: for an unknown knob, an empty range, an end that the knob cannot have.
    """
    if len(text) > _LONGEST:
        raise RequestError(f"is longer than {_LONGEST} characters")
    first = (text.split() or [""])[0]
    if first not in MODULES and first not in ACTIONS:
        raise RequestError(f"{shown(first)} is no module and no action{guess(first, MODULES)}; {_EXAMPLE}")
    pieces: list[str | int] = []
    knobs: list[Knob] = []
    usual = []
    for word in re.findall(r"\S+|\s+", text.strip()):
        before = len(knobs)
        with located(_name(word)):
            pieces += _pieces(word, first in MODULES, knobs)
        if len(knobs) == before:
            usual.append(word)
    if not knobs:
        raise RequestError(f"{shown(text)} has nothing to search for: no LOW..HIGH and no A|B; {_EXAMPLE}")
    if len(knobs) > MOST_KNOBS:
        raise RequestError(f"has {len(knobs)} knobs to search for; the most is {MOST_KNOBS}")
    space = Space(
        text, first if first in MODULES else "", tuple(pieces), tuple(knobs), " ".join("".join(usual).split())
    )
    _check(space)
    return space


def _check(space: Space) -> None:
    """Raise RequestError for an end, or a choice, that a knob cannot have, and for a knob that changes nothing."""
    lowest = space.lowest
    first = space.schemes(lowest)
    for at, knob in enumerate(space.knobs):
        others = [knob.high] if knob.kind != "choice" else range(1, len(knob.choices))
        for value in others:
            if space.schemes((*lowest[:at], value, *lowest[at + 1 :])) == first:
                text = f"{knob.write(value)} makes the same schemes as {knob.write(lowest[at])} on a recording"
                raise RequestError(f"{text}: there is nothing to search for", where=knob.name)


def _pieces(word: str, is_module: bool, knobs: list[Knob]) -> list[str | int]:
    """A word as text and places of knobs, which are added."""
    key, equals, value = word.partition("=")
    if not is_module and (_PATTERN.match(word) or key in ("filter", "goal")):
        return [word]
    if equals and "|" in value:
        choices = tuple(value.split("|"))
        if _RANGE.search(value):
            raise RequestError("has a range among its choices; give one or the other")
        if "" in choices or len(set(choices)) < len(choices):
            raise RequestError("has an empty choice, or one twice; write it like A|B")
        knobs.append(Knob(_name(word), "choice", 0, len(choices) - 1, choices))
        return [f"{key}=", len(knobs) - 1]
    found: list[str | int] = []
    end = 0
    matches = list(_RANGE.finditer(word))
    for match in matches:
        knob = _knob(_name(word), *match.groups())
        if word[: match.start()].endswith("/"):
            knob = replace(knob, name=f"{knob.name} window")
        elif len(matches) > 1:
            knob = replace(knob, name=f"{knob.name} {knob.kind}")
        found += [word[end : match.start()], len(knobs)]
        knobs.append(knob)
        end = match.end()
    if ".." in word[end:]:
        raise RequestError(f"{shown(word)}: a range is LOW..HIGH, like 5s..5min")
    return [*found, word[end:]]


def _knob(name: str, low: str, low_unit: str, high: str, high_unit: str) -> Knob:
    low_text, high_text = low + (low_unit or high_unit), high + (high_unit or low_unit)
    kind = _kind(low_unit or high_unit)
    if _kind(high_unit or low_unit) != kind:
        raise RequestError(f"{low_text}..{high_text}: both ends must be times, or sizes, or shares")
    least, most = _PARSERS[kind](low_text), _PARSERS[kind](high_text)
    if not least:
        raise RequestError(f"{low_text}..{high_text}: LOW must be above 0")
    if most <= least:
        raise RequestError(f"{low_text}..{high_text} is empty: {high_text} is not above {low_text}")
    return Knob(name, kind, least, most)


def _kind(unit: str) -> Kind:
    if unit == "m":
        raise RequestError("a unit of m may be minutes or MiB; write min or M")
    if unit in _TIMES:
        return "time"
    if unit in ("", "%"):
        return "share" if unit else "count"
    if not _SIZE_UNIT.fullmatch(unit):
        raise RequestError(f"there is no unit {unit!r}; write it like 5s..5min, 16M..1G or 1%..10%")
    return "size"


def _name(word: str) -> str:
    return re.split(r"[<>=]", word, maxsplit=1)[0]


def _round_numbers(kind: Kind, high: int) -> list[int]:
    """Round numbers up to ``high``: of times the idle times that a what-if tells of, from a second on."""
    if kind == "size":
        return [quarter << power for power in range(10, 62) for quarter in (4, 5, 6, 7) if quarter << power < high]
    powers = range(len(str(high)))
    decades = [tenths * 10**power // 10 for power in powers for tenths in _TENTHS if tenths * 10**power % 10 == 0]
    if kind == "time":
        day = BOUNDS_S[-1] * 1_000_000
        return [one for one in decades if one < 1_000_000 or one > day] + [one * 1_000_000 for one in BOUNDS_S[1:]]
    return decades


def _exact_size(value: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value % (1 << power) == 0:
            return f"{value >> power}{unit}"
    return f"{value}B"
