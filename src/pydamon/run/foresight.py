"""What would come back of what a dry run would take, from the looks at the page panel meanwhile: said at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from pydamon.analysis.refaults import foretold
from pydamon.core.panel import Look
from pydamon.spec import Scheme
from pydamon.spec.words.refaults import taken_at_s

_MOST_LOOKS = 8192  # the last ones, of all targets together: some 20 MB


class Foresight:
    """Gathers the looks of a dry run, in which nothing is taken, so that all that returns is seen."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=_MOST_LOOKS)

    def note(self, looks: Iterable[Look]) -> None:
        """What was seen of the page panel since the last time."""
        self._looks.extend(looks)

    def lines(self, schemes: Sequence[Scheme]) -> list[str]:
        """What those of the schemes would bring back that page out; nothing where there was no panel."""
        looks: dict[int, list[Look]] = {}
        for look in self._looks:
            looks.setdefault(look.target, []).append(look)
        if not looks:
            return []
        found = []
        for number, scheme in enumerate(schemes):
            if taken_at_s(scheme) is not None:
                found += [f"scheme {scheme.name or number}: {line}" for line in foretold(looks, scheme)]
        return found
