"""How much of its memory's bandwidth the machine uses: what resctrl counts, of what the firmware (HMAT) promises."""

from __future__ import annotations

from pathlib import Path

from pydamon.errors import MachineError
from pydamon.linux import resctrl, tiers

_MB = 1_000_000


class Bandwidth:
    """Looks at the counters of all groups. Raises MachineError where nothing counts, or nothing is promised.

    ``mount`` of resctrl and the ``promised`` bytes per second are for tests.
    """

    def __init__(self, mount: Path | None = None, promised: int | None = None) -> None:
        self._mount = resctrl.probe() if mount is None else mount
        self._promised = _promised() if promised is None else promised
        self._before: dict[tuple[str, int], int] = {}
        self._at_ns: int | None = None

    def permil(self, now_ns: int) -> int | None:
        """The share since the last look, in 1/1000; None at the first one, or if nothing was counted.

        A counter that started over counts nothing this once.
        """
        counted = self._counted()
        grown = sum(max(value - self._before[key], 0) for key, value in counted.items() if key in self._before)
        known = any(key in self._before for key in counted)
        before_ns, self._at_ns, self._before = self._at_ns, now_ns, counted
        if before_ns is None or now_ns <= before_ns or not known:
            return None
        return min(grown * 1_000_000_000 * 1000 // (now_ns - before_ns) // self._promised, 1000)

    def _counted(self) -> dict[tuple[str, int], int]:
        """Bytes by control group and domain; a control group's include those of the monitoring groups in it."""
        return {
            (group.name, reading.domain): reading.mbm_total_bytes
            for group in [self._mount, *resctrl.control_groups(self._mount)]
            for reading in resctrl.read_group(group)
            if reading.mbm_total_bytes is not None
        }


def _promised() -> int:
    """Bytes per second of reads of the nodes with processors. Raises MachineError."""
    told = [node.bandwidth for node in tiers.read() if node.has_cpus]
    if not told or None in told:
        raise MachineError("tells no bandwidth of its memory; the firmware needs an HMAT", where=str(tiers.NODES))
    return sum(value or 0 for value in told) * _MB
