"""Ticks and labels for axes of time and of addresses."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.spec.units import format_size

_S = 1_000_000_000
_MIN, _H, _D = 60 * _S, 3600 * _S, 86400 * _S
_TIME_STEPS: tuple[int, ...] = (
    *(digit * unit for unit in (1, 10, 100, 1_000, 10_000, 100_000, 10**6, 10**7, 10**8) for digit in (1, 2, 5)),
    _S, 2 * _S, 5 * _S, 10 * _S, 15 * _S, 30 * _S,
    _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 30 * _MIN,
    _H, 2 * _H, 3 * _H, 6 * _H, 12 * _H,
    _D, 2 * _D, 5 * _D, 10 * _D, 20 * _D, 50 * _D, 100 * _D,
)  # fmt: skip


def time_step(span_ns: int, most: int) -> int:
    """A round step in ns that gives at most ``most`` steps over the span."""
    for step in _TIME_STEPS:
        if step * max(most, 1) >= span_ns:
            return step
    return max(span_ns // max(most, 1), 1)


def time_unit(span_ns: int) -> tuple[str, int]:
    """(name, ns) of the unit in which to label a span."""
    for name, unit in (("d", _D), ("h", _H), ("min", _MIN), ("s", _S), ("ms", 1_000_000), ("us", 1_000)):
        # Up to a few minutes read better in seconds, and so on.
        if span_ns >= (2 if name in ("d", "h") else 5 if name == "min" else 1) * unit:
            return name, unit
    return "ns", 1


def time_ticks(span_ns: int, most: int, first_ns: int = 0) -> tuple[list[tuple[int, str]], str]:
    """(ticks as (ns, number), unit): at most ``most + 1`` round times from ``first_ns`` on over the span."""
    step = time_step(span_ns, most)
    name, unit = time_unit(span_ns)
    begin = -(-first_ns // step) * step
    return [(at, f"{at / unit:.9g}") for at in range(begin, first_ns + span_ns + 1, step)], name


def size_step(span: int, most: int) -> int:
    """A round step in bytes (at least a page) that gives at most ``most`` steps over the span.

    Below a mebibyte a power of two, as pages come in; above, what people count in: 1, 2, 5, 10, … MiB.
    """
    least = -(-span // max(most, 1))
    for step in (1 << power for power in range(12, 20)):
        if step >= least:
            return step
    for unit in (1 << 20, 1 << 30, 1 << 40, 1 << 50, 1 << 60):
        for digits in (1, 2, 5, 10, 20, 50, 100, 200, 500):
            if digits * unit >= least:
                return digits * unit
    return least


def short_size(size: int) -> str:
    """A size in few characters: ``64M``, ``1.5G``; exact for powers of two."""
    text = format_size(size).replace("iB", "").replace(" ", "")
    return text.replace(".0", "")


def nice_ceiling(value: float) -> float:
    """The top of a colour scale for values up to ``value`` (0..1), rounded up to two digits; 1 if there are none."""
    if value >= 1 or value <= 0:
        return 1.0
    digits = 1
    while value < 10.0 ** (-digits):
        digits += 1
    scale = 10.0 ** (digits + 1)
    top = -(-float(f"{value * scale:.9g}") // 1) / scale
    return float(f"{top:.6g}")


@dataclass(frozen=True, slots=True)
class Scale:
    """The heat (0..1) that the hottest colour stands for; ``cut``: whether some is hotter, and looks like that."""

    top: float
    cut: bool = False

    def words(self) -> str:
        """``0 to 62 %``; ``0 to 40 % and more``."""
        return f"0 to {percent(self.top)}" + (" and more" if self.cut else "")

    def ticks(self) -> list[float]:
        """Round numbers from 0 to below the top, and the top."""
        step = next(
            digit * 10.0**power
            for power in range(-9, 1)
            for digit in (1, 2, 2.5, 5)
            if digit * 10.0**power * 5 >= self.top
        )
        inner = [step * number for number in range(6) if step * number < self.top - step / 2.5]
        return [*inner, self.top]


def scale_of(hottest: float, wanted: float | None) -> Scale:
    """The scale for heat up to ``hottest``: as ``wanted``, or just so much that all of it fits."""
    if wanted is None:
        return Scale(nice_ceiling(hottest))
    return Scale(wanted, hottest > wanted)


def percent(value: float) -> str:
    """A share (0..1) as percent to a useful precision: ``0 %``, ``0.03 %``, ``1.5 %``, ``42 %``, ``100 %``."""
    number = value * 100
    if number == 0 or number >= 10:
        if 99.5 <= number < 100:
            # Not quite everything is not 100 %.
            return f"{number:.1f} %" if number < 99.95 else ">99.9 %"
        return f"{number:.0f} %"
    if number < 0.01:
        return "<0.01 %"
    return f"{number:.2g} %" if number < 1 else f"{number:.1f} %"


def tenth_percent(value: float) -> str:
    """A share (0..1) in percent with one digit behind the point, for columns; what is not nothing is not 0.0 %."""
    return "< 0.1 %" if 0 < value < 0.0005 else f"{value * 100:.1f} %"
