"""What a dry run would have done, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from pydamon.engines.base import Engine
from pydamon.spec.units import format_duration_ns, format_size

if TYPE_CHECKING:  # what most runs need not
    from pydamon.ops.actions.plan import PlannedRange


def describe_plans(engine: Engine, began_ns: int, now_ns: int, *, most: int) -> Iterator[str]:
    """Lines for what the schemes would have done since the last call: bytes, quota, ranges and whose they are.

    Of one application the ``most`` largest are listed, a line for what lies together in a mapping.
    """
    at = format_duration_ns(max(now_ns - began_ns, 0))
    for plan in engine.plans():
        number, state = next(
            ((number, state) for number, state in enumerate(engine.schemes()) if state.scheme is plan.scheme),
            (None, None),
        )
        who = f"scheme {plan.scheme.name or ('?' if number is None else number)} ({plan.scheme.action})"
        count = len(plan.ranges) + plan.omitted
        quota = "no quota"
        if state is not None and state.quota.esz is not None:
            quota = f"effective quota {format_size(state.quota.esz)}"
        ranges = _ranges(count)
        yield f"{at}: {who} would act on {format_size(plan.bytes)} of target {plan.target} in {ranges}; {quota}"
        together = _by_mapping(plan.ranges)
        # The largest say most.
        shown = sorted(together, key=lambda some: -some.size)[:most]
        for some in sorted(shown, key=lambda some: some.start):
            parts = f", in {_ranges(some.count)}" if some.count > 1 else ""
            yield f"  {some.start:#x}-{some.end:#x}  {format_size(some.size):>10}  {some.owner}{parts}"
        rest = count - sum(some.count for some in shown)
        if rest:
            yield f"  and {rest:,} smaller ranges"


def describe_waiting(engine: Engine) -> Iterator[str]:
    """A line for each scheme that cannot have found anything yet: what it waits for."""
    for number, scheme in enumerate(engine.context.schemes):
        least = scheme.access_pattern.age.min
        if scheme.does.acts and least.value:
            who = f"scheme {scheme.name or number} ({scheme.action})"
            yield f"{who}: waiting for age ≥ {least}; 0 B qualify yet"


def _ranges(count: int) -> str:
    return "1 range" if count == 1 else f"{count:,} ranges"


class _Together(msgspec.Struct):
    """Ranges that lie one after the other in what is mapped from one file, or is one's."""

    start: int
    end: int
    size: int
    owner: str
    count: int = 1


def _by_mapping(ranges: Iterable[PlannedRange]) -> list[_Together]:
    """The ranges with those of the same owner joined, unless somebody else's lies in between."""
    found: list[_Together] = []
    for planned in sorted(ranges, key=lambda planned: planned.start):
        last = found[-1] if found else None
        if last is None or last.owner != planned.owner:
            found.append(_Together(planned.start, planned.end, planned.size, planned.owner))
            continue
        last.end, last.size, last.count = planned.end, last.size + planned.size, last.count + 1
    return found
