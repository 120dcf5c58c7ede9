"""Quantities as people write them, and as exact integers.

Accepted forms are those of the field's tools: ``5ms``, ``2 MiB``, ``4K``, ``1,000``, ``50%``, ``max``. Sizes are binary
(K = KiB = 1024). Conversions are exact: a value that is no whole number of the unit it is stored in is refused rather
than rounded.
"""

from __future__ import annotations

import re
from fractions import Fraction

from pydamon.errors import RequestError

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1

_NUMBER = re.compile(r"\s*([0-9][0-9,_]*(?:\.[0-9]+)?)\s*([A-Za-zµ%]*)\s*", re.ASCII)

_TIME_NS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "usec": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "msec": 1_000_000,
    "s": 1_000_000_000,
    "sec": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_SIZE: dict[str, int] = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", start=1):
    for _suffix in ("", "b", "ib"):
        _SIZE[_letter + _suffix] = 1024**_power


def _split(text: str, what: str, example: str) -> tuple[Fraction, str]:
    match = _NUMBER.fullmatch(text.replace("µ", "u")) if len(text) <= 64 else None
    if match is None:
        raise RequestError(f"{text[:40]!r} is not a {what}; write it like {example}")
    return Fraction(match[1].replace(",", "").replace("_", "")), match[2].lower()


def _exact(value: Fraction, text: str, unit: str, limit: int) -> int:
    if value.denominator != 1:
        raise RequestError(f"{text!r} is not a whole number of {unit}")
    if value > limit:
        raise RequestError(f"{text!r} is too large; the most is {limit} {unit}")
    return int(value)


def _time(text: str, unit_ns: int, unit: str) -> int:
    number, suffix = _split(text, "time", "5ms, 1.5s or 2min")
    if suffix not in _TIME_NS:
        if suffix == "" and number == 0:
            return 0
        problem = f"{text!r} has no unit" if not suffix else f"{text!r}: there is no unit of time {suffix!r}"
        raise RequestError(f"{problem}; write it like 5ms, 1.5s or 2min")
    return _exact(number * _TIME_NS[suffix] / unit_ns, text, unit, U64_MAX)


def parse_time_us(text: str) -> int:
    """Microseconds in e.g. ``5ms``, ``0.5 s``, ``2min``; a bare number has no unit and is refused (0 is fine)."""
    return _time(text, 1_000, "microseconds")


def parse_time_ns(text: str) -> int:
    """Nanoseconds in e.g. ``30s``; a bare number is refused (0 is fine)."""
    return _time(text, 1, "nanoseconds")


def parse_time_ms(text: str) -> int:
    """Milliseconds in e.g. ``10ms``, ``1 s``; a bare number is refused (0 is fine)."""
    return _time(text, 1_000_000, "milliseconds")


def parse_size(text: str) -> int:
    """Bytes in e.g. ``4K``, ``2 MiB``, ``1,048,576``, ``max`` (2**64-1); units are powers of 1024."""
    if text.strip().lower() == "max":
        return U64_MAX
    number, suffix = _split(text, "size", "4096, 4K or 2MiB")
    if suffix not in _SIZE:
        raise RequestError(f"{text!r}: there is no unit of size {suffix!r}; write it like 4096, 4K or 2MiB")
    return _exact(number * _SIZE[suffix], text, "bytes", U64_MAX)


def parse_rounded_size(text: str) -> int:
    """Bytes in what another program has rounded, such as ``1.465 GiB``: to the nearest whole byte."""
    number, suffix = _split(text, "size", "4096, 4K or 2MiB")
    if suffix not in _SIZE:
        raise RequestError(f"{text!r}: there is no unit of size {suffix!r}; write it like 4096, 4K or 2MiB")
    return round(number * _SIZE[suffix])


def parse_count(text: str) -> int:
    """A whole number, with or without thousands separators."""
    number, suffix = _split(text, "number", "1000")
    if suffix:
        raise RequestError(f"{text!r} is a plain number and takes no unit")
    return _exact(number, text, "", U64_MAX)


