"""The statistics of a scheme, in records of damo: those of each snapshot of the regions that it tried."""

from __future__ import annotations

from typing import Any

from pydamon.records.formats.damo_values import number
from pydamon.spec.statistics import STATISTICS
from pydamon.spec.units import parse_rounded_size


def scheme_row(time_ns: int, scheme: tuple[int, str], told: Any) -> dict[str, Any]:
    """A row of the side table ``schemes``. ``scheme`` is its number and action; damo does not tell its quota.

    Raises ValueError if a statistic that every record has is missing, or is no number.
    """
    if not isinstance(told, dict):
        raise ValueError("no statistics")
    which, action = scheme
    row = {"time_ns": time_ns, "scheme": which, "name": "", "action": action[:64], "active": True}
    for statistic in STATISTICS.values():
        value = told.get(statistic.name)
        found = number(value, parse_rounded_size) if isinstance(value, int | float | str) else None
        if found is None and not statistic.optional:
            raise ValueError(statistic.name)
        row[statistic.name] = found
    return row
