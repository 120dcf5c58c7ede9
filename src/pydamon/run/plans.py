"""What a dry run would have done, in words."""

from __future__ import annotations

from collections.abc import Iterator

from pydamon.engines.base import Engine
from pydamon.spec.units import format_duration_ns, format_size


def describe_plans(engine: Engine, began_ns: int, now_ns: int, *, most: int) -> Iterator[str]:
    """Lines for what the schemes would have done since the last call: bytes, quota, ranges and whose they are.

    Of one application the ``most`` largest ranges are listed.
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
        ranges = "1 range" if count == 1 else f"{count:,} ranges"
        yield f"{at}: {who} would act on {format_size(plan.bytes)} of target {plan.target} in {ranges}; {quota}"
        # The largest say most.
        shown = sorted(plan.ranges, key=lambda planned: -planned.size)[:most]
        for planned in sorted(shown, key=lambda planned: planned.start):
            yield f"  {planned.start:#x}-{planned.end:#x}  {format_size(planned.size):>10}  {planned.owner}"
        if count > len(shown):
            yield f"  and {count - len(shown):,} smaller ranges"
