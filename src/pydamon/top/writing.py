"""Writes what was seen to a record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.engines.on_core import panel_row
from pydamon.errors import RequestError
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter
from pydamon.views.moments import History, Moment
from pydamon.views.writing import MomentWriter

if TYPE_CHECKING:
    from pydamon.top.watch import Looked


def write_history(path: str, metadata: Mapping[str, Any], history: History) -> str:
    """All moments of a history; what to say of that. Raises PydamonError, RequestError naming the file.

    There is one a second, each of its last aggregation: what was in between is not kept.
    """
    moments = list(moments_of(history))
    if not moments:
        raise RequestError("there is nothing to write yet", where=path)
    with RecordWriter(path, metadata=build_metadata(**metadata), keep_old=True) as writer:
        into = MomentWriter(writer, [target["target"] for target in metadata["targets"]])
        for moment in moments:
            into.add(moment)
    return _said(f"{into.snapshots:,} snapshots", moments[-1].time_ns - moments[0].time_ns, writer)


def write_looks(path: str, primitive: str, looked: Sequence[Looked]) -> str:
    """Looks at many processes; what to say of that. Raises PydamonError, RequestError naming the file.

    A process is one region, of which nobody knows how often it was accessed: what was used is in the page panel.
    """
    if not looked:
        raise RequestError("there is nothing to write yet", where=path)
    who = {one.look.target: {"target": one.look.target, "pid": one.pid, "command": one.name} for one in looked}
    metadata = build_metadata(
        targets=list(who.values()),
        ops="vaddr",
        primitive=primitive,
        primitive_reason="page panels alone",
        wall_offset_ns=time.time_ns() - time.monotonic_ns(),
    )
    with RecordWriter(path, metadata=metadata, keep_old=True) as writer:
        for one in looked:
            writer.add_snapshot(_unknown(one))
            writer.add_rows("panel", [panel_row(one.look)], time_ns=one.look.time_ns)
            writer.tick(one.look.time_ns)
    what = f"{len(who):,} processes, {len(looked):,} looks"
    return _said(what, looked[-1].look.time_ns - looked[0].look.time_ns, writer)


def _said(what: str, length_ns: int, writer: RecordWriter) -> str:
    kept = f"; what was there is {writer.kept}" if writer.kept is not None else ""
    return f"{writer.path}: {what} of {length_ns / 1e9:.0f} s{kept}"


def _unknown(one: Looked) -> Snapshot:
    """One region of which no sample had an answer."""
    look = one.look
    took_us = max((look.time_ns - one.since_ns) // 1000, 1)
    start, end = (np.array([at], np.uint64) for at in one.extent)
    nothing = np.zeros(1, np.uint32)
    return Snapshot(
        look.target,
        one.since_ns,
        look.time_ns,
        took_us,
        took_us,
        start,
        end,
        nothing,
        nothing,
        resident=np.array([look.resident_bytes], np.uint64),
        unknown=np.ones(1, np.uint32),
    )


def moments_of(history: History) -> Iterator[Moment]:
    """From the first to the last."""
    span = history.span()
    moment = None if span is None else history.at(span[0])
    while moment is not None:
        yield moment
        later = history.step(moment, 1)
        moment = later if later is not None and later.time_ns > moment.time_ns else None
