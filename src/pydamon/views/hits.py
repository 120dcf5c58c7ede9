"""What probes have hit in the regions of a moment, on its way to another process as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from pydamon.errors import PydamonError
from pydamon.learned import learned
from pydamon.spec.probes import MAX_PROBES, Probe, describe_probe
from pydamon.views.moments import Moment

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Address = Annotated[int, msgspec.Meta(ge=0)]
_Small = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one target in its last snapshot: a value for each region, and of ``hits`` a list for each probe."""

    target: _Small
    time_ns: _Number
    duration_ns: _Number
    attributes: list[str]
    weights: list[_Small]
    start: list[_Address]
    end: list[_Address]
    nr_accesses: list[_Small]
    age: list[_Small]
    samples: list[_Small]
    hits: list[list[_Small]]
    pid: int | None = None
    command: str | None = None


def of_moment(moment: Moment | None, probes: Sequence[Probe]) -> list[Hits]:
    """What the moment's snapshots tell of ``probes``; nothing of targets whose probes were others then."""
    found = []
    for known in moment.targets.values() if moment is not None else ():
        snapshot = known.snapshot
        if len(probes) and len(snapshot.probe_hits) == len(probes):
            found.append(
                Hits(
                    target=known.target,
                    time_ns=snapshot.end_ns,
                    duration_ns=snapshot.end_ns - snapshot.start_ns,
                    attributes=[describe_probe(probe) for probe in probes],
                    weights=[probe.weight for probe in probes],
                    start=snapshot.start.tolist(),
                    end=snapshot.end.tolist(),
                    nr_accesses=snapshot.nr_accesses.tolist(),
                    age=snapshot.age.tolist(),
                    samples=snapshot.probe_samples.tolist(),
                    hits=snapshot.probe_hits.tolist(),
                    pid=known.pid,
                    command=known.command,
                )
            )
    return found


def received(told: Any) -> list[Hits]:
    """What another process has told. Raises PydamonError if that cannot be."""
    try:
        found = msgspec.convert(told, learned(list[Hits]))
        for one in found:
            _check(one)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        words = " ".join(str(error).split())[:200]
        raise PydamonError(f"is of another version of pydamon; start it anew ({words})") from None
    return found


def _check(one: Hits) -> None:
    start, end = np.array(one.start, np.uint64), np.array(one.end, np.uint64)
    columns = (one.end, one.nr_accesses, one.age, one.samples, *one.hits)
    if any(len(column) != len(start) for column in columns) or (start >= end).any():
        raise ValueError("regions that cannot be")
    if not 1 <= len(one.hits) <= MAX_PROBES or not len(one.hits) == len(one.attributes) == len(one.weights):
        raise ValueError("probes that cannot be")
    if len(start) and (np.array(one.hits) > np.array(one.samples)).any():
        raise ValueError("more hits than samples")
