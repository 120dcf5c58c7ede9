"""Short ways to write schemes and regions, for the tests of the core."""

from __future__ import annotations

from typing import Any

from tests.unit.core.fake_acting import BASE, MIB, make_regions

from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AgeRange, Quotas, RateRange, SizeRange, Weights

ALIKE = Weights(nr_accesses_permil=0, age_permil=0)


def pattern(size: Any = None, rate: Any = None, age: Any = None) -> AccessPattern:
    def bounds(kind: type[Rate] | type[Age], pair: Any) -> Any:
        low, high = (kind.parse(text) for text in pair)
        return {Rate: RateRange, Age: AgeRange}[kind](min=low, max=high)

    return AccessPattern(
        sz_bytes=SizeRange(min=size[0], max=size[1]) if size else SizeRange(),
        nr_accesses=bounds(Rate, rate) if rate else RateRange(),
        age=bounds(Age, age) if age else AgeRange(),
    )


def row(n: int, size: int = MIB, nr: Any = 0, age: Any = 0, base: int = BASE) -> Any:
    """``n`` regions of ``size``, one behind the other."""
    return make_regions([(base + i * size, base + (i + 1) * size) for i in range(n)], nr, age)


def limited(sz: int, window_ms: int = 100, **more: Any) -> Quotas:
    return Quotas(sz_bytes=sz, reset_interval_ms=window_ms, weights=ALIKE, **more)


def places(spans: list[tuple[int, int, int]], size: int = MIB) -> list[int]:
    """Which of the regions of a row these are."""
    assert all((end - start) % size == 0 for _, start, end in spans)
    return [(start - BASE) // size + i for _, start, end in spans for i in range((end - start) // size)]
