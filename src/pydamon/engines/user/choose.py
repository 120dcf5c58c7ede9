"""Which primitive this machine offers this user, and why not the others."""

from __future__ import annotations

import msgspec

from pydamon.engines.base import Choice
from pydamon.errors import MachineError
from pydamon.spec.primitives import PRIMITIVES


class Offer(msgspec.Struct, frozen=True):
    """What ``doctor`` says about one primitive: usable if ``obstacle`` is None."""

    name: str
    what: str
    obstacle: str | None


_ANSWERS = {True: "page-granular", False: "coarser, one answer per mapping"}


def offers() -> list[Offer]:
    """All primitives, best first, each probed by trying (nothing is changed on the machine)."""
    return [Offer(row.name, row.what, _obstacle(row.name)) for row in PRIMITIVES]


def choose(requested: str) -> Choice:
    """The primitive for ``requested`` (``auto`` or a name). Raises MachineError if it cannot be used here."""
    if requested != "auto":
        obstacle = _obstacle(requested)
        if obstacle is not None:
            raise MachineError(obstacle, where=f"primitive {requested}")
        return Choice(requested, "asked for")
    obstacles: dict[str, str] = {}
    for row in PRIMITIVES:
        if not row.auto:
            continue
        obstacle = _obstacle(row.name)
        if obstacle is not None:
            obstacles[row.name] = obstacle
        elif not obstacles:
            return Choice(row.name, f"{_ANSWERS[row.page_granular]} and usable here")
        else:
            best, why = next(iter(obstacles.items()))
            return Choice(row.name, f"{_ANSWERS[row.page_granular]}; {best}, which is better, cannot be used: {why}")
    reasons = "; ".join(f"{name}: {obstacle}" for name, obstacle in obstacles.items())
    raise MachineError(f"no primitive can be used; {reasons}", where="primitive auto")


def _obstacle(name: str) -> str | None:
    """Why the primitive cannot be used here; None if it can."""
    from pydamon.primitives import registry  # whoever only names a choice needs none of it

    return registry.obstacle(name)
