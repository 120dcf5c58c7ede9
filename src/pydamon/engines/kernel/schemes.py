"""The schemes of a kernel kdamond, as far as the kernel tells about them."""

from __future__ import annotations

from pydamon.core.scheme_state import SchemeState, SchemeStats, Tried, user_goals
from pydamon.spec import Scheme


class KernelSchemes:
    """The state of each scheme, in the kernel's order.

    Before Linux 7.0 it does not count snapshots: ``nr_snapshots`` is then how often we have looked.
    """

    def __init__(self, schemes: tuple[Scheme, ...]) -> None:
        self.states: list[SchemeState] = []
        self.replace(schemes)

    def replace(self, schemes: tuple[Scheme, ...]) -> None:
        """These are the schemes now; one that keeps its place keeps its statistics, as in the kernel."""
        before = self.states
        states = []
        for number, scheme in enumerate(schemes):
            if number < len(before) and before[number].scheme.action == scheme.action:
                before[number].change(scheme)
                states.append(before[number])
            else:
                states.append(SchemeState(scheme))
            states[-1].watermarks.activated = True  # the kernel does not tell
        self.states = states

    def set_goal(self, name: str, value: int) -> list[tuple[int, int]]:
        """Note the value of ``user_input`` goals; the numbers of scheme and goal of each. Raises RequestError."""
        meant = user_goals(self.states, name, value)
        for _, _, goal in meant:
            goal.current_value = value
        return [(scheme, number) for scheme, number, _ in meant]

    def note(self, number: int, stats: SchemeStats, esz: int | None, tried: list[Tried] | None) -> None:
        """What was read of a scheme."""
        if number >= len(self.states):
            return
        state = self.states[number]
        stats.nr_snapshots = stats.nr_snapshots or state.stats.nr_snapshots + (tried is not None)
        state.stats, state.passes = stats, stats.nr_snapshots
        state.quota.esz = esz
        if tried is not None:
            state.tried = tried
