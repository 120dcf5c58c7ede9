"""Access rates and ages as schemes describe them: in the user's unit, until the intervals are known.

``5 %`` of the samples, ``3 Hz`` or ``4`` samples; ``30 s`` or ``10 aggrs``. Auto-tuned intervals may change while a
scheme runs, so the conversion to samples and aggregations is done when it is needed, never stored.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from pydamon.errors import RequestError
from pydamon.spec import units

U32_MAX = units.U32_MAX
_LONGEST = 64  # characters


class _Quantity:
    """A non-negative number with a unit; equal if both are. ``value`` is None for ``max``: no upper limit."""

    __slots__ = ("unit", "value")

    unit: str
    value: Fraction | None

    def __init__(self, value: Fraction | int | None, unit: str) -> None:
        self.value = None if value is None else Fraction(value)
        self.unit = unit

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (self.value, self.unit) == (other.value, other.unit)

    def __hash__(self) -> int:
        return hash((self.value, self.unit))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        if self.value is None:
            return "max"
        number = str(self.value.numerator) if self.value.denominator == 1 else _decimal(self.value)
        return f"{number} {self.unit}".rstrip()

    def _in_steps(self, per_unit: dict[str, Fraction], limit: int, *, upper: bool) -> int:
        if self.value is None:
            return limit
        exact = self.value * per_unit[self.unit]
        return min(math.floor(exact) if upper else math.ceil(exact), limit)


class Rate(_Quantity):
    """An access rate; ``unit`` is ``samples`` (accesses per aggregation), ``%`` of the samples, or ``Hz``."""

    @classmethod
    def parse(cls, text: str | int) -> Rate:
        """``5``, ``5 samples``, ``5%``, ``2 Hz``, ``max``; raises RequestError."""
        value, unit = _parsed(text, "access rate", "5%, 3Hz or 4 (samples)")
        if value is None:
            return cls(None, "samples")
        unit = {"": "samples", "samples": "samples", "sample": "samples", "%": "%", "hz": "Hz", "/s": "Hz"}.get(
            unit, ""
        )
        if not unit:
            raise RequestError(f"{text!r}: there is no such unit of an access rate; write it like 5%, 3Hz or 4")
        if unit == "%" and value > 100:
            raise RequestError(f"{text!r} is more than 100%; every sample finding an access is 100%")
        return cls(value, unit)

    def to_samples(self, window: int, aggr_us: int, *, upper: bool) -> int:
        """Accesses per aggregation of ``window`` samples and ``aggr_us``: rounded up as a lower bound, down as an
        ``upper`` one, so that whatever lies in between in samples does so in the user's unit, too."""
        per_unit = {"samples": Fraction(1), "%": Fraction(window, 100), "Hz": Fraction(aggr_us, 1_000_000)}
        return self._in_steps(per_unit, U32_MAX, upper=upper)


class Age(_Quantity):
    """For how long an access rate has been about the same; ``unit`` is ``aggrs`` or ``us``."""

    @classmethod
    def parse(cls, text: str | int) -> Age:
        """``30s``, ``3 aggrs``, ``3`` (aggregations), ``max``; raises RequestError."""
        value, unit = _parsed(text, "age", "30s, 5min or 3 (aggregations)")
        if value is None:
            return cls(None, "aggrs")
        if unit in ("", "aggr", "aggrs", "aggr_intervals"):
            return cls(value, "aggrs")
        return cls(Fraction(units.parse_time_ns(str(text)), 1000), "us")

    def __str__(self) -> str:
        if self.unit != "us" or self.value is None:
            return super().__str__()
        for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            if self.value and self.value % (size * 1_000_000) == 0:
                return f"{self.value // (size * 1_000_000)} {unit}"
        return super().__str__()

    def to_aggregations(self, aggr_us: int, *, upper: bool) -> int:
        """Aggregations of ``aggr_us``; rounded as in `Rate.to_samples`."""
        return self._in_steps({"aggrs": Fraction(1), "us": Fraction(1, aggr_us)}, U32_MAX, upper=upper)


def _parsed(text: str | int, what: str, example: str) -> tuple[Fraction | None, str]:
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise RequestError(f"{repr(text)[:40]} is not an {what}; write it like {example}")
    if isinstance(text, int):
        if text < 0:
            raise RequestError("must not be below 0")
        # What tools that know only numbers write for "no limit".
        return (None if text >= U32_MAX else Fraction(text)), ""
    if len(text) > _LONGEST:
        raise RequestError(f"{text[:40]!r}… is too long for an {what}")
    stripped = text.strip().lower()
    if stripped == "max":
        return None, ""
    if stripped == "min":
        return Fraction(0), ""
    unit = stripped.lstrip("0123456789,._ ")
    number = stripped[: len(stripped) - len(unit)].strip() if unit else stripped
    try:
        value = Fraction(number.replace(",", "").replace("_", ""))
    except (ValueError, ZeroDivisionError):
        raise RequestError(f"{text[:40]!r} is not an {what}; write it like {example}") from None
    if not unit and value >= U32_MAX:
        return None, ""
    return value, unit


def _decimal(value: Fraction) -> str:
    """As many digits as the value has; it came from a decimal number, so they are finite."""
    for digits in range(1, _LONGEST):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            return f"{scaled.numerator // 10**digits}.{scaled.numerator % 10**digits:0{digits}d}"
    return f"{float(value):.9f}"


def encode(value: Any) -> str:
    """A hook for msgspec: quantities become the text that they are parsed from."""
    if isinstance(value, _Quantity):
        return str(value)
    raise NotImplementedError(f"cannot encode {type(value)}")


def decode(wanted: type, value: Any) -> Any:
    """A hook for msgspec: the opposite of `encode`."""
    if isinstance(value, wanted):
        return value
    if wanted is Rate:
        return Rate.parse(value)
    if wanted is Age:
        return Age.parse(value)
    raise NotImplementedError(f"cannot decode {wanted}")
