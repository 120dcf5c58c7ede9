"""Moments on their way to another process, as plain values; what comes is believed only as far as it can be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from pydamon.analysis.panel import look_of
from pydamon.core.columns import PER_REGION
from pydamon.core.snapshot import Snapshot
from pydamon.engines.on_core import panel_row
from pydamon.errors import PydamonError
from pydamon.learned import learned
from pydamon.linux.process import Mapping
from pydamon.run.found import Origin
from pydamon.views.moments import Known, Mapped, Moment

_COLUMNS = {column.name: column for column in PER_REGION if column.kept == "recorded"}


class Passed(msgspec.Struct):
    """A target at one time: ``head`` is what a snapshot says once, ``looks`` are rows of the side table ``panel``."""

    head: dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
    columns: dict[str, list[int]]
    mappings: list[Mapping]
    looks: list[dict[str, Any]]
    pid: int | None = None
    command: str | None = None
    footprint: dict[str, int | None] | None = None


class PassedMoment(msgspec.Struct):
    """A `Moment` without its origin."""

    time_ns: int
    targets: list[Passed]
    schemes: list[dict[str, Any]]
    cost: dict[str, Any] | None = None
    began_ns: int | None = None


def passed(moment: Moment) -> PassedMoment:
    """As plain values; what probes found stays behind."""
    targets = [_passed(known) for known in moment.targets.values()]
    return PassedMoment(moment.time_ns, targets, list(map(dict, moment.schemes)), _plain(moment.cost), moment.began_ns)


def _passed(known: Known) -> Passed:
    snapshot = known.snapshot
    return Passed(
        head=snapshot.head,
        columns={name: array.tolist() for name, array in snapshot.columns.items() if name in _COLUMNS},
        mappings=list(known.mapped.mappings),
        looks=[panel_row(look) for look in known.looks],
        pid=known.pid,
        command=known.command,
        footprint=_plain(known.footprint),
    )


def _plain(row: Any) -> Any:
    return None if row is None else dict(row)


def received(told: Sequence[Any], origin: Origin) -> list[Moment]:
    """What another process has passed. Raises PydamonError if that cannot be."""
    try:
        return [_moment(one, origin) for one in msgspec.convert(told, learned(list[PassedMoment]))]
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, OverflowError) as error:
        words = " ".join(str(error).split())[:200]
        raise PydamonError(f"is of another version of pydamon; start it anew ({words})") from None


def _moment(told: PassedMoment, origin: Origin) -> Moment:
    targets = {one.head["target"]: _known(one) for one in told.targets}
    return Moment(told.time_ns, origin, targets, told.schemes, told.cost, told.began_ns)


def _known(told: Passed) -> Known:
    arrays = {name: np.array(told.columns[name], _COLUMNS[name].dtype) for name in told.columns if name in _COLUMNS}
    start, end = arrays["start"], arrays["end"]
    if not (len({len(array) for array in arrays.values()}) == 1 and (start < end).all()):
        raise ValueError("regions that cannot be")
    if (end[:-1] > start[1:]).any():
        raise ValueError("regions in no order")
    snapshot = Snapshot.of(told.head, arrays)
    return Known(
        snapshot.target,
        snapshot,
        Mapped(told.mappings),
        pid=told.pid,
        command=told.command,
        looks=tuple(look for row in told.looks if (look := look_of(row)) is not None),
        footprint=told.footprint,
    )
