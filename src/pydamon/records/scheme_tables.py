"""What a record says of schemes: their statistics, and the regions that they tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pydamon.core.scheme_state import SchemeState, Tried

if TYPE_CHECKING:  # what writes no record needs none of it
    import pyarrow as pa


def scheme_rows(now_ns: int, states: Sequence[SchemeState]) -> list[dict[str, Any]]:
    """Rows of the side table ``schemes``: each scheme's statistics since the start."""
    return [
        {
            "time_ns": now_ns,
            "scheme": number,
            "name": state.scheme.name or "",
            "action": state.scheme.action,
            "active": state.active and not state.finished,
            **state.stats.by_name(),
            "effective_bytes": state.quota.esz,
        }
        for number, state in enumerate(states)
    ]


def tried_table(now_ns: int, scheme: int, tried: Tried) -> pa.Table:
    """Rows of the side table ``tried_regions``: what one pass tried of one target."""
    from pydamon.records.side_tables import from_columns

    count = len(tried.start)
    columns = {
        "time_ns": np.full(count, now_ns),
        "scheme": np.full(count, scheme),
        "target": np.full(count, tried.target),
        "start": tried.start,
        "end": tried.end,
        "nr_accesses": tried.nr_accesses,
        "age": tried.age,
        "sz_applied": tried.sz_applied,
        "sz_filter_passed": tried.sz_filter_passed,
    }
    return from_columns("tried_regions", columns)
