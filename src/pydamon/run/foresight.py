"""What would come back of what a dry run would take, from the looks at the page panel meanwhile: said at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from pydamon.analysis.refaults import foretold
from pydamon.core.panel import Look
from pydamon.spec import Scheme
from pydamon.spec.words.refaults import taken_at_s

_MOST_LOOKS, _MOST_TARGETS = 3600, 256  # of each target the last ones, and of so many targets


class Foresight:
    """Gathers the looks of a dry run, in which nothing is taken, so that all that returns is seen."""

    def __init__(self) -> None:
        self._looks: dict[int, deque[Look]] = {}

    def note(self, looks: Iterable[Look]) -> None:
        """What was seen of the page panel since the last time."""
        for look in looks:
            if look.target not in self._looks and len(self._looks) == _MOST_TARGETS:
                continue
            self._looks.setdefault(look.target, deque(maxlen=_MOST_LOOKS)).append(look)

    def lines(self, schemes: Sequence[Scheme]) -> list[str]:
        """What those of the schemes would bring back that page out; nothing where there was no panel."""
        looks = {target: list(mine) for target, mine in self._looks.items()}
        if not looks:
            return []
        found = []
        for number, scheme in enumerate(schemes):
            if taken_at_s(scheme) is not None:
                found += [f"scheme {scheme.name or number}: {line}" for line in foretold(looks, scheme)]
        return found
