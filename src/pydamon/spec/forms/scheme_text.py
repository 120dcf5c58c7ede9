"""Schemes as lines of text: the short form, ``damo``'s one-line form, and the numbers of the kernel's debugfs file.

``damo`` (every version, until it gave the form up in 2023): ``min max 80 max 100ms max willneed``, that is minimum and
maximum of size, access frequency and age, then the action. A bare access frequency is in percent of the samples (0 to
100). Behind the action there may be quotas, weights and watermarks, which makes 9, 12, 17 or 18 words.

debugfs: ``4096 8192 0 5 10 20 2``: the same order in bytes, samples and aggregation intervals, the action as a number.
The kernel's file had 7, then 18 numbers (quotas and watermarks), and showed 23 (statistics behind them); several
schemes may follow each other on one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydamon.errors import RequestError, located
from pydamon.spec import units
from pydamon.spec.actions import ACTIONS, DEBUGFS_ACTIONS
from pydamon.spec.forms.damo_layout import LONGEST_RESET_MS, bare_number, reset_ms, size_bytes, time_in
from pydamon.spec.forms.scheme_short import guess, parse_short, shown
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AgeRange, Quotas, RateRange, Scheme, SizeRange, Watermarks, Weights
from pydamon.spec.units import U32_MAX, U64_MAX

# The kernel's debugfs numbers of watermarks' metrics.
_METRIC_NUMBERS = ("none", "free_mem_rate")
_NUMBERS = re.compile(r"[\d\s]+", re.ASCII)
_ONE_LINE = re.compile(r"(?:min|max|[\d.,]+(?:[KMGTPE]i?B?|B)?)\s+(?:min|max|[\d.,]+(?:[KMGTPE]i?B?|B)?)\s", re.I)
_MAX_LINES = 4096


@dataclass(frozen=True, slots=True)
class Line:
    """One scheme and the number of the line that it stands on (from 1)."""

    scheme: Scheme
    number: int


def looks_like_lines(text: str) -> bool:
    """Whether the first line that says anything is of one of the line forms (else it may be YAML)."""
    for _, line in _content(text):
        first, *more = line.split(None, 2)
        if _NUMBERS.fullmatch(line) or _ONE_LINE.match(line) or first in ACTIONS:
            return True
        return not (first.endswith(":") or more[:1] == [":"] or first.startswith(("-", "%", "&", "!", "?", "|", ">")))
    return False


def parse_lines(text: str, warn: Callable[[str], None]) -> list[Line]:
    """All schemes, in order; ``warn`` gets remarks on the reading. Raises RequestError with the line as ``where``."""
    found: list[Line] = []
    for number, line in _content(text):
        if number > _MAX_LINES:
            raise RequestError(f"is beyond the limit of {_MAX_LINES} lines", where=f"line {number}")
        warn_here = partial(_warn_of_line, warn, number)
        with located(f"line {number}"):
            if _NUMBERS.fullmatch(line):
                schemes = _debugfs(line.split(), warn_here)
            elif _ONE_LINE.match(line):
                schemes = [_one_line(line.split(), warn_here)]
            else:
                schemes = [parse_short(line, warn_here)]
        found += [Line(scheme, number) for scheme in schemes]
    return found


def _warn_of_line(warn: Callable[[str], None], number: int, text: str) -> None:
    warn(f"line {number}: {text}")


def _content(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, without those that are empty or comments."""
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


# -- damo's one-line form -----------------------------------------------------------------------------------------


def _one_line(words: list[str], warn: Callable[[str], None]) -> Scheme:
    for at, word in enumerate(words):
        if word.startswith("#"):
            words = words[:at]
            break
    if len(words) not in (7, 9, 12, 17, 18):
        raise RequestError(
            f"has {len(words)} words; it must have 7: MIN_SIZE MAX_SIZE MIN_FREQUENCY MAX_FREQUENCY MIN_AGE MAX_AGE "
            "ACTION (or 9, 12, 17 or 18 with quotas, weights and watermarks)"
        )
    action = words[6].lower()
    if action not in ACTIONS:
        raise RequestError(f"{shown(words[6])} is no action{guess(action, ACTIONS)}")
    rates = [_frequency(word) for word in words[2:4]]
    ages = [_age(word, warn) for word in words[4:6]]
    pattern = AccessPattern(
        sz_bytes=SizeRange(min=size_bytes(words[0]), max=size_bytes(words[1])),
        nr_accesses=RateRange(min=rates[0], max=rates[1]),
        age=AgeRange(min=ages[0], max=ages[1]),
    )
    rest = words[7:]
    time_ms = time_in("ms", rest.pop(0)) if len(words) == 18 else 0
    quotas = Quotas()
    if rest:
        sz_bytes, weights = size_bytes(rest[0]), Weights()
        reset = reset_ms(rest[1], limited=bool(time_ms or sz_bytes), warn=warn)
        if len(rest) > 2:
            size, rate, age = (units.parse_permil(word) for word in rest[2:5])
            weights = Weights(sz_permil=size, nr_accesses_permil=rate, age_permil=age)
        quotas = Quotas(time_ms=time_ms, sz_bytes=sz_bytes, reset_interval_ms=reset, weights=weights)
    watermarks = Watermarks()
    if len(rest) > 5 and rest[5].lower() != "none":
        if rest[5].lower() != "free_mem_rate":
            raise RequestError(f"{shown(rest[5])} is no metric of watermarks; there are: none, free_mem_rate")
        high, mid, low = (units.parse_permil(word) for word in rest[7:10])
        watermarks = Watermarks(
            metric="free_mem_rate",
            interval_us=time_in("us", rest[6]),
            high_permil=high,
            mid_permil=mid,
            low_permil=low,
        )
    return Scheme(action=action, access_pattern=pattern, quotas=quotas, watermarks=watermarks)  # type: ignore[arg-type]