def parse_permyriad(text: str) -> int:
    """1/10,000 in e.g. ``4%``, ``0.5 %``; a bare number is in 1/10,000 already (the unit of the key)."""
    number, suffix = _split(text, "share", "4%")
    if suffix not in ("", "%"):
        raise RequestError(f"{text!r}: there is no unit of a share {suffix!r}; write it like 4%")
    return _exact(number * 100 if suffix else number, text, "1/10000", U64_MAX)


def exact_bp(value: int) -> str:
    """1/10,000 as percent."""
    return f"{value // 100}" + (f".{value % 100:02d}".rstrip("0") if value % 100 else "") + "%"


def parse_permil(text: str) -> int:
    """1/1000 in e.g. ``50%``, ``0.5 %``; a bare number is in 1/1000 already (the unit of the key)."""
    number, suffix = _split(text, "share", "50%")
    if suffix not in ("", "%"):
        raise RequestError(f"{text!r}: there is no unit of a share {suffix!r}; write it like 50%")
    return _exact(number * 10 if suffix else number, text, "1/1000", U64_MAX)


def parse_metric(text: str) -> int:
    """A goal's value: ``99.7%`` in 1/10,000, ``10ms`` in microseconds, ``512MiB`` in bytes, or a plain number."""
    number, suffix = _split(text, "value of a metric", "99.7%, 10ms or 10000")
    if suffix.lower().endswith("b"):
        return parse_size(text)
    if suffix == "%":
        return _exact(number * 100, text, "1/10000", U64_MAX)
    if suffix:
        return parse_time_us(text)
    return _exact(number, text, "", U64_MAX)


def parse_share(text: str) -> Fraction:
    """A share like ``1%`` or ``0.5 %`` as an exact fraction; a bare number is refused."""
    number, suffix = _split(text, "share", "1%")
    if suffix != "%":
        raise RequestError(f"{text!r} has no percent sign; write it like 1%")
    return number / 100


def parse_address(text: str) -> int:
    """An address: ``0x…`` or ``…`` hexadecimal with the prefix, else decimal bytes (a unit is allowed)."""
    stripped = text.strip().lower()
    if stripped.startswith("0x"):
        try:
            value = int(stripped, 16)
        except ValueError:
            raise RequestError(f"{text[:40]!r} is not an address; write it like 0x7f0000000000") from None
        if value > U64_MAX:
            raise RequestError(f"{text[:40]!r} is beyond 64 bits")
        return value
    return parse_size(text)


def format_size(size_bytes: int) -> str:
    """A size for people, to at most four digits: ``512 B``, ``4.0 KiB``, ``1.5 GiB``."""
    if size_bytes >= U64_MAX:
        return "max"
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        # 1023.95 would print as "1024.0": go to the next unit there.
        if abs(value) < 1023.95 or unit == "EiB":
            return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_percent(percent: float) -> str:
    """A percentage for people, to a whole one but near the ends: what is not 0 is not printed as 0, nor less as 100."""
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 99.95 else f"{percent:.0f} %"


def format_duration_ns(duration_ns: int) -> str:
    """A duration for people: ``0 s``, ``350 us``, ``5 ms``, ``1.5 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 2 h``."""
    if duration_ns < 0:
        return "-" + format_duration_ns(-duration_ns)
    for unit, unit_ns in (("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)):
        limit = 60_000_000_000 if unit == "s" else unit_ns * 1000
        # A value that would be rounded up to the limit belongs to the next unit.
        if 0 < duration_ns < limit - limit // 20000:
            return f"{_three_digits(duration_ns / unit_ns)} {unit}"
    seconds = (duration_ns + 500_000_000) // 1_000_000_000
    if seconds == 0:
        return "0 s"
    for big, small, big_s, small_s in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= big_s:
            rest = seconds % big_s // small_s
            return f"{seconds // big_s} {big}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"


def _three_digits(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
