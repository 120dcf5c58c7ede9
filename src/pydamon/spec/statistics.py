"""The statistics of a scheme, one row each: what it counts, and who tells it.

The core counts them (``core/scheme_state.py: SchemeStats`` has a field for each row, which a test checks); records,
reports, ``status``, ``trace``, damonfs and the kernel engine read them by these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from pydamon.spec.units import format_size

Version = tuple[int, int]


class Statistic(msgspec.Struct, frozen=True):
    """One number that a scheme has.

    ``kind``: a counter only grows while the scheme runs, a gauge goes both ways. ``since``: the first kernel whose
    DAMON has a file for it, None for one of ours. ``event``: what it is called in the text of the kernel's trace event
    ``damos_stat_after_apply_interval``, None if it is not there. ``heading``: of its column in reports.
    """

    name: str
    unit: Literal["bytes", ""]
    help: str
    since: Version | None
    kind: Literal["counter", "gauge"] = "counter"
    event: str | None = None
    heading: str = ""
    optional: bool = False  # it came later: records from before lack it

    @property
    def key(self) -> str:
        """Its key in JSON, where names tell units."""
        return f"{self.name}_{self.unit}" if self.unit else self.name


# In the order of the kernel's trace event (7.0), which calls two of them sz_tried.
_ROWS = (
    Statistic("nr_tried", "", "regions that the action was tried on", (5, 16), event="nr_tried", heading="tried"),
    Statistic(
        "sz_tried",
        "bytes",
        "memory of these regions; by the kernel and with faithful their size",
        (5, 16),
        event="sz_tried",
        heading="tried bytes",
    ),
    Statistic("nr_applied", "", "regions in which the action was applied to something", (5, 16), event="nr_applied"),
    Statistic(
        "sz_applied", "bytes", "memory that the action was applied to", (5, 16), event="sz_tried", heading="applied"
    ),
    Statistic(
        "sz_ops_filter_passed",
        "bytes",
        "memory of the regions tried that the page filters let pass",
        (6, 14),
        event="sz_ops_filter_passed",
        heading="passed",
    ),
    Statistic(
        "qt_exceeds",
        "",
        "windows of the quota in which it was used up",
        (5, 16),
        event="qt_exceeds",
        heading="quota used up",
    ),
    Statistic("nr_snapshots", "", "targets gone through to the last region", (7, 0), event="nr_snapshots"),
    Statistic("sz_added", "bytes", "memory that collapse added: parts of huge pages", None, optional=True),
    Statistic("sz_refused", "bytes", "memory that the kernel refused to collapse", None, optional=True),
)

STATISTICS: Mapping[str, Statistic] = {row.name: row for row in _ROWS}
OF_EVENT = tuple(row for row in _ROWS if row.event is not None)
# Those with columns in reports, in the order of what becomes of a region.
_REPORTED = ("nr_tried", "sz_tried", "sz_ops_filter_passed", "sz_applied", "qt_exceeds")
REPORTED = tuple(STATISTICS[name] for name in _REPORTED)


def told(value: int | None, row: Statistic) -> str:
    """A value for people; None: it was not counted yet."""
    if value is None:
        return "-"
    return format_size(value) if row.unit == "bytes" else f"{value:,}"