def _frequency(word: str) -> Rate:
    return Rate.parse(f"{word}%" if bare_number(word) is not None else word)


def _age(word: str, warn: Callable[[str], None]) -> Age:
    number = bare_number(word)
    if number:
        warn(f"the age {word} has no unit and is read as microseconds, as damo does")
        return Age.parse(f"{word}us")
    return Age.parse(word)


# -- the kernel's debugfs file ------------------------------------------------------------------------------------


# 5.15; 5.16 with quotas and watermarks; with two statistics at the end, as 5.16 prints them; with five, since 5.17.
DEBUGFS_LENGTHS = (7, 18, 20, 23)


def _debugfs(words: list[str], warn: Callable[[str], None]) -> list[Scheme]:
    if any(len(word) > 20 or int(word) > U64_MAX for word in words):
        raise RequestError("has a number of more than 64 bits")
    numbers = [int(word) for word in words]
    fitting = [
        length
        for length in DEBUGFS_LENGTHS
        if len(numbers) % length == 0 and all(action < len(DEBUGFS_ACTIONS) for action in numbers[6::length])
    ]
    if not fitting:
        actions = ", ".join(f"{number} {name}" for number, name in enumerate(DEBUGFS_ACTIONS))
        nine = bool(numbers) and len(numbers) % 9 == 0
        other = "; 9 were those of 5.15 with two statistics at the end: leave these out" if nine else ""
        raise RequestError(
            f"has {len(numbers)} numbers; a scheme has 7 (or 18, 20, 23): MIN_SIZE MAX_SIZE MIN_ACCESSES MAX_ACCESSES "
            f"MIN_AGE MAX_AGE ACTION, with the actions {actions}{other}"
        )
    if len(fitting) > 1:
        raise RequestError(f"has {len(numbers)} numbers, which may be schemes of {fitting[0]} or {fitting[1]} each")
    (length,) = fitting
    schemes = [_numbers(numbers[at : at + length]) for at in range(0, len(numbers), length)]
    if any(numbers[at] == U32_MAX for at in range(1, len(numbers), length)):
        warn("4294967295 as the largest size is read as no limit (the kernel would take it as 4 GiB - 1)")
    return schemes


def _numbers(numbers: list[int]) -> Scheme:
    pattern = AccessPattern(
        sz_bytes=SizeRange(min=numbers[0], max=U64_MAX if numbers[1] == U32_MAX else numbers[1]),
        nr_accesses=RateRange(min=Rate.parse(numbers[2]), max=Rate.parse(numbers[3])),
        age=AgeRange(min=Age.parse(numbers[4]), max=Age.parse(numbers[5])),
    )
    action = DEBUGFS_ACTIONS[numbers[6]]
    if len(numbers) == 7:
        return Scheme(action=action, access_pattern=pattern)
    time_ms, sz_bytes, reset, size, rate, age, metric, interval_us, high, mid, low = numbers[7:18]
    if metric >= len(_METRIC_NUMBERS):
        raise RequestError(f"{metric} is no metric of watermarks; there are: 0 none, 1 free_mem_rate")
    quotas = Quotas(
        time_ms=time_ms,
        sz_bytes=sz_bytes,
        reset_interval_ms=min(reset, LONGEST_RESET_MS) if time_ms or sz_bytes else 1000,
        weights=Weights(sz_permil=size, nr_accesses_permil=rate, age_permil=age),
    )
    marks = Watermarks()
    if metric:
        marks = Watermarks(
            metric="free_mem_rate", interval_us=interval_us, high_permil=high, mid_permil=mid, low_permil=low
        )
    return Scheme(action=action, access_pattern=pattern, quotas=quotas, watermarks=marks)
