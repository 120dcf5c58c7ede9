"""Policies on a recording: the real core and schemes on a simulated process that plays the recording again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydamon.engines.sim import SimEngine
from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.run.simulation.recorded import load
from pydamon.spec import Scheme

if TYPE_CHECKING:
    from pydamon.core.snapshot import Snapshot
    from pydamon.records.joined import AnyReader

F64 = NDArray[np.float64]

_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did on a recording, over time: parallel arrays with an element for each aggregation.

    ``seconds`` since the beginning, ``resident`` bytes, ``faults``: bytes that came back so far; ``out``: bytes that
    the policy paged out in all; ``total``: bytes of all memory.
    """

    name: str
    seconds: F64
    resident: F64
    faults: F64
    out: int
    total: int

    @property
    def saved(self) -> float:
        """Bytes out of memory, the mean over the time."""
        return float(np.mean(self.total - self.resident)) if len(self.resident) else 0.0

    @property
    def per_minute(self) -> float:
        """Bytes a minute that came back."""
        return float(self.faults[-1]) * _MINUTE_S / float(self.seconds[-1]) if len(self.faults) else 0.0

    @property
    def worst_minute(self) -> float:
        """The most bytes that came back within a minute."""
        if not len(self.faults):
            return 0.0
        before = np.interp(self.seconds - _MINUTE_S, self.seconds, self.faults, left=0.0)
        return float((self.faults - before).max())

    def between(self, start_s: float, end_s: float) -> tuple[float, float, float]:
        """(bytes out of memory, the mean; bytes a minute that came back; that were paged out) in a part of the time."""
        inside = (self.seconds > start_s) & (self.seconds <= end_s * (1 + 1e-9))
        if not inside.any():
            return 0.0, 0.0, 0.0
        out = self.total - self.resident
        first, last = int(np.flatnonzero(inside)[0]), int(np.flatnonzero(inside)[-1])
        back = float(self.faults[last] - (self.faults[first - 1] if first else 0.0))
        more = float(out[last] - (out[first - 1] if first else 0.0))
        minutes = max(end_s - start_s, 1e-9) / _MINUTE_S
        return float(np.mean(out[inside])), back / minutes, max(back + more, 0.0) / minutes


class Recording:
    """One target of a record (all of it, or from ``start_ns`` to ``end_ns`` after its beginning), to be played again.

    Raises RequestError for one that is too large, PydamonError for one without snapshots.
    """

    def __init__(
        self, reader: AnyReader, *, target: int | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> None:
        self.target = only_target(reader) if target is None else target
        (self._recorded,) = load(reader, target=self.target, start_ns=start_ns, end_ns=end_ns)
        self.has_panel = self._recorded.has_panel
        self.lasting_s = self._recorded.lasting_s

    @property
    def bytes(self) -> int:
        """All memory."""
        return self._recorded.bytes

    def engine(self, schemes: Sequence[Scheme], *, seed: int = 0, hidden: bool = True) -> SimEngine:
        """An engine that plays it under these schemes, monitored as it was; see `Recorded.program`."""
        one = self._recorded
        spec = make_spec(ops="sim", sample=one.sample_us, aggr=one.aggr_us, regions=one.regions, schemes=list(schemes))
        # With its end all memory is gone: that comes after what is looked at.
        longer_ns = one.aggr_us * 1000 + 1_000_000
        return SimEngine(spec, one.program(hidden=hidden, longer_ns=longer_ns), seed=seed)

    def play(self, name: str, schemes: Sequence[Scheme], *, seed: int = 0) -> Outcome:
        """What these schemes do to it."""
        engine = self.engine(schemes, seed=seed)
        seconds, resident, faults = [], [], []
        began_ns = None
        out = 0
        for snapshots in engine.monitor():
            now = engine.simulated.summary()
            began_ns = snapshots[0].start_ns if began_ns is None else began_ns
            if snapshots[0].end_ns - began_ns > self.lasting_s * 1e9:
                break
            seconds.append((snapshots[0].end_ns - began_ns) / 1e9)
            resident.append(float(now.resident_bytes))
            faults.append(float(now.fault_bytes))
            out = now.fault_bytes + self.bytes - now.resident_bytes
        engine.close()
        return Outcome(name, np.array(seconds), np.array(resident), np.array(faults), out, self.bytes)

    def record(self, *, seed: int = 0) -> list[Snapshot]:
        """What its regions say, recorded again: what a monitor finds of it."""
        engine = self.engine((), seed=seed, hidden=False)
        found = [one for snapshots in engine.monitor() for one in snapshots]
        engine.close()
        return found


def only_target(reader: AnyReader) -> int:
    """The target of a record of one. Raises RequestError where there are several."""
    targets = sorted({one.target for one in reader.info.targets})
    if len(targets) > 1:
        shown = ", ".join(map(str, targets[:10]))
        text = f"{reader.path} has several targets ({shown}); only one is played again: say which"
        raise RequestError(text, where="target")
    return targets[0] if targets else 0
