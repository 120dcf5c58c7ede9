"""What a setting may cost at most: limits as people write them, and what a policy costs by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydamon.analysis.search.screen import Burden
from pydamon.analysis.whatif.costs import lost
from pydamon.errors import RequestError
from pydamon.spec.costs import Costs
from pydamon.spec.forms.scheme_short import guess, shown
from pydamon.spec.units import parse_share, parse_size

Kind = Literal["slowdown", "slowdown-ssd", "refaults", "refault-bytes"]
NAMES = ("slowdown", "slowdown-ssd", "refaults")
_EXAMPLE = "write it like slowdown=2%, slowdown-ssd=5%, refaults=0.2%/min or refaults=1MiB/s"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``value``: a share of the time that is lost (swap on zram, or an SSD), a share of the working set that
    comes back in a minute, or bytes that come back in a second. ``text`` is as it was written."""

    kind: Kind
    value: float
    text: str


def parse_limit(text: str) -> Limit:
    """A limit like ``slowdown=2%``. Raises RequestError."""
    name, equals, value = text.strip().partition("=")
    if name not in NAMES:
        raise RequestError(f"{shown(name)} is no limit{guess(name, NAMES)}; {_EXAMPLE}")
    if not equals or not value:
        raise RequestError(f"{name} needs a value; {_EXAMPLE}")
    if name == "refaults" and value.endswith("/s"):
        size = parse_size(value.removesuffix("/s"))
        if not size:
            raise RequestError(f"{text}: must be above 0")
        return Limit("refault-bytes", float(size), f"{name}={value}")
    if name == "refaults" and not value.endswith("/min"):
        raise RequestError(f"{shown(value)} is no rate; write it like refaults=0.2%/min or refaults=1MiB/s")
    share = float(parse_share(value.removesuffix("/min") if name == "refaults" else value))
    if not 0 < share <= 1:
        raise RequestError(f"{text}: must be above 0% and at most 100%")
    return Limit("refaults" if name == "refaults" else "slowdown-ssd" if "ssd" in name else "slowdown", share, text)


@dataclass(frozen=True, slots=True)
class Judge:
    """What policies cost by ``limits`` (at least one; the first is the one that a frontier is drawn by)."""

    limits: tuple[Limit, ...]
    costs: Costs
    working_set: float

    def cost(self, limit: Limit, burden: Burden) -> float:
        """In the unit of the limit."""
        if limit.kind == "refault-bytes":
            return burden.back / 60
        if limit.kind == "refaults":
            return burden.back / self.working_set if self.working_set else 0.0
        return lost(self.costs, "ssd" if limit.kind == "slowdown-ssd" else "zram", burden.back / 60, burden.out / 60)

    def first(self, burden: Burden) -> float:
        """By the first limit."""
        return self.cost(self.limits[0], burden)

    def excess(self, burden: Burden) -> float:
        """How many times the limit it costs, of the limit that it is nearest to or farthest beyond; 1: just within."""
        return max(self.cost(limit, burden) / limit.value for limit in self.limits)

    def fits(self, burden: Burden) -> bool:
        """Whether it keeps within all of them."""
        return self.excess(burden) <= 1


def tightest(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """Of each kind the lowest, in their order."""
    kinds = dict.fromkeys(limit.kind for limit in limits)
    return tuple(min((one for one in limits if one.kind == kind), key=lambda one: one.value) for kind in kinds)
