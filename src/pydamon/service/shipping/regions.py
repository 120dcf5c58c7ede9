"""The regions of a host whose turn it is, as its monitors tell them: a snapshot of each target a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydamon.errors import PydamonError
from pydamon.records.batch import RegionBatch
from pydamon.records.decode import Rows
from pydamon.records.region_rows import region_rows
from pydamon.records.schema import region_fields
from pydamon.run.found import Origin
from pydamon.service.client import Client
from pydamon.service.shipping.groups import groups
from pydamon.service.shipping.region_files import OPTIONAL, encode, schema
from pydamon.service.shipping.rows import Seen
from pydamon.views.passing import received

if TYPE_CHECKING:
    import pyarrow as pa

_ASK_S = 5.0
_ORIGIN = Origin(None, None, None, None, None, [], None)


def look(seen: Sequence[Seen], host: str, minute: int) -> bytes | None:
    """The regions of all monitors now; one that does not answer is left out. None: there are none."""
    tables = []
    for one in seen:
        try:
            told = Client(one.name, timeout_s=_ASK_S).moments()["moments"]
        except (PydamonError, KeyError):
            continue
        cgroups = {
            held.target.target: group.name
            for group in groups([(one.name, one.view)], 1 << 30)[0]
            for held in group.held
        }
        table = rows(told, host, one.name, cgroups, minute)
        if table is not None:
            tables.append(table)
    return encode(tables)


def rows(told: Sequence[Any], host: str, monitor: str, cgroups: Mapping[int, str], minute: int) -> pa.Table | None:
    """The regions in what a monitor has passed, of the last moment; None if there are none, or they cannot be."""
    import numpy as np
    import pyarrow as pa

    try:
        moments = received(told[-1:], _ORIGIN)
    except PydamonError:
        return None
    snapshots = [known.snapshot for moment in moments for known in moment.targets.values() if len(known.snapshot.start)]
    if not snapshots:
        return None
    batch = RegionBatch.of(snapshots)
    found = region_rows(pa.schema(region_fields(OPTIONAL)), Rows.of(batch).index, batch.columns)
    count = found.num_rows
    names = np.repeat([cgroups.get(one.target, monitor) for one in snapshots], batch.counts)
    labels = [pa.array([host] * count), pa.array([monitor] * count), pa.array(names.tolist())]
    return pa.Table.from_arrays([*labels, pa.array([minute] * count, pa.int64()), *found.columns], schema=schema())
